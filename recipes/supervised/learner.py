"""Supervised training of R runs, each a module with an optimizer of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from alphagrad.harness.stack import Observation, RunStack

from .parallel import Parallel
from .precision import Numbers
from .run import ModuleRun

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Outputs and targets of one run → loss, and what is logged of a batch [measures], without graph."""


@dataclass(frozen=True)
class Training:
    """How a model is trained, whatever it is."""

    build: Callable[[], nn.Module]
    objective: Objective
    undecayed: frozenset[str]
    """Names of the parameters that weight decay leaves alone."""
    ema: float | None
    """Decay of the average of weights that is evaluated; None to evaluate the weights themselves."""
    accumulate: int
    """Backward passes in a step."""
    compile: bool
    channels_last: bool = False


class Learner(Protocol):
    """R runs that learn step by step."""

    @property
    def frozen(self) -> set[int]:
        """The runs that are out of the race."""

    def step(
        self, inputs: Tensor, targets: Tensor, observe: Observation | None
    ) -> tuple[Tensor, list[dict[str, float]]]:
        """One update of every run from inputs [R, B, ...] and targets [R, B]: measures [n, R], signals."""

    def predict(self, inputs: Tensor) -> Tensor:
        """Each run's outputs [R, B, ...] for the same inputs [B, ...]; of the average of its weights if it has one."""

    def finite(self) -> list[bool]:
        """For each run whether its parameters are finite; processes must ask together."""

    def freeze(self, run: int) -> None: ...

    def scale_lr(self, factor: float) -> None: ...

    def learning_rates(self) -> list[float]: ...

    def skipped(self) -> list[dict[str, float]]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def result(self, run: int) -> dict[str, Any]:
        """A run's model, average and optimizer state, as that run alone would have them."""


def learner_of(stack: RunStack, training: Training, numbers: Numbers, parallel: Parallel, vmap: bool) -> Learner:
    """The runs as one tensor program (``vmap``) or one after the other."""
    from .stacked import StackLearner

    return StackLearner(stack, training) if vmap else LoopLearner(stack, training, numbers, parallel)


def undecayed(module: nn.Module) -> frozenset[str]:
    """Biases and the scales and shifts of normalisations: what has fewer than two dimensions."""
    return frozenset(name for name, p in module.named_parameters() if p.dim() < 2)


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
            run.scale_lr(factor)

    def learning_rates(self) -> list[float]:
        return [run.learning_rate() for run in self.runs]

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

    def result(self, run: int) -> dict[str, Any]:
        return self.runs[run].result()


def _seed(seed: int, device: torch.device) -> None:
    """``torch.manual_seed`` for the CPU and one device: for all of them it takes a millisecond."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
