"""Image files of every kind: in 8 bits as a person sees them, or refused by name; what is skipped is said."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from alphagrad.recipes.vision.decode import opened, suffixes
from alphagrad.recipes.vision.folders import find_folders
from PIL import Image as Picture

LEVELS = np.array([[0, 257 * 10, 257 * 100 + 128], [257 * 100 + 129, 40000, 65535]], dtype=np.uint16)
EIGHT = np.rint(LEVELS / 257).astype(np.uint8)
COLOURS = np.random.default_rng(0).integers(256, size=(5, 7, 3), dtype=np.uint8)


def seen(file: Path) -> np.ndarray:
    pixels = opened(file)
    assert pixels.dtype == torch.uint8
    return pixels.permute(1, 2, 0).numpy()


def is_gray(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.array_equal(found, np.repeat(expected[..., None], 3, axis=-1))


@pytest.mark.parametrize("ending", ["png", "tif", "pgm", "jp2"])
def test_gray_of_16_bits_keeps_its_levels(ending, tmp_path):
    file = tmp_path / f"x.{ending}"
    Picture.fromarray(LEVELS).save(file)
    is_gray(seen(file), EIGHT)


def tiff(
    pixels: bytes, bits: int, shape: tuple[int, int], photometric: int = 1, order: str = "<", held: int = 1
) -> bytes:
    """One strip of gray, written by hand: Pillow does not write these."""
    tags = [(256, shape[1]), (257, shape[0]), (258, bits), (259, 1), (262, photometric), (273, 8), (274, held)]
    tags += [(277, 1), (278, shape[0]), (279, len(pixels))]
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(pixels))
    directory = struct.pack(f"{order}H", len(tags))
    for tag, value in tags:
        kind, form = (4, "I") if tag in (273, 279) else (3, "H2x")
        directory += struct.pack(f"{order}HHI{form}", tag, kind, 1, value)
    return head + pixels + directory + struct.pack(f"{order}I", 0)


@pytest.mark.long
def test_gray_of_16_bits_in_tiffs_of_other_kinds(tmp_path):
    file = tmp_path / "x.tif"
    file.write_bytes(tiff(LEVELS.astype(">u2").tobytes(), 16, LEVELS.shape, order=">"))
    is_gray(seen(file), EIGHT)
    file.write_bytes(tiff(LEVELS.astype("<u2").tobytes(), 16, LEVELS.shape, photometric=0))
    is_gray(seen(file), 255 - EIGHT)
    file.write_bytes(tiff(bytes([0xFF, 0xF0, 0x00, 0x80, 0x00, 0x01]), 12, (1, 4)))  # fff 000 800 001
    is_gray(seen(file), np.array([[255, 0, 128, 0]], dtype=np.uint8))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("held", range(1, 9))
def test_a_gray_tiff_stands_upright(held, bits, tmp_path):
    levels = (EIGHT if bits == 8 else LEVELS).astype(f"<u{bits // 8}")
    file = tmp_path / "x.tif"
    # where a stored pixel stands, from TIFF's own words: which sides its first row and first column are
    turned = {
        1: levels,
        2: levels[:, ::-1],
        3: levels[::-1, ::-1],
        4: levels[::-1],
        5: levels.T,
        6: np.rot90(levels, -1),
        7: levels[::-1, ::-1].T,
        8: np.rot90(levels, 1),
    }[held]
    file.write_bytes(tiff(levels.tobytes(), bits, levels.shape, held=held))
    is_gray(seen(file), np.rint(turned / (257 if bits == 16 else 1)).astype(np.uint8))


def png(rows: list[bytes], width: int, bits: int, colours: int, transparent: bytes) -> bytes:
    """Written by hand: Pillow writes neither gray of 2 and 4 bits nor colours of 16."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), bits, colours, 0, 0, 0)), (b"tRNS", transparent)]
    parts += [(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(held)) + name + held + struct.pack(">I", zlib.crc32(name + held)) for name, held in parts
    )


