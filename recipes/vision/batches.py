"""Batches of R runs from images that lie whole in memory, augmented and normalised on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..supervised.orders import Orders


@dataclass(frozen=True)
class Pixels:
    """Mean and standard deviation of each channel, or of all, of pixels scaled to [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalized(self, images: Tensor) -> Tensor:
        """uint8 [..., H, W, C] → float32 [..., C, H, W], (pixel/255 − mean)/std; strided as channels-last."""
        shape = images.shape[-3:]
        mean, std = _constants(self, shape, images.device)
        # along whole images, as constants of three numbers take a CPU eight times as long
        flat = images.flatten(-3).to(torch.float32).sub_(mean).div_(std)
        return flat.unflatten(-1, shape).movedim(-1, -3)


@lru_cache(maxsize=8)
def _constants(pixels: Pixels, shape: torch.Size, device: torch.device) -> tuple[Tensor, Tensor]:
    """255 times mean and standard deviation of each of an image's numbers [H·W·C]."""
    mean, std = (255 * torch.tensor(values, device=device) for values in (pixels.mean, pixels.std))
    return mean.expand(shape).flatten(), std.expand(shape).flatten()


@dataclass(frozen=True)
class Images:
    """One split: images uint8 [N, H, W, C], labels int64 [N]."""

    images: Tensor
    labels: Tensor

    @classmethod
    def of(cls, images: np.ndarray, labels: np.ndarray) -> Images:
        """Copies of arrays."""
        return cls(torch.from_numpy(np.array(images)), torch.from_numpy(np.array(labels)))

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, indices: np.ndarray) -> Images:
        """Some of them."""
        return Images(self.images[indices], self.labels[indices])


class MemoryBatches:
    """Training batches of images in memory.

    torchvision's random transforms draw one set of numbers for a whole batch; here every image has its own
    crop and flip, both in one gather.

    Args:
        train: the images.
        pixels: how they are normalised.
        pad: zeros around an image that its crop may reach into; 0 for no crops.
        flip: whether half of the images are mirrored.
        orders: each run's generator for the order of images.
        augmentations: each run's generator for crops and flips.
        batch_size: images of a run in a batch.
        device: where the images are kept.
        share: (rank, processes): which part of every batch is asked for.
    """

    def __init__(
        self,
        train: Images,
        pixels: Pixels,
        pad: int,
        flip: bool,
        orders: Sequence[np.random.Generator],
        augmentations: Sequence[np.random.Generator],
        batch_size: int,
        device: torch.device,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.pixels, self.pad, self.flip = pixels, pad, flip
        self.orders = Orders(orders, len(train), batch_size, share)
        self.labels = train.labels.to(device)
        images = train.images.to(device)
        self.size = (images.shape[1], images.shape[2])
        if pad:  # once for all, so that a crop is a mere gather
            images = torch.nn.functional.pad(images, (0, 0, pad, pad, pad, pad))
        self.images = images
        self._augmentations = [int(rng.integers(2**63)) for rng in augmentations]

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Images float32 [R, B, C, H, W] and labels [R, B] of a step, this process's part."""
        chosen = torch.from_numpy(self.orders.at(step)).to(self.labels.device)
        return self.pixels.normalized(self._gathered(chosen, step)), self.labels[chosen]

    def _gathered(self, chosen: Tensor, step: int) -> Tensor:
        if not self.pad and not self.flip:
            # on a CPU a tenth of the time that indexing takes
            return self.images.index_select(0, chosen.flatten()).unflatten(0, chosen.shape)
        draws = np.stack([self._draw(key, step)[:, self.orders.part] for key in self._augmentations], axis=1)
        top, left, mirrored = torch.from_numpy(draws).to(self.labels.device).unsqueeze(-1).unbind(0)
        height, width = self.size
        rows = top + torch.arange(height, device=top.device)
        along = torch.arange(width, device=top.device)
        columns = left + torch.where(mirrored.bool(), width - 1 - along, along)
        return self.images[chosen[..., None, None], rows[..., None], columns[..., None, :]]

    def _draw(self, key: int, step: int) -> np.ndarray:
        """Offsets from above and from the left, and whether to mirror: [3, batch]."""
        rng = np.random.default_rng([key, step])
        offsets = rng.integers(2 * self.pad + 1, size=(2, self.orders.batch_size))
        mirrored = rng.integers(2, size=(1, self.orders.batch_size)) * self.flip
        return np.concatenate([offsets, mirrored])


class MemorySweep:
    """Images in order, without augmentation, for evaluation."""

    def __init__(self, split: Images, pixels: Pixels, device: torch.device, batch_size: int) -> None:
        self.pixels, self.batch_size = pixels, batch_size
        self.images, self.labels = split.images.to(device), split.labels.to(device)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Images float32 [B, C, H, W] and labels [B]."""
        for images, labels in zip(self.images.split(self.batch_size), self.labels.split(self.batch_size), strict=True):
            yield self.pixels.normalized(images), labels

    def picture(self, index: int) -> Tensor:
        """An image as it came, uint8 [H, W, C], on the host."""
        return self.images[index].cpu()
