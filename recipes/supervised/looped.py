"""Supervised training of R runs, one after the other: each a module with an optimizer of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alphagrad.harness.driver import Observation
from alphagrad.harness.pictures import RunHistogram
from alphagrad.harness.stack import RunStack

from .learner import Training
from .parallel import Parallel
from .precision import Numbers
from .run import ModuleRun


class LoopLearner:
    """The runs one after the other, each as it would be alone.

    Args:
        stack: the runs.
        training: what all of them share.
        numbers: precision and device.
        parallel: this process's place, for a single run on several processes.
    """

    def __init__(self, stack: RunStack, training: Training, numbers: Numbers, parallel: Parallel) -> None:
        self.parallel = parallel
        numbers.check()
        if numbers.rounding != "nearest" and parallel.kind == "fsdp":
            raise ValueError(f"recipe.rounding={numbers.rounding}: needs whole parameters; use recipe.parallel=ddp")
        if parallel.rank == 0:
            numbers.warn_if_slow()
        modules = stack.modules(training.build)
        self.runs = [
            ModuleRun(module, run.optimizer, training, numbers, parallel)
            for run, module in zip(stack.runs, modules, strict=True)
        ]
        self.frozen: set[int] = set()
        self._steps, self._device = 0, stack.device
        self._noise = [int(rng.integers(2**63)) for rng in stack.generators("noise")]

    def step(
        self, inputs: Tensor, targets: Tensor, observe: Observation | None
    ) -> tuple[Tensor, list[dict[str, float]]]:
        parts, like = self.parallel.processes, None
        columns: list[Tensor | None] = []
        signals: list[dict[str, float]] = []
        for number, run in enumerate(self.runs):
            if number in self.frozen:
                columns.append(None)
                signals.append({})
                continue
            # what dropout draws depends on run, step and process alone
            _seed((self._noise[number] + self._steps * parts + self.parallel.rank) % 2**63, self._device)
            measures, seen = run.step(inputs[number], targets[number], observe)
            like = measures
            columns.append(measures)
            signals.append(seen)
        self._steps += 1
        assert like is not None  # the log ends a stack in which every run is frozen
        stacked = torch.stack([torch.zeros_like(like) if c is None else c for c in columns], dim=1)
        return self.parallel.mean(stacked), signals if observe is not None else []

    @torch.no_grad()
    def predict(self, inputs: Tensor) -> Tensor:
        return torch.stack([run.predict(inputs) for run in self.runs])

    def finite(self) -> list[bool]:
        finite = torch.stack([run.finite() for run in self.runs]).float()
        return [share == 1 for share in self.parallel.mean(finite).tolist()]

    def freeze(self, run: int) -> None:
        """Takes a run out of the race: it is neither updated nor evaluated any more."""
        self.frozen.add(run)
        self.runs[run].clear()

    def scale_lr(self, factor: float) -> None:
        for run in self.runs:
            run.driver.scale_lr(factor)

    def learning_rates(self) -> list[float]:
        return [run.driver.learning_rate for run in self.runs]

    def skipped(self) -> list[dict[str, float]]:
        return [run.skipped() for run in self.runs]

    def state_dict(self) -> dict[str, Any]:
        """All runs' state; on several processes they must ask together."""
        runs = [run.state_dict() for run in self.runs]
        return {"runs": runs, "steps": self._steps, "frozen": sorted(self.frozen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for run, saved in zip(self.runs, state["runs"], strict=True):
            run.load_state_dict(saved)
        self.frozen, self._steps = set(state["frozen"]), state["steps"]

    def histograms(self, run: int) -> list[RunHistogram]:
        return [RunHistogram(self.runs[run].driver.meter.histogram, 0)]

    def result(self, run: int) -> dict[str, Any]:
        return self.runs[run].result()


def _seed(seed: int, device: torch.device) -> None:
    """``torch.manual_seed`` for the CPU and one device: for all of them it takes a millisecond."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
