"""Images that lie as files in a folder for each class, read by worker processes: ImageNet's layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ..notes import note
from ..supervised.orders import Orders
from .batches import Pixels
from .decode import opened, suffixes

LARGER = 256 / 224
"""Test images are scaled so that their shorter side is so much longer than the square cut from their middle."""


@dataclass(frozen=True)
class Folders:
    """One split: files and their classes' numbers [N], and the classes' names."""

    files: list[str]
    labels: np.ndarray
    classes: list[str]

    def __len__(self) -> int:
        return len(self.files)

    def at(self, indices: np.ndarray) -> Folders:
        """Some of them."""
        return Folders([self.files[i] for i in indices], self.labels[indices], self.classes)


def find_folders(folder: Path) -> tuple[Folders, Folders] | None:
    """Training and test images below ``folder``/train and /val or /test, a folder a class; None without the first.

    Raises:
        ValueError: there are no test images, or other classes than in training, or a class without images.
    """
    if not (folder / "train").is_dir():
        return None
    test = next((folder / name for name in ("val", "test") if (folder / name).is_dir()), None)
    if test is None:
        raise ValueError(
            f"{folder}: has train/ and neither val/ nor test/ beside it; both hold a folder for each class"
        )
    parts = _listed(folder / "train"), _listed(test)
    if parts[0].classes != parts[1].classes:
        odd = sorted(set(parts[0].classes) ^ set(parts[1].classes))
        raise ValueError(f"{folder}: train/ and {test.name}/ hold different classes, such as {odd[0]}")
    if len(parts[0].classes) < 2:
        raise ValueError(f"{folder}: has one class; there is nothing to tell apart")
    return parts


def _listed(folder: Path) -> Folders:
    from torchvision.datasets.folder import find_classes, make_dataset

    skipped: Counter[str] = Counter(_kind(f) for f in folder.iterdir() if not f.is_dir())
    read = suffixes()

    def is_image(file: str) -> bool:
        path = Path(file)
        taken = path.suffix.lower() in read and not path.name.startswith(".")
        if not taken:
            skipped[_kind(path)] += 1
        return taken

    try:
        classes = [name for name in find_classes(str(folder))[0] if not name.startswith(".")]
        numbers = {name: number for number, name in enumerate(classes)}
        found = make_dataset(str(folder), numbers, is_valid_file=is_image)
    except (FileNotFoundError, ValueError) as error:  # no classes, or one of them is empty
        raise ValueError(f"{folder}: {' '.join(str(error).split())[:200]}") from error
    files, labels = zip(*found, strict=True)
    if skipped:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(skipped.items()))
        note(f"{folder}: {skipped.total()} files are no images and are skipped ({kinds}); {len(files)} are read")
    return Folders(list(files), np.array(labels, dtype=np.int64), classes)


def _kind(file: Path) -> str:
    return "hidden" if file.name.startswith(".") else file.suffix.lower() or "without an ending"


class _Files(TorchDataset[tuple[Tensor, int]]):
    """A worker's view: (index, seed) → image uint8 [H, W, 3] and label; the seed decides its augmentation."""

    def __init__(self, folders: Folders, transform: Callable[[Any], Tensor]) -> None:
        self.folders, self.transform = folders, transform

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        index, seed = key
        image = opened(self.folders.files[index])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.transform(image).permute(1, 2, 0), int(self.folders.labels[index])


def training_transform(size: int, flip: bool) -> Callable[[Any], Tensor]:
    """A random part of the image scaled to a square (Szegedy et al. 2015), half of them mirrored."""
    from torchvision.transforms import v2

    mirrored = [v2.RandomHorizontalFlip()] if flip else []
    return v2.Compose([v2.RandomResizedCrop(size, antialias=True), *mirrored])


def test_transform(size: int) -> Callable[[Any], Tensor]:
    """The square in the middle of the scaled image."""
    from torchvision.transforms import v2

    return v2.Compose([v2.Resize(round(size * LARGER), antialias=True), v2.CenterCrop(size)])


