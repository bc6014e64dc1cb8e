"""What a norm or a mean runs over: the elements of one run of a stack, on this process or on several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Extent:
    """How the elements of a tensor [*batch, ...] are divided.

    Of a sharded tensor (``torch.distributed.tensor.DTensor``) the optimizer works on this process's shard;
    what is measured here is of the whole tensor, and so the same on every process that holds a part of it.
    Those processes must measure together.
    """

    batch_dims: int = 0
    """Leading dimensions that count independent runs: every measure is [*batch]."""
    groups: tuple[Any, ...] = ()
    """The process groups among which the elements are divided, one a sharded dimension of the device mesh."""

    def norms(self, tensors: Sequence[Tensor]) -> Tensor:
        """‖x‖₂ of each tensor and run, [tensors, *batch], in float64.

        Squares of float32 from 1e-38 to 1e38 neither underflow nor overflow there, and sums over millions of
        elements keep their digits. Non-finite exactly where the tensor is.
        """
        if self.batch_dims == 0:
            norms = torch.stack(list(torch._foreach_norm(list(tensors), 2, torch.float64)))
        else:
            flat = [x.unsqueeze(-1).flatten(self.batch_dims) for x in tensors]
            norms = torch.stack([torch.linalg.vector_norm(x, dim=-1, dtype=torch.float64) for x in flat])
        return self.total(norms.square()).sqrt() if self.groups else norms

    def mean(self, x: Tensor) -> Tensor:
        """The mean of ``x`` [*batch, ...] over each run's elements: [*batch]; 0 where there are none."""
        if self.groups:
            total, count = self.total(
                torch.stack([x.sum(dtype=torch.float64), x.new_full((), x.numel(), dtype=torch.float64)])
            )
            return (total / count.clamp(min=1)).to(x.dtype)
        if x.numel() == 0:
            return x.new_zeros(x.shape[: self.batch_dims])
        return x.flatten(self.batch_dims).mean(-1) if x.dim() > self.batch_dims else x

    def total(self, x: Tensor) -> Tensor:
        """The sum of what each process has measured of its shards; overwrites ``x``."""
        for group in self.groups:
            torch.distributed.all_reduce(x, group=group)
        return x


WHOLE = Extent()
"""All elements, of one run, on this process."""


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a ``DTensor``, told without importing that class, which takes a second."""
    return hasattr(tensor, "device_mesh") and hasattr(tensor, "placements")


def extent_of(tensor: Tensor, batch_dims: int = 0) -> Extent:
    """How a parameter is divided."""
    if not is_sharded(tensor):
        return Extent(batch_dims)
    mesh, placements = tensor.device_mesh, tensor.placements  # type: ignore[attr-defined]
    return Extent(batch_dims, tuple(mesh.get_group(dim) for dim, p in enumerate(placements) if not p.is_replicate()))


def shard_of(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    """This process's shard, which shares the tensor's memory; a tensor that is not sharded as it is.

    A gradient that is divided otherwise than its parameter ``like`` is first divided like it.
    """
    if not is_sharded(tensor):
        return tensor
    if like is not None and tensor.placements != like.placements:  # type: ignore[attr-defined]
        tensor = tensor.redistribute(placements=like.placements)  # type: ignore[attr-defined]
    return tensor.to_local()  # type: ignore[attr-defined]
