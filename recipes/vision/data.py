"""A checked image data set, whole in memory, and its settings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from alphagrad.lab.recipe import Settings

from .sources import KNOWN, Split, load


class DataSettings(Settings):
    """Which images, and how they are augmented; see conf/data/."""

    name: str = Field(min_length=1)
    root: str | None
    download: bool
    mean: list[float] = Field(min_length=1)
    """Of each channel, of pixels scaled to [0, 1]."""
    std: list[float] = Field(min_length=1)
    pad: NonNegativeInt
    """Random crops from images padded by so many zeros; 0 for none."""
    flip: bool
    """Whether half of the training images are mirrored."""
    workers: NonNegativeInt
    """Processes that read images from disk; those in memory need none."""
    size: PositiveInt | None
    """Side of the square that images on disk are cropped to; those in memory have their own."""


@dataclass(frozen=True)
class Images:
    """One split: images uint8 [N, H, W, C], labels int64 [N]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """Training and test images."""

    train: Images
    test: Images
    classes: list[str]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        h, w, c = self.train.images.shape[1:]
        return c, h, w


def dataset(s: DataSettings) -> Dataset:
    """The data set of the settings; read once a process.

    Raises:
        ValueError: it cannot be had, or is not what it should be.
    """
    return _dataset(s.name, s.root, s.download)


@lru_cache(maxsize=2)
def _dataset(name: str, root: str | None, download: bool) -> Dataset:
    train, test, names = load(name, root, download)
    check(name, train, test)
    count = KNOWN[name].classes if name in KNOWN else int(train[1].max()) + 1
    classes = names or [str(k) for k in range(count)]
    return Dataset(_images(train), _images(test), classes)


def check(name: str, train: Split, test: Split) -> None:
    """Raises ``ValueError`` for splits that do not fit together or labels that are out of range."""
    for split, (images, labels) in (("train", train), ("test", test)):
        if len(images) != len(labels) or not len(labels):
            raise ValueError(f"data.name={name}: the {split} split has {len(images)} images and {len(labels)} labels")
    if train[0].shape[1:] != test[0].shape[1:]:
        raise ValueError(
            f"data.name={name}: training images are {list(train[0].shape[1:])}, test images {list(test[0].shape[1:])}"
        )
    present = np.unique(train[1])
    allowed = KNOWN[name].classes if name in KNOWN else int(present[-1]) + 1
    for split, labels in (("train", train[1]), ("test", test[1])):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= allowed:
            wrong = low if low < 0 else high
            raise ValueError(f"data.name={name}: a {split} label is {wrong}; they must lie in 0 to {allowed - 1}")
    if name not in KNOWN and len(present) < allowed:
        absent = next(k for k in range(allowed) if k not in set(present.tolist()))
        raise ValueError(
            f"data.name={name}: training labels go to {allowed - 1}, but none is {absent}; number classes from 0"
        )
    if allowed < 2:
        raise ValueError(f"data.name={name}: has one class; there is nothing to tell apart")


def _images(split: Split) -> Images:
    return Images(torch.from_numpy(np.array(split[0])), torch.from_numpy(np.array(split[1])))
