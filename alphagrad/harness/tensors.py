"""Named tensors of R runs, laid out as one matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Layout = tuple[tuple[str, tuple[int, ...]], ...]
"""Name and shape in one run of each tensor, in order."""


class StackedTensors(dict[str, Tensor]):
    """Name → tensor [R, *shape], a view of some columns of ``flat`` [R, D].

    What is done to all elements alike (a step of Adam, clipping, a target network that follows) is then one
    operation on ``flat``, where small tensors one by one would cost a call each.
    """

    def __init__(self, flat: Tensor, layout: Layout) -> None:
        super().__init__(split(flat, layout))
        self.flat, self.layout = flat, layout

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> StackedTensors:
        """A copy of tensors [R, ...], without their graph."""
        layout = tuple((name, tuple(t.shape[1:])) for name, t in tensors.items())
        return cls(torch.cat([t.detach().reshape(len(t), -1) for t in tensors.values()], dim=1), layout)

    def clone(self) -> StackedTensors:
        """A copy."""
        return StackedTensors(self.flat.clone(), self.layout)

    def below(self, prefix: str) -> StackedTensors:
        """A copy of the tensors whose names begin with ``prefix``, named by the rest."""
        return self.of({name.removeprefix(prefix): t for name, t in self.items() if name.startswith(prefix)})


def split(flat: Tensor, layout: Layout) -> dict[str, Tensor]:
    """``flat`` [..., D] as views [..., *shape] by name."""
    parts = flat.split([math.prod(shape) for _, shape in layout], dim=-1)
    return {name: part.view(*flat.shape[:-1], *shape) for (name, shape), part in zip(layout, parts, strict=True)}


def whole(value: Any) -> Any:
    """Tensors, also in mappings and lists, in full where they are sharded; every process must ask."""
    if isinstance(value, Tensor):
        return value.full_tensor() if hasattr(value, "full_tensor") else value
    if isinstance(value, Mapping):
        return {key: whole(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [whole(part) for part in value]
    return value