def loader(
    folders: Folders,
    transform: Callable[[Any], Tensor],
    keys: Iterator[list[tuple[int, int]]] | Sequence[list[tuple[int, int]]],
    workers: int,
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches uint8 [B, H, W, 3] and labels [B] on the device, for lists of (index, seed).

    Raises:
        ValueError: a file is damaged.
    """
    pinned = device.type == "cuda"
    loaded = DataLoader(_Files(folders, transform), batch_sampler=keys, num_workers=workers, pin_memory=pinned)
    batches = iter(loaded)
    while True:
        try:
            images, labels = next(batches)
        except StopIteration:
            return
        except ValueError as error:  # a worker's comes with the whole of its traceback
            raise ValueError(str(error).strip().splitlines()[-1].removeprefix("ValueError: ")) from error
        yield images.to(device, non_blocking=pinned), labels.to(device, non_blocking=pinned)


class FolderBatches:
    """Training batches of images on disk, read ahead from the step that is asked for first.

    Args:
        train: the files.
        pixels: how they are normalised.
        size: side of the squares.
        flip: whether half of them are mirrored.
        orders: each run's generator for the order of images.
        augmentations: each run's generator for what is cut out of them.
        batch_size: images of a run in a batch.
        device: where batches go.
        share: (rank, processes): which part of every batch is asked for.
        workers: processes that read; 0 to read in this one.
    """

    def __init__(
        self,
        train: Folders,
        pixels: Pixels,
        size: int,
        flip: bool,
        orders: Sequence[np.random.Generator],
        augmentations: Sequence[np.random.Generator],
        batch_size: int,
        device: torch.device,
        share: tuple[int, int],
        workers: int,
    ) -> None:
        self.train, self.pixels, self.device, self.workers = train, pixels, device, workers
        self.transform = training_transform(size, flip)
        self.orders = Orders(orders, len(train), batch_size, share)
        self._augmentations = [int(rng.integers(2**63)) for rng in augmentations]
        self._next = -1
        self._loaded: Iterator[tuple[Tensor, Tensor]] = iter(())

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Images float32 [R, B, 3, H, W] and labels [R, B] of a step, this process's part."""
        if step != self._next:
            keys = keys_from(step, self.orders, self._augmentations)
            self._loaded = loader(self.train, self.transform, keys, self.workers, self.device)
        self._next = step + 1
        images, labels = next(self._loaded)
        runs = len(self._augmentations)
        return self.pixels.normalized(images.unflatten(0, (runs, -1))), labels.unflatten(0, (runs, -1))


def keys_from(step: int, orders: Orders, augmentations: Sequence[int]) -> Iterator[list[tuple[int, int]]]:
    """Files and seeds of all runs' images, from a step on without end.

    A function, not a method: a generator that holds the batches, which hold it, is freed by the garbage collector
    alone, and then each worker ends five seconds late.
    """
    while True:
        seeds = [np.random.default_rng([key, step]).integers(2**31, size=orders.batch_size) for key in augmentations]
        own = np.stack(seeds)[:, orders.part]
        yield list(zip(orders.at(step).ravel().tolist(), own.ravel().tolist(), strict=True))
        step += 1


class FolderSweep:
    """Images on disk in order, for evaluation."""

    def __init__(
        self, split: Folders, pixels: Pixels, size: int, device: torch.device, batch_size: int, workers: int
    ) -> None:
        self.split, self.pixels, self.device, self.workers = split, pixels, device, workers
        self.transform = test_transform(size)
        keys = [(index, 0) for index in range(len(split))]
        self.batches = [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Images float32 [B, 3, H, W] and labels [B]."""
        for images, labels in loader(self.split, self.transform, self.batches, self.workers, self.device):
            yield self.pixels.normalized(images), labels

    def picture(self, index: int) -> Tensor:
        """An image as it is evaluated, uint8 [H, W, 3]."""
        return self.transform(opened(self.split.files[index])).permute(1, 2, 0)
