"""What recipes that learn from examples let one set, beside what is their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt
from torch import nn

from alphagrad.harness.recipe import Settings

from .learner import LossFunction, Training, undecayed
from .parallel import Kind, processes
from .precision import Precision, Rounding, check_rounding
from .schedules import ScheduleSettings


class SupervisedSettings(Settings):
    """See conf/recipe/image.yaml for what each means."""

    name: str
    batch_size: PositiveInt
    accumulate: PositiveInt
    schedule: ScheduleSettings
    decay: Literal["all", "weights"]
    ema: float | None = Field(gt=0, lt=1)
    precision: Precision
    rounding: Rounding = "nearest"
    compile: bool
    stack: Literal["auto", "vmap", "loop"]
    parallel: Kind
    log_every: PositiveInt
    eval_every: NonNegativeInt
    eval_batch_size: PositiveInt


def training_of(
    s: SupervisedSettings, build: Callable[[], nn.Module], objective: LossFunction, channels_last: bool = False
) -> Training:
    """How a model is trained by these settings."""
    return Training(
        build=build,
        objective=objective,
        undecayed=undecayed(build()) if s.decay == "weights" else frozenset(),
        ema=s.ema,
        accumulate=s.accumulate,
        compile=s.compile,
        channels_last=channels_last,
    )


def check_step(s: SupervisedSettings, examples: int) -> None:
    """Raises ``ValueError`` for a batch that cannot be had of so many examples, or not be divided, or for a rounding
    where nothing is rounded.
    """
    check_rounding(s.precision, s.rounding)
    if s.batch_size > examples:
        raise ValueError(f"recipe.batch_size={s.batch_size}: there are only {examples} training examples")
    parts = s.accumulate * processes()
    if s.batch_size % parts:
        among = f"recipe.accumulate={s.accumulate}"
        if processes() > 1:
            among += f" × {processes()} processes"
        raise ValueError(f"recipe.batch_size={s.batch_size}: cannot be divided by {among}")


def part_of(s: SupervisedSettings) -> int:
    """Examples that go through the model at a time."""
    return max(1, s.batch_size // s.accumulate // processes())


def draws(module: nn.Module) -> bool:
    """Whether a module draws random numbers in training."""
    return isinstance(module, nn.modules.dropout._DropoutNd) or type(module).__name__ == "StochasticDepth"


def vmaps(s: SupervisedSettings, training: Training, runs: int, repays: bool, against: str = "") -> bool:
    """Whether ``runs`` runs train as one tensor program.

    *auto* does so with several runs of a model of which ``repays`` says that it is faster so, where it can be
    done: in float32, in one process, in one pass a step, for a model without buffers and dropout, with nothing
    ``against`` it.

    Raises:
        ValueError: ``recipe.stack=vmap`` where it cannot be done.
    """
    if s.stack == "loop" or (s.stack == "auto" and not (repays and runs > 1)):
        return False
    if against:
        pass
    elif s.precision != "float32":
        against = f"recipe.precision={s.precision}"
    elif s.accumulate > 1:
        against = f"recipe.accumulate={s.accumulate}"
    elif processes() > 1:
        against = f"{processes()} processes"
    elif training.channels_last:
        against = "recipe.channels_last=true"
    else:
        modules = training.build().modules()
        kinds = {type(m).__name__ for m in modules if draws(m) or m._buffers}
        against = f"a model with {', '.join(sorted(kinds))}" if kinds else ""
    if against and s.stack == "vmap":
        raise ValueError(f"recipe.stack=vmap: cannot be with {against}; use loop or auto")
    return not against
