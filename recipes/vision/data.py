"""A checked image data set and its settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor

from alphagrad.harness.stack import RunStack

from ..supervised.held_out import divided, spread
from ..supervised.loop import Batches
from ..supervised.own import OwnSettings, own_splits
from ..supervised.roots import root_of
from .batches import Images, MemoryBatches, MemorySweep, Pixels
from .folders import FolderBatches, Folders, FolderSweep, find_folders
from .sources import KNOWN, Split, checked, load


class DataSettings(OwnSettings):
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
    validation: float = Field(ge=0, lt=1)
    """Share of the training images that is kept from training and evaluated on in place of the test images."""
    workers: int = Field(ge=0, le=256)
    """Processes that read images from disk; those in memory need none."""
    size: int | None = Field(gt=0, le=1 << 14)
    """Side of the square that images on disk are cropped to; those in memory have their own."""

    @property
    def pixels(self) -> Pixels:
        """How pixels become numbers."""
        return Pixels(tuple(self.mean), tuple(self.std))


class Sweep(Protocol):
    """Images in a fixed order, without augmentation, for evaluation."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of images float32 [B, C, H, W] and labels [B]."""

    def picture(self, index: int) -> Tensor:
        """An image as it came, uint8 [H, W, C], on the host."""


class Dataset(Protocol):
    """Training and test images, wherever they are kept."""

    @property
    def classes(self) -> list[str]:
        """The classes' names."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""

    @property
    def count(self) -> int:
        """Training images."""

    @property
    def tested(self) -> int:
        """Test images."""

    def batches(self, stack: RunStack, batch_size: int, share: tuple[int, int]) -> Batches:
        """Training batches of every run; ``share`` is which part of how many is asked for."""

    def test(self, device: torch.device, batch_size: int) -> Sweep:
        """The test images."""

    def sample(self, device: torch.device, batch_size: int, count: int) -> Sweep:
        """``count`` training images, evenly spread, or all if there are fewer."""


@dataclass(frozen=True)
class InMemory:
    """See :class:`Dataset`."""

    s: DataSettings
    train_images: Images
    test_images: Images
    classes: list[str]

    @property
    def shape(self) -> tuple[int, int, int]:
        h, w, c = self.train_images.images.shape[1:]
        return c, h, w

    @property
    def count(self) -> int:
        return len(self.train_images)

    @property
    def tested(self) -> int:
        return len(self.test_images)

    def batches(self, stack: RunStack, batch_size: int, share: tuple[int, int]) -> MemoryBatches:
        orders, augmentations = stack.generators("minibatch"), stack.generators("augmentation")
        s = self.s
        return MemoryBatches(
            self.train_images, s.pixels, s.pad, s.flip, orders, augmentations, batch_size, stack.device, share
        )

    def test(self, device: torch.device, batch_size: int) -> MemorySweep:
        return MemorySweep(self.test_images, self.s.pixels, device, batch_size)

    def sample(self, device: torch.device, batch_size: int, count: int) -> MemorySweep:
        return MemorySweep(self.train_images.at(spread(self.count, count)), self.s.pixels, device, batch_size)


@dataclass(frozen=True)
class OnDisk:
    """See :class:`Dataset`."""

    s: DataSettings
    train_images: Folders
    test_images: Folders
    size: int

    @property
    def classes(self) -> list[str]:
        return self.train_images.classes

    @property
    def shape(self) -> tuple[int, int, int]:
        return 3, self.size, self.size

    @property
    def count(self) -> int:
        return len(self.train_images)

    @property
    def tested(self) -> int:
        return len(self.test_images)

    def batches(self, stack: RunStack, batch_size: int, share: tuple[int, int]) -> FolderBatches:
        orders, augmentations = stack.generators("minibatch"), stack.generators("augmentation")
        s = self.s
        return FolderBatches(
            self.train_images, s.pixels, self.size, s.flip, orders, augmentations, batch_size, stack.device, share,
            s.workers,
        )  # fmt: skip

    def test(self, device: torch.device, batch_size: int) -> FolderSweep:
        return FolderSweep(self.test_images, self.s.pixels, self.size, device, batch_size, self.s.workers)

    def sample(self, device: torch.device, batch_size: int, count: int) -> FolderSweep:
        chosen = self.train_images.at(spread(self.count, count))
        return FolderSweep(chosen, self.s.pixels, self.size, device, batch_size, self.s.workers)


def dataset(s: DataSettings) -> Dataset:
    """The data set of the settings.

    Raises:
        ValueError: it cannot be had, or is not what it should be.
    """
    place = root_of(s.root) / s.name
    embedded_or_arrays = s.target is not None or s.name == "digits" or (place / "train.npz").exists()
    folders = None if embedded_or_arrays else find_folders(place)
    found: Dataset
    if folders is not None:
        if s.size is None:
            raise ValueError(f"data.size=null: the images of {s.name} lie on disk and need a size to be cropped to")
        if s.pad:
            raise ValueError(f"data.pad={s.pad}: images on disk are cropped at random from their whole; it must be 0")
        train, test = folders
        if s.validation:
            train, test = (train.at(part) for part in divided(len(train), s.validation, "images"))
        found = OnDisk(s, train, test, s.size)
    else:
        if s.target is None:
            images, tested, classes = _in_memory(s.name, s.root, s.download)
        else:
            images, tested, classes = _own(OwnSettings(_target_=s.target, kwargs=s.kwargs), root_of(s.root))
        if s.size is not None:
            raise ValueError(f"data.size={s.size}: images in memory have their own size; it must be null")
        if s.validation:
            images, tested = (images.at(part) for part in divided(len(images), s.validation, "images"))
        found = InMemory(s, images, tested, classes)
    for setting, values in (("mean", s.mean), ("std", s.std)):
        if len(values) not in (1, found.shape[0]):
            raise ValueError(
                f"data.{setting}={values}: images have {found.shape[0]} channels; give one value, or one each"
            )
    if min(s.std) <= 0:
        raise ValueError(f"data.std={s.std}: must be positive")
    return found


@lru_cache(maxsize=2)
def _in_memory(name: str, root: str | None, download: bool) -> tuple[Images, Images, list[str]]:
    """Read once a process, however many runs train on it."""
    train, test, names = load(name, root, download)
    known = KNOWN[name].classes if name in KNOWN else None
    count = check_data(f"data.name={name}", train, test, known)
    return Images.of(*train), Images.of(*test), names or [str(k) for k in range(count)]


@lru_cache(maxsize=2)
def _own(s: OwnSettings, root: Path) -> tuple[Images, Images, list[str]]:
    """The user's own images, made once a process."""
    splits, told = own_splits(s, root), f"data.{s.told}"
    parts: list[Split] = []
    for name, split in (("train", splits.train), ("test", splits.test)):
        if not isinstance(split, (tuple, list)) or len(split) != 2:
            raise ValueError(f"{told}: its {name} must be two arrays, images and labels")
        try:
            images, labels = (np.asarray(part) for part in split)
        except (ValueError, TypeError, RuntimeError) as error:  # lists of several lengths, tensors on a GPU
            raise ValueError(f"{told}: its {name} must be two arrays, images and labels ({error})") from error
        parts.append(checked(f"{told}: its {name}", images, labels))
    names = None if splits.classes is None else [str(name) for name in splits.classes]
    count = check_data(told, parts[0], parts[1], len(names) if names else None)
    return Images.of(*parts[0]), Images.of(*parts[1]), names or [str(k) for k in range(count)]


