"""Cutting a batch into pieces, so that a step's temporaries stay small: on a CPU they fit the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from alphagrad.batch import Batch
from alphagrad.values import per_run

CPU_ELEMENTS = 1 << 17
"""Elements of a piece on a CPU: 512 kB of float32, half of a second-level cache."""
OTHER_ELEMENTS = 1 << 20
"""Elements of a piece on an accelerator, at least; else a twelfth of the largest tensor: up to five float32
temporaries of a piece live at once, where a parameter may have two bytes."""


@dataclass
class Piece:
    """Some tensors of a batch, or parts of them, as parallel lists."""

    index: list[int] = field(default_factory=list)
    """Which of the batch's tensors each belongs to."""
    params: list[Tensor] = field(default_factory=list)
    grads: list[Tensor] = field(default_factory=list)
    buffers: list[Tensor] = field(default_factory=list)
    compensations: list[Tensor] = field(default_factory=list)

    def add(self, index: int, tensors: Sequence[Tensor], b: Batch) -> None:
        """Takes the views of one tensor's parameter, gradient, and what state of its size there is."""
        self.index.append(index)
        lists = [self.params, self.grads]
        lists += [self.buffers] if b.buffers else []
        lists += [self.compensations] if b.compensations else []
        for kept, tensor in zip(lists, tensors, strict=True):
            kept.append(tensor)

    def rows(self, numbers: Sequence[Tensor]) -> list[Tensor]:
        """Each part's own number, or numbers, shaped to multiply it."""
        return [per_run(numbers[i], p) for i, p in zip(self.index, self.params, strict=True)]


def pieces(b: Batch) -> Iterator[Piece]:
    """The batch's tensors, large ones cut, small ones together (one at a time unless ``b.foreach``)."""
    if torch.compiler.is_compiling():
        whole = Piece(list(range(len(b.params))), b.params, b.grads, b.buffers, b.compensations)
        yield whole
        return
    if b.params[0].device.type == "cpu":
        limit = CPU_ELEMENTS
    else:
        limit = max(OTHER_ELEMENTS, max(p.numel() for p in b.params) // 12)
    piece, size = Piece(), 0
    for i, p in enumerate(b.params):
        tensors = [kept[i] for kept in (b.params, b.grads, b.buffers, b.compensations) if kept]
        for part in cut(tensors, b.extent.batch_dims, limit) if p.numel() > limit else [tensors]:
            if piece.index and (not b.foreach or size + part[0].numel() > limit):
                yield piece
                piece, size = Piece(), 0
            piece.add(i, part, b)
            size += part[0].numel()
    if piece.index:
        yield piece


def cut(tensors: Sequence[Tensor], batch_dims: int, limit: int) -> Iterator[list[Tensor]]:
    """Views of about ``limit`` elements of tensors of one shape [*batch, ...], cut alike.

    Those of one layout are cut anywhere, others along their longest dimension.
    """
    shape = tensors[0].shape
    flat = flattened(tensors, batch_dims)
    if flat is None:
        longest = max(range(batch_dims, len(shape)), key=lambda d: shape[d])
        size = max(limit * shape[longest] // max(shape.numel(), 1), 1)
        yield from (list(parts) for parts in zip(*(t.split(size, dim=longest) for t in tensors), strict=True))
        return
    runs = max(shape[:batch_dims].numel(), 1)
    yield from (list(parts) for parts in zip(*(t.split(max(limit // runs, 1), dim=-1) for t in flat), strict=True))


def flattened(tensors: Sequence[Tensor], batch_dims: int) -> list[Tensor] | None:
    """Views [*batch, d] in which elements correspond; None if there are none."""
    if batch_dims:
        try:
            return [t.view(*t.shape[:batch_dims], -1) for t in tensors]
        except RuntimeError:
            return None
    p = tensors[0]
    if any(t.stride() != p.stride() for t in tensors) or not is_dense(p.shape, p.stride()):
        return None
    return [t.as_strided((t.numel(),), (1,)) for t in tensors]


def is_dense(shape: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether elements so laid out fill their memory without gap or overlap, in whatever order of dimensions."""
    expected = 1
    for step, size in sorted((s, n) for s, n in zip(stride, shape, strict=True) if n != 1):
        if step != expected:
            return False
        expected *= size
    return True
