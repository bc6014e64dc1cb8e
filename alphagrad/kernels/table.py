"""Tensors as addresses: which batches can be worked on so, and how their elements are cut into pieces.

A *row* is one run of one tensor: what one norm belongs to. A *piece* is a range of a row's elements: what threads,
or the programs of a launch, share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alphagrad.batch import Batch
from alphagrad.pieces import is_dense

PIECE = 1 << 16
"""Elements of a piece: sums are made a piece at a time, so they do not depend on the number of threads."""
GUARDS = getattr(torch._C._dynamo.guards, "TensorGuards", None)
"""Compares types, devices, sizes, strides and views of a list of tensors in one call, in a tenth of Python's time;
``torch.compile`` was built on it. Without it every step takes the long way."""
PLAIN = {Tensor, torch.nn.Parameter}
"""Types whose elements stand in memory as they say: not so those of most subclasses."""


@dataclass
class Table:
    """How the rows of a batch are cut into pieces; it changes with shapes and layouts alone."""

    shapes: list[tuple[int, ...]]
    strides: list[tuple[int, ...]]
    """Of the parameters it was made for, as their shapes."""
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
    guard: Any = None
    """Torch's own check that tensors are like those that passed :meth:`Addressed.refusal`."""
    guarded: int = 0
    """How many tensors it takes."""
    told: Any = None
    """What the kernel on a CPU tells its loops."""
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
    return Table(list(shapes), strides, tensor, run, pieces, np.cumsum(pieces[:, 2] - pieces[:, 1]), np.ones(len(rows)))


class Addressed:
    """The part of a :class:`alphagrad.batch.Kernel` that finds out whether elements can be reached by address.

    What it lets through is written without looking again: everything that an address could miss is checked here.
    """

    dtypes: tuple[torch.dtype, ...]

    def refusal(self, b: Batch) -> str | None:
        tensors = b.params + b.grads + b.buffers + b.skipped + b.begun + b.steps
        if b.table is not None and b.table.guarded == len(tensors) and b.table.guard.check(*tensors):
            return None
        why = unlike_table(b) or unlike_parameters(b) or foreign_buffers(b, self.dtypes) or foreign_counts(b)
        if why is None and GUARDS is not None:
            sizes, strides = [list(t.shape) for t in tensors], [list(t.stride()) for t in tensors]
            b.table.guard = GUARDS(*tensors, dynamic_dims_sizes=sizes, dynamic_dims_strides=strides)
            b.table.guarded = len(tensors)
        return why


def unlike_table(b: Batch) -> str | None:
    """Why the parameters cannot be cut into rows; makes the batch's table where they have others than before."""
    dims, shapes, strides = b.extent.batch_dims, [p.shape for p in b.params], [p.stride() for p in b.params]
    if dims > 1:
        return f"batch_dims={dims}"
    if b.table is None or b.table.shapes != shapes or b.table.strides != strides:
        # of a stack, a run's own elements must be without gaps; the runs may lie apart
        if not all(is_dense(s[dims:], t[dims:]) for s, t in zip(shapes, strides, strict=True)):
            return "the elements of a parameter lie apart"
        if dims and overlapping(b.params):
            return "runs share the elements of a parameter"
        b.table = table_of(shapes, dims, strides)
    return None


def unlike_parameters(b: Batch) -> str | None:
    """Why the gradients' elements are not where the parameters' are."""
    table: Table = b.table
    kind = {(b.params[0].dtype, b.params[0].device)}
    if not sound(b.params, table.shapes) or not sound(b.grads, table.shapes):
        return "a parameter or its gradient is no plain tensor, or the two are not of one shape"
    if kind_of(b.params) != kind or kind_of(b.grads) != kind:
        return "a gradient is of another type than its parameter"
    return None if alike(b.grads, b) else "a gradient is laid out otherwise than its parameter"


def foreign_buffers(b: Batch, dtypes: Sequence[torch.dtype]) -> str | None:
    """Why the momentum buffers' elements are not where the parameters' are."""
    if not b.buffers:
        return None
    kinds = kind_of(b.buffers)
    known = {(dtype, b.params[0].device) for dtype in dtypes}
    if len(kinds) > 1 or not kinds <= known or not sound(b.buffers, b.table.shapes):
        return "a momentum buffer is of a type that it does not know, or not of its parameter's shape or device"
    if b.extent.batch_dims and overlapping(b.buffers):
        return "runs share the elements of a momentum buffer"
    return None if alike(b.buffers, b) else "a momentum buffer is laid out otherwise than its parameter"


def foreign_counts(b: Batch) -> str | None:
    """Why the counts in the state are not what the optimizer makes of them."""
    dims, device = b.extent.batch_dims, b.params[0].device
    runs = b.params[0].shape[:dims]
    for kept, dtype in ((b.skipped, torch.int32), (b.steps, torch.float32), (b.begun, torch.bool)):
        if kept and (kind_of(kept) != {(dtype, device)} or {t.shape for t in kept} != {runs}):
            return "a count in the state is not of the type or shape that the optimizer gave it"
        if dims and not all(t.is_contiguous() for t in kept):
            return "a count in the state has gaps"
    return None


def alike(tensors: Sequence[Tensor], b: Batch) -> bool:
    """Whether these are laid out as the parameters are, within a run."""
    strides, dims = [t.stride() for t in tensors], b.extent.batch_dims
    if strides == b.table.strides:
        return True
    return bool(dims) and [s[dims:] for s in strides] == [s[dims:] for s in b.table.strides]


def overlapping(tensors: Sequence[Tensor]) -> bool:
    """Whether tensors [runs, ...] that are to be written have elements of one run among those of another."""
    return any(len(t) > 1 and t.stride(0) < math.prod(t.shape[1:]) for t in tensors)


def sound(tensors: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> bool:
    """Whether these are plain tensors of these shapes whose memory holds the very numbers that they stand for."""
    return (
        {*map(type, tensors)} <= PLAIN
        and [t.shape for t in tensors] == shapes
        and not any(t.is_neg() or t._is_zerotensor() for t in tensors)
    )


def kind_of(tensors: Sequence[Tensor]) -> set[tuple[torch.dtype, torch.device]]:
    """Their types and devices."""
    return {(t.dtype, t.device) for t in tensors}
