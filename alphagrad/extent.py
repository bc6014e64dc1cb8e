"""What a norm or a mean runs over: the elements of one run of a stack, on this process or on several."""

from __future__ import annotations

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

    def total(self, x: Tensor) -> Tensor:
        """The sum of what each process has measured of its shards; overwrites ``x``."""
        for group in self.groups:
            torch.distributed.all_reduce(x, group=group)
        return x


def refuse_flat(p: Tensor, name: str) -> None:
    """Raises ``ValueError`` for a parameter of FSDP1: a piece of a long vector that has lost its tensors' borders."""
    if getattr(p, "_is_flat_param", False) or getattr(p, "_fsdp_flattened", False):
        raise ValueError(
            f"params: {name} is flattened by FSDP1, so its norm would be a shard's; use FSDP2 "
            "(torch.distributed.fsdp.fully_shard; fsdp_version: 2 in accelerate)"
        )


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
