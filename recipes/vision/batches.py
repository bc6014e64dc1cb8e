"""Batches of R runs from images that lie whole in memory, augmented and normalised on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from .data import DataSettings, Images


def normalized(images: Tensor, s: DataSettings) -> Tensor:
    """uint8 [..., H, W, C] → float32 [..., C, H, W], (pixel/255 − mean)/std; strided as channels-last."""
    mean = images.new_tensor(s.mean, dtype=torch.float32)
    std = images.new_tensor(s.std, dtype=torch.float32)
    return ((images.float() - 255 * mean) / (255 * std)).movedim(-1, -3)


class Batches:
    """Training batches: every image once an epoch, in an order that the run and the epoch alone decide.

    What a batch holds depends on its run and step alone, not on what was drawn before it: a run can go on at
    any step, and processes that share a batch draw the same.

    torchvision's random transforms draw one set of numbers for a whole batch; here every image has its own
    crop and flip, both in one gather.

    Args:
        train: the images.
        s: augmentation and normalisation.
        orders: each run's generator for the order of images.
        augmentations: each run's generator for crops and flips.
        batch_size: images of a run in a batch; an epoch's last, smaller batch is left out.
        device: where the images are kept.
        share: (rank, processes): which part of every batch is asked for.
    """

    def __init__(
        self,
        train: Images,
        s: DataSettings,
        orders: Sequence[np.random.Generator],
        augmentations: Sequence[np.random.Generator],
        batch_size: int,
        device: torch.device,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.s, self.batch_size, self.share = s, batch_size, share
        self.per_epoch = len(train) // batch_size
        self.labels = train.labels.to(device)
        images = train.images.to(device)
        self.size = (images.shape[1], images.shape[2])
        if s.pad:  # once for all, so that a crop is a mere gather
            images = torch.nn.functional.pad(images, (0, 0, s.pad, s.pad, s.pad, s.pad))
        self.images = images
        self._orders = [int(rng.integers(2**63)) for rng in orders]
        self._augmentations = [int(rng.integers(2**63)) for rng in augmentations]
        self._epoch, self._order = -1, torch.empty(0)

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Images float32 [R, B, C, H, W] and labels [R, B] of a step, this process's part."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            rows = [np.random.default_rng([key, epoch]).permutation(len(self.labels)) for key in self._orders]
            self._epoch, self._order = epoch, torch.from_numpy(np.stack(rows)).to(self.labels.device)
        rank, processes = self.share
        each = self.batch_size // processes
        part = slice(rank * each, (rank + 1) * each)
        chosen = self._order[:, place * self.batch_size :][:, : self.batch_size][:, part]
        return normalized(self._gathered(chosen, step, part), self.s), self.labels[chosen]

    def _gathered(self, chosen: Tensor, step: int, part: slice) -> Tensor:
        if not self.s.pad and not self.s.flip:
            return self.images[chosen]
        draws = np.stack([self._draw(key, step)[:, part] for key in self._augmentations], axis=1)
        top, left, mirrored = torch.from_numpy(draws).to(self.labels.device).unsqueeze(-1).unbind(0)
        height, width = self.size
        rows = top + torch.arange(height, device=top.device)
        along = torch.arange(width, device=top.device)
        columns = left + torch.where(mirrored.bool(), width - 1 - along, along)
        return self.images[chosen[..., None, None], rows[..., None], columns[..., None, :]]

    def _draw(self, key: int, step: int) -> np.ndarray:
        """Offsets from above and from the left, and whether to mirror: [3, batch]."""
        rng = np.random.default_rng([key, step])
        offsets = rng.integers(2 * self.s.pad + 1, size=(2, self.batch_size))
        mirrored = rng.integers(2, size=(1, self.batch_size)) * self.s.flip
        return np.concatenate([offsets, mirrored])


class Sweep:
    """A split in order, without augmentation, for evaluation."""

    def __init__(self, split: Images, s: DataSettings, device: torch.device, batch_size: int) -> None:
        self.s, self.batch_size = s, batch_size
        self.images, self.labels = split.images.to(device), split.labels.to(device)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Images float32 [B, C, H, W] and labels [B]."""
        for images, labels in zip(self.images.split(self.batch_size), self.labels.split(self.batch_size), strict=True):
            yield normalized(images, self.s), labels

    def picture(self, index: int) -> Tensor:
        """An image as it came, uint8 [H, W, C], on the host."""
        return self.images[index].cpu()
