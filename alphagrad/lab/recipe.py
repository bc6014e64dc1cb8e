"""What the runner asks of a recipe, and what a recipe gets to work with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict
from torch import nn

from alphagrad.lab.stack import Observation, RunStack


class Settings(BaseModel):
    """Settings of a recipe: typed, with ranges, none unknown and none defaulted (defaults are in conf/)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class EnvSettings(Settings):
    """Which environment."""

    id: str


class Log(Protocol):
    """Where a recipe reports; cheap, and off the training path."""

    observation: Observation | None
    """What the optimizers are to report every :attr:`observe_every` gradient steps."""
    observe_every: int

    def metrics(self, run: int, step: int, values: Mapping[str, float]) -> None:
        """Records metrics of one run of the stack at a step."""

    def diverged(self, run: int, step: int, reason: str) -> None:
        """Ends a run of the stack as failed; raises ``FloatingPointError`` once no run is left."""

    def progress(self, step: int, shown: str) -> None:
        """Tells how far the stack is, with a few words for the progress line."""


class Recipe(Protocol):
    """Something to train: constructed from its validated settings."""

    Settings: ClassVar[type[Settings]]

    def __init__(self, settings: Any) -> None: ...

    @property
    def total_steps(self) -> int:
        """What :meth:`Log.progress` counts up to."""

    def networks(self) -> dict[str, nn.Module]:
        """The networks that one run optimizes, each by an optimizer of its own."""

    def train(self, stack: RunStack, log: Log) -> Sequence[dict[str, Any]]:
        """Trains every run of the stack; returns each run's checkpoint, tensors and plain values only.

        Raises:
            ValueError: the environment or data does not suit the recipe.
        """
