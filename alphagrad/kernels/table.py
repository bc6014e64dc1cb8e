"""Tensors as addresses: which batches can be worked on so, and how their elements are cut into pieces.

A *row* is one run of one tensor: what one norm belongs to. A *piece* is a range of a row's elements: what threads,
or the programs of a launch, share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alphagrad.batch import Batch
from alphagrad.pieces import is_dense

PIECE = 1 << 16
"""Elements of a piece: sums are made a piece at a time, so they do not depend on the number of threads."""
PLAIN = {Tensor, torch.nn.Parameter}
"""Types whose elements stand in memory as they say: not so those of most subclasses."""


@dataclass
class Table:
    """How the rows of a batch are cut into pieces; it changes with shapes and layouts alone."""

    numels: list[int]
    strides: list[tuple[int, ...]]
    """Of the parameters it was made for, as their numbers of elements."""
    tensor: NDArray[np.int64]
    """The tensor of each row."""
    run: NDArray[np.int64]
    """The run of each row."""
    pieces: NDArray[np.int64]
    """[pieces, 3]: row, first element, element after the last."""
    ends: NDArray[np.int64]
    """How many elements there are up to each piece's end."""
    ones: NDArray[np.float64]
    """For each row a number that changes nothing."""
    on_device: dict[str, tuple[list[int], Tensor]] = field(default_factory=dict)
    """What a kernel has sent to the device, by name, with the values it was made of."""

    @property
    def elements(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0


def table_of(shapes: Sequence[tuple[int, ...]], batch_dims: int, strides: list[tuple[int, ...]]) -> Table:
    """The table of tensors [*batch, ...]."""
    runs = math.prod(shapes[0][:batch_dims])
    sizes = [math.prod(shape[batch_dims:]) for shape in shapes]
    rows = [(i, run) for i in range(len(sizes)) for run in range(runs)]
    cut = [
        (row, start, min(start + PIECE, sizes[i]))
        for row, (i, _) in enumerate(rows)
        for start in range(0, sizes[i], PIECE)
    ]
    pieces = np.array(cut, np.int64).reshape(-1, 3)
    tensor, run = np.array(rows, np.int64).reshape(-1, 2).T.copy()
    numels = [math.prod(shape) for shape in shapes]
    return Table(numels, strides, tensor, run, pieces, np.cumsum(pieces[:, 2] - pieces[:, 1]), np.ones(len(rows)))


class Addressed:
    """The part of a :class:`alphagrad.batch.Kernel` that finds out whether elements can be reached by address."""

    dtypes: tuple[torch.dtype, ...]

    def takes(self, b: Batch) -> bool:
        dims, strides = b.extent.batch_dims, [p.stride() for p in b.params]
        if dims > 1 or not {*map(type, b.params), *map(type, b.grads)} <= PLAIN:
            return False
        # of one number of elements and one layout, two tensors have corresponding elements at corresponding places
        if b.table is None or b.table.strides != strides:
            shapes = [tuple(p.shape) for p in b.params]
            # of a stack, a run's own elements must be without gaps; the runs may lie apart
            if not all(is_dense(s[dims:], t[dims:]) for s, t in zip(shapes, strides, strict=True)):
                return False
            b.table = table_of(shapes, dims, strides)
        if [g.numel() for g in b.grads] != b.table.numels:
            return False  # the plain step says what is wrong
        if [g.stride() for g in b.grads] != strides:
            pairs = zip(b.grads, b.params, strict=True)
            b.grads = [g if g.stride()[dims:] == p.stride()[dims:] else laid_out(g, p) for g, p in pairs]
        for p, v in zip(b.params, b.buffers, strict=False):
            if v.stride()[dims:] != p.stride()[dims:] or v.dtype not in self.dtypes or type(v) not in PLAIN:
                return False
        dtype, device = b.params[0].dtype, b.params[0].device
        kept = ((b.grads, dtype), (b.skipped, torch.int32), (b.steps, torch.float32), (b.begun, torch.bool))
        return all({(t.dtype, t.device) for t in tensors} == {(kind, device)} for tensors, kind in kept if tensors)


def laid_out(g: Tensor, p: Tensor) -> Tensor:
    """A copy of a gradient with its elements where its parameter has them."""
    return torch.empty_strided(p.shape, p.stride(), dtype=g.dtype, device=g.device).copy_(g)