def check_data(told: str, train: Split, test: Split, classes: int | None) -> int:
    """How many classes there are.

    Args:
        told: what is to blame, for messages.
        train: images and labels.
        test: likewise.
        classes: how many there are; None where the training labels tell.

    Raises:
        ValueError: the splits do not fit together, or labels are out of range.
    """
    for split, (images, labels) in (("train", train), ("test", test)):
        if len(images) != len(labels) or not len(labels):
            raise ValueError(f"{told}: the {split} split has {len(images)} images and {len(labels)} labels")
    if train[0].shape[1:] != test[0].shape[1:]:
        raise ValueError(
            f"{told}: training images are {list(train[0].shape[1:])}, test images {list(test[0].shape[1:])}"
        )
    present = np.unique(train[1])
    allowed = int(present[-1]) + 1 if classes is None else classes
    for split, labels in (("train", train[1]), ("test", test[1])):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= allowed:
            wrong = low if low < 0 else high
            raise ValueError(f"{told}: a {split} label is {wrong}; they must lie in 0 to {allowed - 1}")
    if classes is None and len(present) < allowed:
        absent = next(k for k in range(allowed) if k not in set(present.tolist()))
        raise ValueError(f"{told}: training labels go to {allowed - 1}, but none is {absent}; number classes from 0")
    if allowed < 2:
        raise ValueError(f"{told}: has one class; there is nothing to tell apart")
    return allowed
