"""The update on a CUDA device: one Triton launch measures all tensors of a batch, one moves them.

Tensors are reached through a table of addresses, which is sent only when they have moved; nothing waits for the device,
so a step can be captured in a CUDA graph whose gradients stay where they are. Half precision is widened in registers.

Tested against the plain step in Triton's interpreter; never yet run on hardware, so ``fused=True`` must ask for it.
"""

# What Triton compiles has no types.
# mypy: disallow-untyped-defs=false, check-untyped-defs=false, disallow-untyped-decorators=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from alphagrad.batch import Batch
from alphagrad.kernels.coverage import CODES
from alphagrad.kernels.table import Addressed, Table
from alphagrad.measure import factors
from alphagrad.step import numbers_of

BLOCK = 1024
"""Elements that a program holds at once: two float32 for each of 512 threads."""
TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


@triton.jit
def square_sums(row_of, first, last, g_at, out, TYPE: tl.constexpr, BLOCK: tl.constexpr):
    """Σg² of one piece, in float64."""
    k = tl.program_id(0)
    g = tl.load(g_at + tl.load(row_of + k)).to(tl.pointer_type(TYPE))
    stop = tl.load(last + k)
    total = tl.zeros((BLOCK,), tl.float64)
    for low in range(tl.load(first + k), stop, BLOCK):
        i = low + tl.arange(0, BLOCK)
        x = tl.load(g + i, mask=i < stop, other=0.0).to(tl.float32).to(tl.float64)
        total += x * x
    tl.store(out + k, tl.sum(total))


@triton.jit
def beyond(row_of, first, last, g_at, before_at, scale_at, tau, out, TYPE: tl.constexpr, BLOCK: tl.constexpr):
    """How many elements of one piece have |α·ĝᵢ| > τ."""
    k = tl.program_id(0)
    row = tl.load(row_of + k)
    g = tl.load(g_at + row).to(tl.pointer_type(TYPE))
    before, scale = tl.load(before_at + row), tl.load(scale_at + row)
    stop = tl.load(last + k)
    total = tl.zeros((BLOCK,), tl.float64)
    for low in range(tl.load(first + k), stop, BLOCK):
        i = low + tl.arange(0, BLOCK)
        x = tl.load(g + i, mask=i < stop, other=0.0).to(tl.float32) * before * scale
        total += (tl.abs(x) > tau).to(tl.float64)
    tl.store(out + k, tl.sum(total))


@triton.jit
def add_up(of_pieces, begin, end, of_rows):
    """Sums over the pieces of one row, always in their order."""
    row = tl.program_id(0)
    total = tl.zeros((1,), tl.float64)
    for k in range(tl.load(begin + row), tl.load(end + row)):
        total += tl.load(of_pieces + k)
    tl.store(of_rows + row + tl.arange(0, 1), total)


@triton.jit
def tanh(x):
    """As ``loops.tanh``: the same polynomials."""
    x = tl.where(x > 8.7, 8.7, x)
    x = tl.where(x < -8.7, -8.7, x)
    y = x * x
    p = (((1.3960557e-08 * y + 2.1042883e-05) * y + 0.0035218948) * y + 0.13403182) * y + 1.0
    q = (((8.023333e-07 * y + 0.00033286784) * y + 0.02597707) * y + 0.46736506) * y + 1.0
    t = x * (p / q)
    t = tl.where(t > 1.0, 1.0, t)
    return tl.where(t < -1.0, -1.0, t)