@pytest.mark.parametrize(("bits", "row"), [(1, 0b01000000), (2, 0b00011011), (4, 0x07)])
def test_gray_of_few_bits_with_a_transparent_level(bits, row, tmp_path):
    file, count = tmp_path / "x.png", 8 // bits
    levels = np.array([[row >> (8 - bits * (k + 1)) & (2**bits - 1) for k in range(count)]])
    for key in {0, *levels.ravel().tolist()}:
        file.write_bytes(png([bytes([row])], count, bits, 0, struct.pack(">H", key)))
        is_gray(seen(file), np.where(levels == key, 255, levels * 255 // (2**bits - 1)).astype(np.uint8))


def test_colours_of_16_bits_with_a_transparent_one(tmp_path):
    pixels = np.array([[[0x1234, 0x5678, 0x9ABC], [0x5678, 0x1234, 0x9ABC]]], dtype=">u2")
    file = tmp_path / "x.png"
    file.write_bytes(png([pixels.tobytes()], 2, 16, 2, pixels[0, 0].tobytes()))
    assert seen(file).tolist() == [[[255, 255, 255], [0x56, 0x12, 0x9A]]]


def test_gray_of_16_bits_with_a_transparent_level(tmp_path):
    file = tmp_path / "x.png"
    Picture.fromarray(LEVELS).save(file, transparency=40000)
    is_gray(seen(file), np.where(LEVELS == 40000, 255, EIGHT).astype(np.uint8))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_become_their_colours(bits, tmp_path):
    numbers = (np.arange(12).reshape(3, 4) % 2**bits).astype(np.uint8)
    image = Picture.fromarray(numbers).convert("P")
    image.putdata(numbers.ravel().tolist())
    palette = np.random.default_rng(1).integers(256, size=(256, 3), dtype=np.uint8)
    image.putpalette(palette.ravel().tolist())
    image.save(tmp_path / "x.png", bits=bits)
    assert np.array_equal(seen(tmp_path / "x.png"), palette[numbers])
    image.save(tmp_path / "y.png", bits=bits, transparency=1)
    expected = np.where((numbers == 1)[..., None], 255, palette[numbers])
    assert np.array_equal(seen(tmp_path / "y.png"), expected)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_what_is_transparent_lies_on_white(mode, tmp_path):
    gray = np.array([[0, 0, 0, 200]], dtype=np.uint8)  # below the transparent pixel, black
    alpha = np.array([[0, 128, 255, 128]], dtype=np.uint8)
    bands = [gray] * (len(mode) - 1) + [alpha]
    image = Picture.merge(mode, [Picture.fromarray(band) for band in bands])
    image.save(tmp_path / "x.png")
    expected = np.rint((gray * (alpha / 255.0)) + 255 * (1 - alpha / 255.0))
    found = seen(tmp_path / "x.png")
    assert np.abs(found - expected[..., None]).max() <= 1
    assert found[0, :, 0].tolist()[::2] == [255, 0]


def test_a_transparent_colour_and_a_transparent_gray_lie_on_white(tmp_path):
    key = tuple(int(c) for c in COLOURS[2, 3])
    Picture.fromarray(COLOURS).save(tmp_path / "x.png", transparency=key)
    expected = np.where((key == COLOURS).all(-1, keepdims=True), 255, COLOURS)
    assert np.array_equal(seen(tmp_path / "x.png"), expected)
    Picture.fromarray(EIGHT).save(tmp_path / "y.png", transparency=10)
    is_gray(seen(tmp_path / "y.png"), np.where(EIGHT == 10, 255, EIGHT).astype(np.uint8))


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "RGB"])
def test_gray_and_cmyk(mode, tmp_path):
    image = Picture.fromarray(COLOURS).convert(mode)
    image.save(tmp_path / "x.tif")
    assert np.array_equal(seen(tmp_path / "x.tif"), np.array(image.convert("RGB")))


@pytest.mark.parametrize("ending", ["png", "tif", "webp", "jpg"])
@pytest.mark.parametrize("held", range(1, 9))
def test_a_picture_stands_upright(held, ending, tmp_path):
    """What a camera held so would have stored of a picture comes out as the picture."""
    upright = np.zeros((8, 16, 3), dtype=np.uint8)
    upright[:, :8, 0] = upright[:4, :, 1] = 255
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[held]
    exif = Picture.Exif()
    exif[0x0112] = held
    options = {"lossless": True} if ending == "webp" else {"quality": 100, "subsampling": 0} if ending == "jpg" else {}
    Picture.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"x.{ending}", exif=exif, **options)
    found = seen(tmp_path / f"x.{ending}")
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).max() <= 3


@pytest.mark.parametrize("ending", ["gif", "tif", "png"])
def test_the_first_picture_of_several(ending, tmp_path):
    first, second = (Picture.new("RGB", (4, 3), colour) for colour in ("red", "blue"))
    first.save(tmp_path / f"x.{ending}", save_all=True, append_images=[second])
    assert np.array_equal(seen(tmp_path / f"x.{ending}"), np.array(first))


@pytest.mark.parametrize(("mode", "pixels"), [("I", np.int32), ("F", np.float32)])
def test_what_no_rule_brings_to_8_bits_is_refused_by_name(mode, pixels, tmp_path):
    file = tmp_path / "x.tif"
    Picture.fromarray(LEVELS.astype(pixels)).save(file)
    with pytest.raises(ValueError, match=f"x.tif: is of Pillow's mode {mode}, which no rule brings to 8 bits"):
        opened(file)


def test_files_that_are_skipped_are_counted_and_said(tmp_path, capsys):
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            Picture.fromarray(COLOURS).save(tmp_path / part / name / "a.png")
    Picture.fromarray(COLOURS).save(tmp_path / "train/cat/b.GIF")
    for odd in ("cat/c.txt", "cat/d.mov", "dog/e.mov", "dog/._a.png", "dog/README", "notes.csv"):
        (tmp_path / "train" / odd).write_text("no image")
    (tmp_path / "train/.ipynb_checkpoints").mkdir()  # no class
    train, test = find_folders(tmp_path)
    assert [Path(file).name for file in train.files] == ["a.png", "b.GIF", "a.png"]
    assert train.classes == test.classes == ["cat", "dog"]
    said = capsys.readouterr().err
    counts = "1 .csv, 2 .mov, 1 .txt, 1 hidden, 1 without an ending"
    assert said == f"alphagrad: {tmp_path / 'train'}: 6 files are no images and are skipped ({counts}); 3 are read\n"
    assert {".jpg", ".png", ".jpeg", ".bmp", ".webp", ".ppm", ".tiff", ".jp2"} <= suffixes()
    assert not {".mpg", ".h5", ".eps", ".pdf"} & suffixes()
