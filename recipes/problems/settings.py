"""Which problem, and its settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from alphagrad.harness.recipe import Settings

from .landscapes import cliff, plateau, rosenbrock, sines
from .problem import Problem
from .quadratic import quadratic, with_noise
from .regressions import logistic, robust

Name = Literal["quadratic", "noisy_quadratic", "logistic", "sines", "robust", "rosenbrock", "plateau", "cliff"]


class ProblemSettings(Settings):
    """Which problem; see conf/problem/. One has the settings that :data:`USES` lists, the others are None."""

    name: Name
    scale: PositiveFloat
    """f is multiplied by it."""
    L: float | None = Field(gt=0)
    """In place of the problem's own; null for that."""
    sizes: list[PositiveInt] | None = Field(default=None, min_length=1, max_length=1000)
    """Of the parameter tensors."""
    conditioning: float | None = Field(default=None, ge=1)
    flat: float | None = Field(default=None, ge=0, lt=1)
    """quadratic: share of directions without curvature."""
    reach: float | None = Field(default=None, ge=1)
    """D over the distance of the start from the minimum."""
    snr: PositiveFloat | None = None
    """noisy_quadratic: norm of the gradient at the start over that of the noise."""
    decay: PositiveFloat | None = None
    batch_size: PositiveInt | None = None
    """logistic: examples that a gradient is of; null for all."""
    rows: PositiveInt | None = None
    box: PositiveFloat | None = None
    distance: PositiveFloat | None = None
    height: PositiveFloat | None = None
    width: PositiveFloat | None = None
    instance: NonNegativeInt | None = None
    """Which of the random ones: directions, start, data; null is 0."""


def _quadratic(s: ProblemSettings) -> Problem:
    assert s.sizes is not None
    assert s.conditioning is not None
    assert s.flat is not None
    assert s.reach is not None
    return quadratic(s.sizes, s.conditioning, s.flat, s.reach, s.instance or 0)


MAKERS: dict[str, Callable[[ProblemSettings], Problem]] = {
    "quadratic": _quadratic,
    "noisy_quadratic": lambda s: with_noise(_quadratic(s), s.snr),  # type: ignore[arg-type]
    "logistic": lambda s: logistic(s.decay, s.reach, s.batch_size, s.instance or 0),  # type: ignore[arg-type]
    "sines": lambda s: sines(s.sizes, s.instance or 0),  # type: ignore[arg-type]
    "robust": lambda s: robust(s.sizes, s.rows, s.instance or 0),  # type: ignore[arg-type]
    "rosenbrock": lambda s: rosenbrock(s.sizes, s.box),  # type: ignore[arg-type]
    "plateau": lambda s: plateau(s.sizes, s.distance, s.instance or 0),  # type: ignore[arg-type]
    "cliff": lambda s: cliff(s.sizes, s.height, s.width, s.distance, s.instance or 0),  # type: ignore[arg-type]
}
USES: dict[str, tuple[str, ...]] = {
    "quadratic": ("sizes", "conditioning", "flat", "reach", "instance"),
    "noisy_quadratic": ("sizes", "conditioning", "flat", "reach", "snr", "instance"),
    "logistic": ("decay", "reach", "batch_size", "instance"),
    "sines": ("sizes", "instance"),
    "robust": ("sizes", "rows", "instance"),
    "rosenbrock": ("sizes", "box"),
    "plateau": ("sizes", "distance", "instance"),
    "cliff": ("sizes", "height", "width", "distance", "instance"),
}
MAY_BE_NULL = ("batch_size", "instance")
OWN = tuple(name for name in ProblemSettings.model_fields if name not in ("name", "scale", "L"))
MOST = 2000
"""Parameters: a quadratic holds n² numbers."""


def build_problem(s: ProblemSettings) -> Problem:
    """The problem of these settings.

    Raises:
        ValueError: it lacks a setting, or has none that is given, or a value does not fit the others.
    """
    wanted = USES[s.name]
    for name in OWN:
        value = getattr(s, name)
        if value is not None and name not in wanted:
            raise ValueError(f"problem.{name}={value}: {s.name} has no such setting; it has {', '.join(wanted)}")
        if value is None and name in wanted and name not in MAY_BE_NULL:
            raise ValueError(f"problem.{name}=null: {s.name} needs it")
    if s.sizes is not None and sum(s.sizes) > MOST:
        raise ValueError(f"problem.sizes={s.sizes}: must sum up to at most {MOST}")
    return _built(s.model_dump_json())


@lru_cache(maxsize=32)
def _built(settings: str) -> Problem:
    """The jobs of a study have few problems between them."""
    s = ProblemSettings.model_validate_json(settings)
    problem = MAKERS[s.name](s).scaled(s.scale)
    return problem if s.L is None else replace(problem, L=s.L)