@triton.jit
def move(
    row_of, first, last, p_at, g_at, v_at, before_at, scale_at, unit_at, number_at, moves_at, rate_at, keep_at,
    momentum_at, share_at, sign,
    TRANSFORM: tl.constexpr, MOMENTUM: tl.constexpr, NESTEROV: tl.constexpr,
    TYPE: tl.constexpr, V_TYPE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The step of one piece; a row that does not move keeps every bit."""
    k = tl.program_id(0)
    row = tl.load(row_of + k)
    stop = tl.load(last + k)
    if tl.load(moves_at + row) != 0:
        p = tl.load(p_at + row).to(tl.pointer_type(TYPE))
        g = tl.load(g_at + row).to(tl.pointer_type(TYPE))
        before, scale, unit = tl.load(before_at + row), tl.load(scale_at + row), tl.load(unit_at + row)
        number, rate, keep = tl.load(number_at + row), tl.load(rate_at + row), tl.load(keep_at + row)
        for low in range(tl.load(first + k), stop, BLOCK):
            i = low + tl.arange(0, BLOCK)
            inside = i < stop
            x = tl.load(g + i, mask=inside, other=0.0).to(tl.float32) * before
            if TRANSFORM == 0:
                u = number * tanh(x * scale)
            elif TRANSFORM == 1:
                u = tl.sin(number * tanh(x * scale))
            elif TRANSFORM == 2:
                u = number * tanh(x * scale) + (1.0 - number) * (x * unit)
            elif TRANSFORM == 3:
                u = x * unit
            else:
                u = tl.where(x > 0.0, 1.0, tl.where(x < 0.0, -1.0, 0.0))
            u = sign * u
            if MOMENTUM:
                v = tl.load(v_at + row).to(tl.pointer_type(V_TYPE))
                momentum = tl.load(momentum_at + row)
                kept = momentum * tl.load(v + i, mask=inside, other=0.0).to(tl.float32) + tl.load(share_at + row) * u
                tl.store(v + i, kept.to(V_TYPE), mask=inside)
                u = u + momentum * kept if NESTEROV else kept
            theta = tl.load(p + i, mask=inside, other=0.0).to(tl.float32)
            tl.store(p + i, (keep * theta - rate * u).to(TYPE), mask=inside)


class GpuKernel(Addressed):
    """See :class:`alphagrad.batch.Kernel`."""

    dtypes = tuple(TYPES)

    def step(self, b: Batch, found_inf: Tensor | None) -> bool:
        return False

    def norms(self, b: Batch) -> Tensor:
        out, arguments = self._pieces(b)
        square_sums[(len(out),)](*arguments, addresses(b, "g", b.grads), out, TYPES[b.params[0].dtype], BLOCK)
        return self._by_tensor(b, out)

    def beyond(self, b: Batch, by: Tensor, alpha: Tensor, tau: float) -> Tensor:
        out, arguments = self._pieces(b)
        numbers = [x.contiguous() for x in factors(by, alpha, torch.float32)]
        g = addresses(b, "g", b.grads)
        beyond[(len(out),)](*arguments, g, *numbers, tau, out, TYPES[b.params[0].dtype], BLOCK)
        return self._by_tensor(b, out)

    def update(self, b: Batch, by: Tensor, alpha: Tensor | None, number: Tensor | None, allowed: Tensor | None) -> None:
        ones = torch.ones_like(by, dtype=torch.float32)
        n = numbers_of(b, by, alpha, number, allowed)
        moves = n.pop("moves", None)
        moves = (torch.ones_like(by, dtype=torch.bool) if moves is None else moves).to(torch.int8)
        names = ("before", "scale", "unit", "number", "rate", "keep", "momentum", "share")
        columns = {name: n.get(name, ones).contiguous() for name in names}
        state = b.buffers or b.params
        out, arguments = self._pieces(b)
        move[(len(out),)](
            *arguments, addresses(b, "p", b.params), addresses(b, "g", b.grads), addresses(b, "v", state),
            columns["before"], columns["scale"], columns["unit"], columns["number"], moves.contiguous(),
            columns["rate"], columns["keep"], columns["momentum"], columns["share"], -1.0 if b.maximize else 1.0,
            CODES[type(b.rule.transform)], bool(b.buffers), b.nesterov,
            TYPES[b.params[0].dtype], TYPES[state[0].dtype], BLOCK,
        )  # fmt: skip
        torch.autograd.graph.increment_version(b.params + b.buffers)

    @staticmethod
    def _pieces(b: Batch) -> tuple[Tensor, list[Tensor]]:
        """A number for each piece, and the table's columns on the device."""
        table: Table = b.table
        columns = [kept_on_device(b, f"pieces {i}", table.pieces[:, i].tolist()) for i in range(3)]
        return torch.empty(len(table.pieces), dtype=torch.float64, device=columns[0].device), columns

    @staticmethod
    def _by_tensor(b: Batch, of_pieces: Tensor) -> Tensor:
        table: Table = b.table
        shape = len(b.params), *b.params[0].shape[: b.extent.batch_dims]
        of_rows = torch.zeros(shape, dtype=torch.float64, device=of_pieces.device)
        edges = np.searchsorted(table.pieces[:, 0], np.arange(of_rows.numel() + 1))
        begin, end = kept_on_device(b, "begin", edges[:-1].tolist()), kept_on_device(b, "end", edges[1:].tolist())
        add_up[(of_rows.numel(),)](of_pieces, begin, end, of_rows)
        return of_rows


def addresses(b: Batch, name: str, tensors: Sequence[Tensor]) -> Tensor:
    """The address of each row of tensors [*batch, ...], on the device."""
    found = [t.data_ptr() for t in tensors]
    if b.extent.batch_dims:
        table: Table = b.table
        steps = [t.stride(0) * t.element_size() for t in tensors]
        rows = zip(table.tensor.tolist(), table.run.tolist(), strict=True)
        found = [found[i] + run * steps[i] for i, run in rows]
    return kept_on_device(b, name, found)


def kept_on_device(b: Batch, name: str, values: list[int]) -> Tensor:
    """Whole numbers on the device, sent again only when they are others: the copy is not waited for."""
    kept: dict[str, tuple[Any, Tensor]] = b.table.on_device
    if name not in kept or kept[name][0] != values:
        host = torch.tensor(values, dtype=torch.int64)
        device = b.params[0].device
        sent = host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host
        kept[name] = values, sent
    return kept[name][1]


KERNEL = GpuKernel()
