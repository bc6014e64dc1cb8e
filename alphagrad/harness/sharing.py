"""The optimizers of a stack: neighbouring runs share one where they can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from alphagrad.harness.driver import Driver, Observation, OptimizerSpec
from alphagrad.harness.pictures import RunHistogram
from alphagrad.harness.tensors import StackedTensors, split
from alphagrad.instruments.quantities import NETWORK


@dataclass
class Neighbours:
    """Runs side by side that have one :class:`OptimizerSpec`."""

    rows: slice
    spec: OptimizerSpec
    drivers: list[Driver]
    """One for all of them, or one for each."""
    alone: bool
    """Whether each run has a driver of its own."""


class StackOptimizer:
    """The optimizers of a stack whose runs may differ in optimizer.

    An elementwise optimizer updates the whole matrix of its runs as one tensor, AlphaGrad sees the tensors
    of all its runs, any other has one instance a run; so has an elementwise one that decays some tensors alone.

    Args:
        specs: each run's optimizer.
        params: the runs' parameters, updated in place.
        compile: whether AlphaGrad's step is compiled.
        undecayed: tensors that weight decay leaves alone.
        network: what stands for the tensor in the names of signals that are summed up over tensors.
    """

    def __init__(
        self,
        specs: Sequence[OptimizerSpec],
        params: StackedTensors,
        compile: bool = False,
        undecayed: frozenset[str] = frozenset(),
        network: str = NETWORK,
    ) -> None:
        self.params, self.network = params, network
        self.grads = StackedTensors(torch.zeros_like(params.flat), params.layout)
        self.neighbours: list[Neighbours] = []
        self.frozen: set[int] = set()
        start = 0
        for spec, same in groupby(specs):
            rows = slice(start, start + len(list(same)))
            start = rows.stop
            # fused steps want whole pieces of memory: the matrix of all runs, or single tensors of single runs
            divided = spec.stacking == "elementwise" and bool(undecayed) and spec.decays
            alone = divided or spec.stacking == "per_run"
            if alone:
                drivers = [self._driver(spec, k, compile, undecayed) for k in range(rows.start, rows.stop)]
            else:
                drivers = [self._driver(spec, rows, compile, undecayed)]
            self.neighbours.append(Neighbours(rows, spec, drivers, alone))

    def _driver(self, spec: OptimizerSpec, rows: int | slice, compile: bool, undecayed: frozenset[str]) -> Driver:
        """The driver of one run, or of several that share it."""
        params, grads = self.params.flat[rows], self.grads.flat[rows]
        named = split(params, self.params.layout)
        for name, grad in split(grads, self.params.layout).items():
            named[name].grad = grad
        given = named
        if isinstance(rows, slice) and spec.stacking == "elementwise":
            params.grad = grads
            given = {"all": params}
        runs = len(params) if isinstance(rows, slice) else None
        return Driver(spec, given, compile, undecayed, runs, named, self.network)

    @torch.no_grad()
    def step(self, grads: Tensor, observe: Observation | None = None) -> list[dict[str, float]]:
        """One update of every run from ``grads`` [R, D], laid out as the parameters.

        Returns:
            With ``observe``, the signals of each run; else nothing.
        """
        self.grads.flat.copy_(grads)
        told: list[dict[str, float]] = []
        for group in self.neighbours:
            if group.spec.clip_grad_norm is not None:
                clip_grad_norm_(self.grads.flat[group.rows], group.spec.clip_grad_norm)
            for driver in group.drivers:
                if observe is None:
                    driver.step()
                    continue
                with driver.observed(observe) as seen:
                    driver.step()
                told += seen
        if self.frozen:
            self._hold_frozen()
        return told

    def finite(self) -> list[bool]:
        """For each run whether its parameters are finite."""
        finite: list[bool] = self.params.flat.isfinite().all(dim=1).tolist()
        return finite

    def freeze(self, run: int) -> None:
        """Takes a run out of the race: its parameters are 0 from now on, so that it cannot disturb anything."""
        self.frozen.add(run)
        self._hold_frozen()

    def _hold_frozen(self) -> None:
        for run in self.frozen:
            self.params.flat[run].zero_()

    @property
    def drivers(self) -> list[Driver]:
        """All of them, in the order of their runs."""
        return [driver for group in self.neighbours for driver in group.drivers]

    def scale_lr(self, factor: float) -> None:
        """Sets every learning rate to ``factor`` times what it was configured to be."""
        for driver in self.drivers:
            driver.scale_lr(factor)

    def learning_rates(self) -> list[float]:
        """Each run's present learning rate, of its first parameter group."""
        return [driver.learning_rate for driver in self.drivers for _ in range(driver.runs or 1)]

    def skipped(self) -> list[dict[str, float]]:
        """For each run how often updates were skipped for a non-finite gradient, of the tensors where any was."""
        return [counts for driver in self.drivers for counts in driver.skipped()]

    def state_dict(self) -> dict[str, Any]:
        """The whole stack's state; a stack of the same runs takes it back."""
        return {"optimizers": [driver.state_dict() for driver in self.drivers], "frozen": sorted(self.frozen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes :meth:`state_dict` back; the parameters are the caller's."""
        for driver, saved in zip(self.drivers, state["optimizers"], strict=True):
            driver.load_state_dict(saved)
        self.frozen = set(state["frozen"])

    def state_of(self, run: int) -> dict[str, Any]:
        """The optimizer state of one run, as that run alone would have it: parameter name → state."""
        driver, row = self._of(run)
        found = driver.slots()
        if driver.runs is not None:
            found = {name: {k: _of_run(v, row, driver.runs) for k, v in s.items()} for name, s in found.items()}
        if "all" not in driver.params:
            return found
        named = {k: split(v, self.params.layout) if _has_elements(v) else v for k, v in found["all"].items()}
        return {name: {k: v[name] if isinstance(v, dict) else v for k, v in named.items()} for name in self.params}

    def histograms(self, run: int) -> list[RunHistogram]:
        """What was counted of α·ĝ of one run."""
        driver, row = self._of(run)
        return [RunHistogram(driver.meter.histogram, row)]

    def _of(self, run: int) -> tuple[Driver, int]:
        """The driver of a run, and the run's row in it."""
        for group in self.neighbours:
            row = run - group.rows.start
            if 0 <= row < group.rows.stop - group.rows.start:
                return (group.drivers[row], 0) if group.alone else (group.drivers[0], row)
        raise IndexError(f"run {run} of a stack of {self.neighbours[-1].rows.stop}")


def _has_elements(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0


def _of_run(value: Any, row: int, runs: int) -> Any:
    """The part of a shared optimizer's state that belongs to one run; what all share as it is."""
    return value[row] if _has_elements(value) and len(value) == runs else value


def clip_grad_norm_(grads: Tensor, max_norm: float) -> None:
    """Scales each run's gradients [R, D] in place so that their norm is at most ``max_norm``.

    The formula is ``torch.nn.utils.clip_grad_norm_``'s, its 1e-6 included.
    """
    norms = torch.linalg.vector_norm(grads, dim=1, keepdim=True)
    grads.mul_((max_norm / (norms + 1e-6)).clamp(max=1.0))
