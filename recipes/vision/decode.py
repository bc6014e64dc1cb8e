"""An image file, as a person sees it, in 8 bits."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

GRAY_16 = ("I;16", "I;16L", "I;16B", "I;16N", "I")
"""Pillow's modes of gray levels wider than 8 bits; I is one of them in the formats that know no wider ones."""
LEVELS = {"PNG": GRAY_16, "PPM": GRAY_16, "TIFF": GRAY_16[:-1], "JPEG2000": GRAY_16[:-1]}
"""Formats in which such a level says how bright a pixel is: 0 is black, 65535 white."""
COLOURS = ("1", "L", "P", "RGB", "RGBX", "YCbCr", "HSV", "CMYK")
"""Modes that Pillow brings to RGB by itself."""
ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
ORIENTATION = 0x0112
"""EXIF's tag for how a camera was held."""
TIFF_BITS, TIFF_PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0
PNG_BITS = 24
"""Where a PNG says how many bits a level has: its header always comes first."""
UNREAD = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")
"""What Pillow knows by name, but cannot read without another program."""


def suffixes() -> frozenset[str]:
    """Endings of the files that Pillow reads, in small letters with their dots."""
    from PIL import Image

    endings = Image.registered_extensions()  # which makes the formats known, too
    return frozenset(end for end, kind in endings.items() if kind in Image.OPEN and kind not in UNREAD)


def opened(file: str | Path) -> Tensor:
    """An image file as uint8 [3, H, W], the first picture of a file that holds several.

    Gray becomes equal red, green and blue; gray of 16 bits is divided by 257 and rounded, of 12 bits by
    4095 / 255. Palettes become their colours, CMYK by Pillow's formula. What is transparent is laid on white,
    and the picture is turned as its EXIF orientation says.

    Raises:
        ValueError: it is damaged, or of a kind that no rule brings to 8 bits, such as 32-bit numbers.
    """
    from PIL import Image
    from torchvision.transforms.v2.functional import pil_to_tensor

    try:
        # Pillow maps a file that it opened itself into memory, and there scrambles a TIFF that lies on its side
        with open(file, "rb") as stream, Image.open(stream) as image:
            image.load()
            _scale_transparency(image, stream)
            seen = _upright(_eight_bits(image), image)
            return pil_to_tensor(seen)
    except _Refused as error:
        raise ValueError(f"{file}: {error}") from error
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(f"{file}: cannot be read, is it damaged? ({' '.join(str(error).split())[:200]})") from error


class _Refused(ValueError):
    """A sound file of a kind that is not taken."""


def _scale_transparency(image: Image, stream: BinaryIO) -> None:
    """Brings a PNG's transparent gray or colour to 8 bits: Pillow so brings its pixels alone."""
    key = image.info.get("transparency")
    if image.format != "PNG" or image.mode not in ("L", "RGB") or key is None:
        return
    stream.seek(PNG_BITS)
    bits = stream.read(1)[0]
    if image.mode == "L":
        image.info["transparency"] = (key & (2**bits - 1)) * 255 // (2**bits - 1)
    elif bits == 16:  # of each colour, as of the pixels, the upper 8 bits
        image.info["transparency"] = tuple(level >> 8 for level in key)


def _eight_bits(image: Image) -> Image:
    from PIL import Image as Pictures

    if image.mode in LEVELS.get(image.format or "", ()):
        return _from_gray_16(image)
    if image.mode in ALPHA or (image.mode in COLOURS and "transparency" in image.info):
        straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
        alpha = (image.convert(straight) if straight else image).convert("RGBA")
        return Pictures.alpha_composite(Pictures.new("RGBA", alpha.size, "white"), alpha).convert("RGB")
    if image.mode in COLOURS:
        return image.convert("RGB")
    raise _Refused(
        f"is of Pillow's mode {image.mode}, which no rule brings to 8 bits; save it as gray of 8 or 16 bits, or as RGB"
    )


def _from_gray_16(image: Image) -> Image:
    from PIL import Image as Pictures

    tags = getattr(image, "tag_v2", {})
    top = 2 ** tags.get(TIFF_BITS, (16,))[0] - 1  # a TIFF may have 12 bits
    levels = np.asarray(image).astype(np.int64)
    gray = (levels * 255 + top // 2) // top
    if tags.get(TIFF_PHOTOMETRIC) == WHITE_IS_ZERO:  # Pillow turns those of 8 bits itself
        gray = 255 - gray
    if "transparency" in image.info:
        gray[levels == image.info["transparency"]] = 255
    return Pictures.fromarray(gray.astype(np.uint8)).convert("RGB")


def _upright(picture: Image, image: Image) -> Image:
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    turn = turns.get(image.getexif().get(ORIENTATION, 1))
    return picture if turn is None else picture.transpose(turn)
