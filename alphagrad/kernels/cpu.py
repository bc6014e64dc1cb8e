"""The update on a CPU: tables of addresses for the loops of ``loops.py``, and threads to share them.

Decided by measurement (docs/performance.md): numba compiles one set of loops for tensors of every size in two seconds,
once, keeps them on disk, needs no compiler on the machine and installs wherever torch does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alphagrad.batch import Batch
from alphagrad.kernels import loops
from alphagrad.kernels.coverage import CODES
from alphagrad.kernels.table import Addressed, Table

PARALLEL = 1 << 21
"""From this many elements on threads pay for being woken."""


class CpuKernel(Addressed):
    """See :class:`alphagrad.batch.Kernel`."""

    dtypes = (torch.float32, torch.bfloat16)

    def step(self, b: Batch, found_inf: Tensor | None) -> bool:
        table: Table = b.table
        if table.elements >= PARALLEL and torch.get_num_threads() > 1:
            return False  # each of its parts is shared among threads
        p, g, v, skipped, begun, steps = all_rows(b, b.params, b.grads, b.buffers, b.skipped, b.begun, b.steps)
        loops.whole_step(
            table.pieces, p, g, v, is_half(b.params), is_half(b.buffers), CODES[type(b.rule.transform)],
            table.ones if b.initial_alphas is None else rows_of(b.initial_alphas),
            table.ones if b.fixed_number is None else rows_of(b.fixed_number), rates_of(b), skipped, begun, steps,
            float(b.eps), b.skip, found_inf is None or not bool(found_inf), -1.0 if b.maximize else 1.0,
            float(b.weight_decay), float(b.momentum), 1.0 - float(b.dampening), b.nesterov,
        )  # fmt: skip
        torch.autograd.graph.increment_version(b.params + b.buffers)
        return True

    def norms(self, b: Batch) -> Tensor:
        table: Table = b.table
        g, sums = rows(b, b.grads), np.empty(len(table.pieces))
        share(table, lambda first, last: loops.square_sums(table.pieces, first, last, g, is_half(b.params), sums))
        return by_tensor(b, sums)

    def beyond(self, b: Batch, by: Tensor, alpha: Tensor, tau: float) -> Tensor:
        table: Table = b.table
        g, counts = rows(b, b.grads), np.empty(len(table.pieces))
        arguments = g, is_half(b.params), rows_of(by), rows_of(alpha), tau, counts
        share(table, lambda first, last: loops.beyond(table.pieces, first, last, *arguments))
        return by_tensor(b, counts)

    def update(self, b: Batch, by: Tensor, alpha: Tensor | None, number: Tensor | None, allowed: Tensor | None) -> None:
        table: Table = b.table
        divisors = rows_of(by)
        moves, begun = np.empty((2, len(divisors)), np.uint8)
        begun_at, steps = rows(b, b.begun), rows(b, b.steps)
        loops.judge(divisors, b.skip, allowed is None or bool(allowed), rows(b, b.skipped), begun_at, moves, begun)
        arguments = (
            rows(b, b.params), rows(b, b.grads), rows(b, b.buffers), is_half(b.params), is_half(b.buffers),
            CODES[type(b.rule.transform)], divisors, table.ones if alpha is None else rows_of(alpha),
            table.ones if number is None else rows_of(number), rates_of(b),
            moves, begun, -1.0 if b.maximize else 1.0, float(b.weight_decay), float(b.momentum),
            1.0 - float(b.dampening), b.nesterov,
        )  # fmt: skip
        share(table, lambda first, last: loops.update_pieces(table.pieces, first, last, *arguments))
        if b.begun or b.steps:
            loops.settle(moves, steps, begun_at)
        torch.autograd.graph.increment_version(b.params + b.buffers)


def is_half(tensors: Sequence[Tensor]) -> bool:
    """Whether these are kept in bfloat16."""
    return bool(tensors) and tensors[0].dtype is torch.bfloat16


def rows(b: Batch, tensors: Sequence[Tensor]) -> NDArray[np.int64]:
    """The address of each row of tensors [*batch, ...]."""
    addresses = np.array([t.data_ptr() for t in tensors], np.int64)
    if not b.extent.batch_dims or not tensors:
        return addresses
    strides = np.array([t.stride(0) * t.element_size() for t in tensors], np.int64)
    table: Table = b.table
    return addresses[table.tensor] + table.run * strides[table.tensor]


def all_rows(b: Batch, *lists: Sequence[Tensor]) -> list[NDArray[np.int64]]:
    """:func:`rows` of several lists, of which some may be empty."""
    if b.extent.batch_dims:
        return [rows(b, tensors) for tensors in lists]
    addresses = np.array([t.data_ptr() for tensors in lists for t in tensors], np.int64)
    ends = list(accumulate(map(len, lists), initial=0))
    return [addresses[start:end] for start, end in pairwise(ends)]


def rates_of(b: Batch) -> NDArray[np.float64]:
    """The learning rate of each row."""
    rates = np.empty((len(b.params), *b.params[0].shape[: b.extent.batch_dims]))
    rates[:] = b.lr.to("cpu", torch.float64).numpy() if isinstance(b.lr, Tensor) else b.lr
    return rates.reshape(-1)


def rows_of(numbers: Tensor) -> NDArray[np.float64]:
    """One number for each row from [tensors, *batch]."""
    return numbers.contiguous().numpy().reshape(-1)


def by_tensor(b: Batch, of_pieces: NDArray[np.float64]) -> Tensor:
    """What was measured of pieces, added up in their order: [tensors, *batch]."""
    table: Table = b.table
    shape = len(b.params), *b.params[0].shape[: b.extent.batch_dims]
    of_rows = torch.empty(shape, dtype=torch.float64, device="cpu")
    loops.add_up(table.pieces, of_pieces, of_rows.numpy().reshape(-1))
    return of_rows


def share(table: Table, work: Callable[[int, int], Any]) -> None:
    """Calls ``work`` with ranges of the table's pieces, on as many threads as torch uses."""
    threads = torch.get_num_threads()
    if threads == 1 or table.elements < PARALLEL:
        work(0, len(table.pieces))
        return
    cuts = [0, *np.searchsorted(table.ends, np.arange(1, threads) * (table.elements / threads)), len(table.pieces)]
    flush = float(np.float32(1e-38) * np.float32(0.1)) == 0
    others = [
        pool_of(os.getpid(), threads - 1).submit(helper, work, first, last, flush) for first, last in pairwise(cuts[1:])
    ]
    try:
        work(cuts[0], cuts[1])
    finally:  # nobody writes to these addresses once this is left, whatever happened
        wait(others)
    for other in others:
        other.result()


def helper(work: Callable[[int, int], Any], first: int, last: int, flush: bool) -> None:
    """``work`` on a thread of the pool, which takes subnormal numbers as the training thread does."""
    torch.set_flush_denormal(flush)
    work(first, last)


@cache
def pool_of(process: int, threads: int) -> ThreadPoolExecutor:
    """The threads of a process: a fork does not inherit its parent's."""
    return ThreadPoolExecutor(threads, thread_name_prefix="alphagrad")


KERNEL = CpuKernel()
