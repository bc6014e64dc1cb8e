"""Where image data sets come from: embedded, ``{train,test}.npz``, or torchvision's files."""

from __future__ import annotations

import math
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..supervised.roots import root_of

Split = tuple[np.ndarray, np.ndarray]
"""Images uint8 [N, H, W, C] and labels int64 [N]."""
LARGEST_UNASKED, MOST_EXPANSION = 1 << 24, 100
"""Bytes of an array that is read however it is compressed, and how far a larger one may expand."""
TEST_EVERY = 5
"""Of scikit-learn's digits, which come without a split, every fifth is for testing: 1,438 and 359 images."""


@dataclass(frozen=True)
class Known:
    """A data set that torchvision reads and can download."""

    torchvision: str
    """The class in ``torchvision.datasets``."""
    files: str
    """What it reads below the root."""
    classes: int


KNOWN = {
    "mnist": Known("MNIST", "MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte", 10),
    "fashion_mnist": Known("FashionMNIST", "FashionMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte", 10),
    "cifar10": Known("CIFAR10", "cifar-10-batches-py/", 10),
    "cifar100": Known("CIFAR100", "cifar-100-python/", 100),
}


def load(name: str, root: str | None, download: bool) -> tuple[Split, Split, list[str] | None]:
    """Training and test split of a data set that fits in memory, and its classes' names where they are known.

    Raises:
        ValueError: it is not there and cannot be fetched, or a file is damaged; the message names the setting
            and the path.
    """
    if name == "digits":
        return (*digits(), None)
    folder = root_of(root)
    if (folder / name / "train.npz").exists() or (folder / name / "test.npz").exists():
        return (*(read_npz(folder / name / f"{split}.npz") for split in ("train", "test")), None)  # type: ignore[return-value]
    if name not in KNOWN:
        raise ValueError(
            f"data.name={name}: {folder / name} has neither train.npz and test.npz (images uint8 [N, H, W, C], labels "
            f"int64 [N]) nor train/ and val/ with a folder of images for each class, and it is none of digits, "
            f"{', '.join(KNOWN)}; set data.root or put them there"
        )
    return read_torchvision(name, folder, download)


def digits() -> tuple[Split, Split]:
    """scikit-learn's 8×8 digits, embedded: gray levels 0 to 16 as multiples of 15."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = (bunch.images * 15).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int64)
    test = np.arange(len(labels)) % TEST_EVERY == TEST_EVERY - 1
    return (images[~test], labels[~test]), (images[test], labels[test])


def read_npz(path: Path) -> Split:
    """A split from ``images`` and ``labels``.

    Raises:
        ValueError: the file is missing or damaged, or an array is not as it must be.
    """
    try:
        check_headers(path)
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in ("images", "labels") if key in file}
            held = list(file)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file; train.npz and test.npz belong together") from error
    except Oversized as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # zip, zlib and NumPy fail in many ways on what is cut off or something else
        raise ValueError(f"{path}: cannot be read as npz with plain arrays ({type(error).__name__})") from error
    missing = [key for key in ("images", "labels") if key not in arrays]
    if missing:
        raise ValueError(f"{path}: has no array {' and no array '.join(missing)}, only {', '.join(held)}")
    return checked(f"{path}:", arrays["images"], arrays["labels"])


def checked(told: str, images: np.ndarray, labels: np.ndarray) -> Split:
    """A split of images and labels; ``ValueError`` where an array is not as it must be."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape[1:]:
        raise ValueError(f"{told} images must be uint8 [N, H, W, 1 or 3], got {images.dtype} {list(images.shape)}")
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise ValueError(f"{told} labels must be int64 [N], got {labels.dtype} {list(labels.shape)}")
    if labels.size and labels.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{told} labels must be int64 [N], got {labels.max()}")
    return images, labels.astype(np.int64)


class Oversized(Exception):
    """A file would take far more memory than it is large."""


def check_headers(path: Path) -> None:
    """Raises :class:`Oversized` for an array that is not what the file can hold; reads none of its data."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.file_size > LARGEST_UNASKED and entry.file_size > MOST_EXPANSION * max(entry.compress_size, 1):
                times = entry.file_size // max(entry.compress_size, 1)
                raise Oversized(
                    f"{entry.filename} expands {times:,}-fold to {entry.file_size:,} bytes, more than "
                    f"{MOST_EXPANSION}-fold; store it with np.savez if it is meant"
                )
            if not entry.filename.endswith(".npy"):
                continue
            with archive.open(entry) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
                size = math.prod(shape) * dtype.itemsize
                if not dtype.hasobject and size != entry.file_size - file.tell():
                    raise Oversized(
                        f"{entry.filename} says it has {size:,} bytes, and has {entry.file_size - file.tell():,}"
                    )


def read_torchvision(name: str, folder: Path, download: bool) -> tuple[Split, Split, list[str] | None]:
    """A data set of :data:`KNOWN`, downloaded where it is missing and ``download`` allows it."""
    from torchvision import datasets

    known = KNOWN[name]
    make: Callable[..., Any] = getattr(datasets, known.torchvision)
    put = f"put {name}/{{train,test}}.npz (images uint8 [N, H, W, C], labels int64 [N]) or {known.files} into {folder}"
    try:
        parts = [make(folder, train=train) for train in (True, False)]
    except RuntimeError as absent:
        if "not found" not in str(absent):
            raise ValueError(f"{folder}: the files of {name} are damaged ({_told(absent)}); {put}") from absent
        held = folder / known.files.split("/")[0]
        has = f"has {name} damaged or in part ({held})" if held.exists() else f"has no {name}"
        if not download:
            raise ValueError(f"data.root={folder}: {has}, and data.download=false; {put}") from absent
        made = [place for place in (folder, held, held / "raw") if not place.exists()]
        try:
            parts = [make(folder, train=train, download=True) for train in (True, False)]
        except Exception as error:  # whatever a network and its libraries raise
            for place in reversed(made):
                if place.is_dir() and not any(place.iterdir()):
                    place.rmdir()
            raise ValueError(
                f"data.root={folder}: {has}, and it cannot be downloaded ({_told(error)}); {put}"
            ) from error
        print(f"alphagrad: {folder} had no whole {name}: torchvision has downloaded it there", file=sys.stderr)
    except Exception as error:  # torchvision's readers fail in many ways on a damaged file
        raise ValueError(f"{folder}: the files of {name} are damaged ({_told(error)}); {put}") from error
    splits = []
    for part in parts:
        images = np.asarray(part.data)
        splits.append((images if images.ndim == 4 else images[..., None], np.asarray(part.targets, dtype=np.int64)))
    return splits[0], splits[1], list(parts[0].classes)


def _told(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
