"""The update on a CPU: what the loops of ``loops.py`` are told.

Decided by measurement (docs/performance.md): numba compiles one set of loops for tensors of every size in seconds,
once, keeps them on disk, needs no compiler on the machine and installs wherever torch does.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alphagrad.batch import Batch
from alphagrad.kernels import threads
from alphagrad.kernels.coverage import CODES
from alphagrad.kernels.job import BEYOND, ENVIRONMENT, SUMS, Job
from alphagrad.kernels.loops import loops
from alphagrad.kernels.table import Addressed, Table

LISTS = ("params", "grads", "buffers", "skipped", "begun", "steps")
"""Of a batch, and of a job, which has their addresses."""


class CpuKernel(Addressed):
    """See :class:`alphagrad.batch.Kernel`."""

    dtypes = (torch.float32, torch.bfloat16)

    def step(self, b: Batch, found_inf: Tensor | None) -> bool:
        told = told_of(b)
        told.divide(b, told.of_rows, b.initial_alphas, b.fixed_number, found_inf is None or not bool(found_inf))
        told.job.eps, told.job.task = float(b.eps), SUMS
        loops().step(told.address)
        torch.autograd.graph.increment_version(b.params + b.buffers)
        return True

    def norms(self, b: Batch) -> Tensor:
        return told_of(b).measured(b, SUMS)

    def beyond(self, b: Batch, by: Tensor, alpha: Tensor, tau: float) -> Tensor:
        told = told_of(b)
        by, alpha = by.contiguous(), alpha.contiguous()
        told.job.divisors, told.job.alphas, told.job.tau = by.data_ptr(), alpha.data_ptr(), tau
        return told.measured(b, BEYOND)

    def update(self, b: Batch, by: Tensor, alpha: Tensor | None, number: Tensor | None, allowed: Tensor | None) -> None:
        told = told_of(b)
        told.divide(b, by, alpha, number, allowed is None or bool(allowed))
        loops().update(told.address)
        torch.autograd.graph.increment_version(b.params + b.buffers)


class Told:
    """A job and the arrays that its addresses point to, kept from step to step.

    Args:
        table: of the batch.
    """

    def __init__(self, table: Table) -> None:
        rows, pieces = len(table.ones), len(table.pieces)
        self._table = table
        self._addresses = np.zeros((len(LISTS), rows), np.int64)
        self._ones, self._rates = torch.ones(rows, dtype=torch.float64), np.zeros(rows)
        self._rounding = np.zeros(ENVIRONMENT, np.int64)
        self._flags, self._of_pieces = np.zeros((2, rows), np.uint8), np.zeros(pieces)
        self.of_rows = torch.zeros(rows, dtype=torch.float64)
        self.job = Job(
            rows=rows, pieces=table.pieces.ctypes.data, number_of_pieces=pieces, rates=self._rates.ctypes.data,
            moves=self._flags[0].ctypes.data, damped=self._flags[1].ctypes.data,
            of_pieces=self._of_pieces.ctypes.data, of_rows=self.of_rows.data_ptr(), member=loops().member.address,
            rounding=self._rounding.ctypes.data,
        )  # fmt: skip
        self.address = ctypes.addressof(self.job)
        self._first = self._addresses.ctypes.data

    def point_to(self, b: Batch) -> None:
        """Notes where the tensors are now, and of which type, and how many threads work on them."""
        job, rows = self.job, self.job.rows
        lists = [getattr(b, name) for name in LISTS]
        tensors = [t for tensors in lists for t in tensors]
        found = np.array([t.data_ptr() for t in tensors], np.int64)
        if b.extent.batch_dims:
            found = self._of_runs(found, tensors)
        self._addresses.reshape(-1)[: len(found)] = found
        place = self._first
        for name, tensors in zip(LISTS, lists, strict=True):
            setattr(job, name, place if tensors else 0)
            place += 8 * rows * bool(tensors)
        job.half, job.half_buffers = is_half(b.params), is_half(b.buffers)
        job.threads = threads.threads_for(self._table.elements)
        job.team = threads.team() or 0
        job.get_rounding, job.set_rounding = threads.rounding() or (0, 0)

    def _of_runs(self, addresses: NDArray[np.int64], tensors: Sequence[Tensor]) -> NDArray[np.int64]:
        """The address of each row of tensors [*batch, ...]."""
        table, number = self._table, int(self._table.tensor[-1]) + 1
        strides = np.array([t.stride(0) * t.element_size() for t in tensors], np.int64).reshape(-1, number)
        return (addresses.reshape(-1, number)[:, table.tensor] + table.run * strides[:, table.tensor]).reshape(-1)

    def divide(self, b: Batch, by: Tensor, alpha: Tensor | None, number: Tensor | None, allowed: bool) -> None:
        """Notes the settings of the step, and each row's numbers, [tensors, *batch]."""
        job = self.job
        # kept here, for the addresses are all that the loops see of them
        self._numbers = [self._ones if x is None else x.contiguous() for x in (by, alpha, number)]
        job.divisors, job.alphas, job.numbers = (x.data_ptr() for x in self._numbers)
        self._rates.reshape(len(b.params), *b.params[0].shape[: b.extent.batch_dims])[:] = (
            b.lr.to("cpu", torch.float64).numpy() if isinstance(b.lr, Tensor) else b.lr
        )
        job.transform, job.skip, job.allowed, job.nesterov = CODES[type(b.rule.transform)], b.skip, allowed, b.nesterov
        job.sign, job.share = -1.0 if b.maximize else 1.0, 1.0 - float(b.dampening)
        job.decay, job.momentum = float(b.weight_decay), float(b.momentum)

    def measured(self, b: Batch, task: int) -> Tensor:
        """What the task finds of each row: [tensors, *batch]."""
        self.job.task = task
        loops().measure(self.address)
        return self.of_rows.reshape(len(b.params), *b.params[0].shape[: b.extent.batch_dims]).clone()


def told_of(b: Batch) -> Told:
    """The batch's job, which knows where its tensors are."""
    table: Table = b.table
    if table.told is None:
        table.told = Told(table)
    told: Told = table.told
    told.point_to(b)
    return told


def is_half(tensors: Sequence[Tensor]) -> bool:
    """Whether these are kept in bfloat16."""
    return bool(tensors) and tensors[0].dtype is torch.bfloat16


KERNEL = CpuKernel()
