"""What supervised training asks of those that learn: R runs, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from alphagrad.harness.driver import Observation
from alphagrad.harness.pictures import RunHistogram

LossFunction = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Outputs and targets of one run → loss, and what is logged of a batch [measures], without graph."""


@dataclass(frozen=True)
class Training:
    """How a model is trained, whatever it is."""

    build: Callable[[], nn.Module]
    objective: LossFunction
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

    def histograms(self, run: int) -> list[RunHistogram]:
        """What was counted of α·ĝ of one run."""

    def result(self, run: int) -> dict[str, Any]:
        """A run's model, average and optimizer state, as that run alone would have them."""


def undecayed(module: nn.Module) -> frozenset[str]:
    """Biases and the scales and shifts of normalisations: what has fewer than two dimensions."""
    return frozenset(name for name, p in module.named_parameters() if p.dim() < 2)
