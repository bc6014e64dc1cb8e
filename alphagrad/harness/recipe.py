"""What the runner asks of a recipe, and what a recipe gets to work with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from torch import nn

from alphagrad.common import interrupts
from alphagrad.exporting.network import Network
from alphagrad.harness.driver import Observation
from alphagrad.harness.stack import RunStack
from alphagrad.landscape.loss import FixedLoss


class Settings(BaseModel):
    """Settings of a recipe: typed, with ranges, none unknown and none defaulted (defaults are in conf/)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _whole(cls, value: Any, info: ValidationInfo) -> Any:
        """A whole number that a file has as 1e5 is one, but where a setting may be any number."""
        kind = str(cls.model_fields[info.field_name or ""].annotation)
        whole = isinstance(value, float) and value.is_integer() and "int" in kind and "float" not in kind
        return int(value) if whole else value


class EnvSettings(Settings):
    """Which environment; see conf/recipe/."""

    id: str
    kwargs: dict[str, Any] = {}
    """Arguments of the environment."""
    wrappers: list[dict[str, Any]] = []
    """Around it, the innermost first: ``_target_`` and arguments."""

    @field_validator("wrappers")
    @classmethod
    def _named(cls, wrappers: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for wrapper in wrappers:
            if not isinstance(wrapper.get("_target_"), str):
                raise PydanticCustomError("wrapper", "each must have a _target_, the dotted name of a wrapper")
        return wrappers


def check_signals() -> None:
    """Raises if a signal came: what a recipe asks before it takes an exception for that of a user's code."""
    interrupts.check()


@dataclass(frozen=True)
class Objective:
    """What a recipe's runs are judged by: the last value of a metric, and whether more or less of it is better."""

    metric: str
    better: Literal["max", "min"] = "max"

    def score(self, values: Mapping[str, float]) -> float | None:
        """The value of a run, larger where it is better; None without one."""
        value = values.get(self.metric)
        return value if value is None or self.better == "max" else -value


class Capability(StrEnum):
    """What can be done with a recipe beside training one run of it in one process."""

    STACKED = "stacked"
    """Several runs train in one process, as one stack."""
    SHARDED = "sharded"
    """One run trains on several processes, under torchrun."""
    PLAYED = "played"
    """`alphagrad watch` shows its policy: the recipe has ``policy`` and ``play``."""
    SURVEYED = "surveyed"
    """`alphagrad landscape` looks around its weights: the recipe has ``fixed_loss``, see :class:`Surveyed`."""
    EXPORTED = "exported"
    """`alphagrad export-model` writes its network to a file: the recipe has ``exported``, see :class:`Exported`."""


class Surveyed(Protocol):
    """What a recipe with :attr:`Capability.SURVEYED` has more."""

    def fixed_loss(self, checkpoint: Mapping[str, Any], examples: int, device: torch.device) -> FixedLoss:
        """The loss that is trained for on so many fixed examples, or all, around a checkpoint's weights.

        A checkpoint is what ``train`` returns; its weights are in its entry ``model``.

        Raises:
            ValueError: the checkpoint is of another model.
        """


class Exported(Protocol):
    """What a recipe with :attr:`Capability.EXPORTED` has more."""

    def exported(self, checkpoint: Mapping[str, Any]) -> Network:
        """A checkpoint's network, with the examples that it is judged by; raises where it is of another model."""


class RunFailed(Exception):
    """What a recipe trains for has not come true; raised by the log once no run is left."""


class NotDrawable(Exception):
    """An environment has no pictures."""


class Log(Protocol):
    """Where a recipe reports; cheap, and off the training path."""

    observation: Observation | None
    """What the optimizers are to report every :attr:`observe_every` gradient steps."""
    observe_every: int

    def metrics(self, run: int, step: int, values: Mapping[str, float]) -> None:
        """Records metrics of one run of the stack at a step."""

    def diverged(self, run: int, step: int, reason: str) -> None:
        """Ends a run of the stack as failed; raises ``FloatingPointError`` once no run is left."""

    def failed(self, run: int, step: int, reason: str) -> None:
        """Ends a run of the stack as failed for a reason of the recipe's own; raises :class:`RunFailed` as above."""

    def progress(self, step: int, shown: str) -> None:
        """Tells how far the stack is, with a few words for the progress line."""

    def artifact(self, run: int, name: str, write: Callable[[Path], None]) -> None:
        """Keeps a file of one run in its folder and in the store: ``write`` makes it at the path it is given."""

    def restore(self, parts: Mapping[str, Any]) -> int:
        """Brings the parts to where a stopped run was; returns the first step to take, 0 for a new run.

        Args:
            parts: everything that changes while the recipe trains, by name: tensors (also in mappings and
                lists), NumPy generators, and objects with ``state_dict`` and ``load_state_dict``, which see
                to it that their state is tensors and plain values (:mod:`alphagrad.harness.state`). They take
                their state in place, so that one mapping serves the whole run.
        """

    def checkpoint(self, step: int, parts: Mapping[str, Any], result: Callable[[int], dict[str, Any]]) -> None:
        """Marks the end of an iteration, the only place where a run can stop and go on; cheap unless one is due.

        Args:
            step: the first step that is still to be taken.
            parts: as for :meth:`restore`.
            result: a run's number → the checkpoint that :meth:`Recipe.train` would return for it now.
        """


class Recipe(Protocol):
    """Something to train: constructed from its validated settings."""

    Settings: ClassVar[type[Settings]]
    objective: ClassVar[Objective]
    headlines: ClassVar[Mapping[str, int]]
    """The few metrics worth a column in a table or a place in a line, with the digits after their points."""
    capabilities: ClassVar[Collection[Capability]]
    # A recipe may name what it logs, but for what is measured on single tensors, in an attribute ``logs``: a setting
    # that asks for another metric is then refused at the start. In an attribute ``takes`` it may name the data sets and
    # models that it can be given, each with the settings that it needs of it, so that a message lists them; those of
    # the user's own need not be named.

    def __init__(self, settings: Any) -> None:
        """Raises ``ValueError`` for settings that do not fit together, or take more memory than there is.

        :func:`alphagrad.harness.memory.check_memory` finds out the latter. Of a recipe whose method
        ``bytes_of(settings, runs)`` says what runs take, stacks are checked, too.
        """

    @property
    def total_steps(self) -> int:
        """What :meth:`Log.progress` counts up to."""

    def networks(self) -> dict[str, nn.Module]:
        """The networks that one run optimizes, each by an optimizer of its own."""

    def train(self, stack: RunStack, log: Log) -> Sequence[dict[str, Any]]:
        """Trains every run of the stack; returns each run's checkpoint, tensors and plain values only.

        It calls :meth:`Log.restore` before its loop and :meth:`Log.checkpoint` at the end of every iteration.

        Raises:
            ValueError: the environment or data does not suit the recipe.
        """
