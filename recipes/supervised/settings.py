"""What recipes that learn from examples let one set, beside what is their own."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from alphagrad.lab.recipe import Settings

from .parallel import Kind, processes
from .precision import Precision
from .schedules import ScheduleSettings


class SupervisedSettings(Settings):
    """See conf/recipe/image.yaml for what each means."""

    name: str
    lr: float = Field(ge=0)
    sgd_lr: float = Field(ge=0)
    alphagrad_lr: float = Field(ge=0)
    batch_size: PositiveInt
    accumulate: PositiveInt
    schedule: ScheduleSettings
    decay: Literal["all", "weights"]
    ema: float | None = Field(gt=0, lt=1)
    precision: Precision
    compile: bool
    stack: Literal["auto", "vmap", "loop"]
    parallel: Kind
    log_every: PositiveInt
    eval_every: NonNegativeInt
    eval_batch_size: PositiveInt


def check_batch(s: SupervisedSettings, examples: int) -> None:
    """Raises ``ValueError`` for a batch that cannot be had of so many examples, or not be divided."""
    if s.batch_size > examples:
        raise ValueError(f"recipe.batch_size={s.batch_size}: there are only {examples} training examples")
    parts = s.accumulate * processes()
    if s.batch_size % parts:
        among = f"recipe.accumulate={s.accumulate}" + (f" × {processes()} processes" if processes() > 1 else "")
        raise ValueError(f"recipe.batch_size={s.batch_size}: cannot be divided by {among}")
