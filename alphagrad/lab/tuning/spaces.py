"""What a tuning searches: each optimizer's space, all of one size."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hydra import compose as hydra_compose
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, PositiveFloat, model_validator

from alphagrad.common.errors import ConfigError
from alphagrad.harness.recipe import Settings
from alphagrad.lab.config.build import validated
from alphagrad.lab.config.catalogue import options_of


class Range(Settings):
    """A number drawn evenly on a logarithmic scale."""

    low: PositiveFloat
    high: PositiveFloat

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low must be less than high={self.high}")
        return self

    @property
    def size(self) -> float:
        """Its decades."""
        return round(math.log10(self.high / self.low), 6)

    def suggest(self, trial: Any, setting: str) -> str:
        """A value for an Optuna trial, as Hydra reads it."""
        return repr(trial.suggest_float(setting, self.low, self.high, log=True))

    def corners(self) -> list[str]:
        """The outermost values."""
        return [repr(self.low), repr(self.high)]


class Choices(Settings):
    """One of a few values."""

    choices: list[Any] = Field(min_length=2)

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.choices)

    def suggest(self, trial: Any, setting: str) -> str:
        """A value for an Optuna trial, as Hydra reads it."""
        return str(trial.suggest_categorical(setting, self.corners()))

    def corners(self) -> list[str]:
        """All values."""
        return [json.dumps(value) for value in self.choices]


@dataclass(frozen=True)
class Space:
    """The settings that are searched for one optimizer."""

    optimizer: str
    settings: Mapping[str, Range | Choices]

    @property
    def size(self) -> tuple[tuple[float, ...], tuple[int, ...]]:
        """Decades of each range and number of each choice, largest first: equal sizes are equal chances."""
        dimensions = self.settings.values()
        ranges = sorted((d.size for d in dimensions if isinstance(d, Range)), reverse=True)
        return tuple(ranges), tuple(sorted((d.size for d in dimensions if isinstance(d, Choices)), reverse=True))

    def shown(self) -> str:
        """The size in words."""
        ranges, choices = self.size
        words = [f"{decades:g} decades" for decades in ranges] + [f"{count} choices" for count in choices]
        return " × ".join(words) or "nothing"

    def plain(self) -> dict[str, Any]:
        """The space as plain values."""
        return {setting: dimension.model_dump() for setting, dimension in self.settings.items()}

    def corners(self) -> list[list[str]]:
        """Lists of overrides that try every outermost value once."""
        values = {setting: dimension.corners() for setting, dimension in self.settings.items()}
        count = max(map(len, values.values()))
        return [[f"{s}={v[min(i, len(v) - 1)]}" for s, v in values.items()] for i in range(count)]


def space_of(optimizer: str) -> Space:
    """The space in ``tune/OPTIMIZER.yaml``, the user's own first; call it under ``hydra_initialized``.

    Raises:
        ConfigError: there is none, or it is malformed.
    """
    try:
        composed = OmegaConf.to_container(hydra_compose(f"tune/{optimizer}"), resolve=True)
    except MissingConfigException as error:
        known = ", ".join(options_of("tune"))
        raise ConfigError(
            f"optimizer={optimizer}: has no search space; there are {known}; write tune/{optimizer}.yaml "
            "in a folder named by ALPHAGRAD_CONF"
        ) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"tune/{optimizer}.yaml: {' '.join(str(error).split())}") from error
    section = composed.get("tune") if isinstance(composed, dict) else None
    if not isinstance(section, dict) or not section:
        raise ConfigError(f"tune/{optimizer}.yaml: must hold settings, each {{low, high}} or {{choices}}")
    settings: dict[str, Range | Choices] = {}
    for name, values in section.items():
        model = Choices if isinstance(values, dict) and "choices" in values else Range
        settings[str(name)] = validated(model, values, f"tune/{optimizer}.yaml: {name}.")
    return Space(optimizer, settings)


def check_equal(spaces: list[Space]) -> None:
    """Raises :class:`ConfigError` unless all spaces are of one size: a larger one needs more trials."""
    for space in spaces[1:]:
        if space.size != spaces[0].size:
            raise ConfigError(
                f"tune/{space.optimizer}.yaml: {space.shown()}, but tune/{spaces[0].optimizer}.yaml has "
                f"{spaces[0].shown()}; the optimizers of a tuning need search spaces of one size"
            )
