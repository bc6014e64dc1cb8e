"""A claim as its file in ``conf/claim`` has it: what the paper says, what is run, and the rule that decides."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.resources import files
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from yaml import YAMLError

from alphagrad.common.errors import ConfigError
from alphagrad.common.words import cut, listed, squeezed
from alphagrad.lab.evidence.statistics.curves import MEASURES, OF

SEED = "seed"
Cell = dict[str, str | int | float | bool | None]
"""Setting → its value, of the runs that are meant."""
COMPARISON = frozenset(("direction", "least", "within", "offset", "best", "log"))
"""What a part says of a comparison, and a bound knows nothing of."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Part(_Strict):
    """One thing that a claim says, and how the numbers decide it.

    A comparison: ``measure`` of ``first`` is ``direction`` that of ``than``, by at least ``least``, or *equal* to it
    but for ``within``. Runs are paired as the claim says, mostly by seeds; over settings that neither names, a seed's
    value is the mean. A bound: ``measure`` of every run of ``first`` lies within ``at_least`` and ``at_most``.
    """

    says: str
    measure: str
    """A metric's last value, or ``drawdown|rise|area|peak|roughness of METRIC``, of its curve."""
    first: Cell = {}
    than: Cell | float | None = None
    """Other runs, or a number."""
    direction: Literal["above", "below", "equal"] = "above"
    least: float = 0.0
    """The smallest difference that would matter."""
    within: float = 0.0
    """By so much ``first`` may miss the claimed side: what is asked for is that it is no worse than that. Two that are
    equal may differ by it, to either side."""
    offset: float = 0.0
    """By how much the two are said to differ: the difference is compared with this, not with 0."""
    best: tuple[str, ...] = ()
    """Settings of which each side has its best value, chosen on the even seeds; the odd ones are compared."""
    log: bool = False
    """Whether log₁₀ of the measure is compared. A negative value counts as the claim's ``worst``, which is above 0."""
    at_least: float | None = None
    at_most: float | None = None

    def settings(self) -> list[str]:
        """Those that tell its runs from others."""
        return [*self.first, *(self.than if isinstance(self.than, dict) else ()), *self.best]

    @property
    def bound(self) -> bool:
        """Whether it holds for every run, and needs no test."""
        return self.at_least is not None or self.at_most is not None

    @model_validator(mode="after")
    def _whole(self) -> Part:
        if self.bound == (self.than is not None):
            raise ValueError("has to have either than, or at_least or at_most")
        if self.bound and (odd := self.model_fields_set & COMPARISON):
            raise ValueError(f"{listed(sorted(odd))} says nothing of a bound")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError("at_least must be ≤ at_most")
        if self.least < 0 or self.within < 0:
            raise ValueError("least and within must be ≥ 0; direction says on which side")
        if self.least and self.within:
            raise ValueError("has to have either least or within")
        if self.direction == "equal" and (self.within <= 0 or self.least):
            raise ValueError("direction: equal has to have within, and no least")
        return self


class Claim(_Strict):
    """A claim of the paper."""

    name: str
    title: str
    says: str
    """The paper's statement in our words."""
    section: str
    objective: str
    """What the best value of a setting is chosen by."""
    better: Literal["max", "min"] = "max"
    worst: dict[str, float] = {}
    """Measure that is compared → what a run counts as that failed, diverged, or has none."""
    seeds: int = Field(ge=1)
    """How many pairs: the seeds from 0 up that are run and compared."""
    pairs: str = SEED
    """What two runs of a pair share: their seed, or ``problem.instance`` where no seed changes a run."""
    studies: tuple[tuple[str, ...], ...] = ()
    """Words of ``alphagrad run -m`` for each study."""
    script: str = ""
    """The command that writes the evidence, where no study of the laboratory does."""
    parts: dict[str, Part] = Field(min_length=1)
    needs: int | None = Field(default=None, ge=1)
    """Parts that have to be supported; None: all."""
    unopposed: bool = False
    """Whether it stays undecided where parts speak for both sides."""
    open: str = ""
    """What it would take to settle it, where these runs do not."""

    @model_validator(mode="after")
    def _known(self) -> Claim:
        for measure in self.measures():
            of_curve, found, _ = measure.partition(OF)
            if found and of_curve not in MEASURES:
                raise ValueError(f"{measure}: of a curve there are {listed(MEASURES)}")
        if self.needs is not None and self.needs > len(self.parts):
            raise ValueError(f"needs={self.needs}: has only {len(self.parts)} parts")
        return self

    @model_validator(mode="after")
    def _worst_of_all(self) -> Claim:
        compared = {part.measure for part in self.parts.values() if not part.bound}
        compared |= {self.objective for part in self.parts.values() if part.best}
        if odd := compared ^ set(self.worst):
            raise ValueError(f"worst has to name what is compared, and nothing else; {listed(sorted(odd))} differs")
        for part in self.parts.values():
            if part.log and not part.bound and self.worst[part.measure] <= 0:
                raise ValueError(f"worst of {part.measure} has to be above 0, as log compares its logarithm")
        return self

    def measures(self) -> list[str]:
        """All that its parts compare, and the objective."""
        return list(dict.fromkeys([self.objective, *(part.measure for part in self.parts.values())]))

    @property
    def again(self) -> str:
        """The command that makes its evidence."""
        return self.script or f"alphagrad claims --run {self.name}"

    def tried(self, cell: Cell, setting: str) -> set[str]:
        """The values of a setting that the studies which have such runs give it; empty where none names it."""
        found: set[str] = set()
        for study in self.studies:
            words = {
                word.partition("=")[0]: word.partition("=")[2].replace("null", "None").split(",") for word in study
            }
            has = {name: words.get(name.removesuffix(".name"), words.get(name)) for name in cell}
            if all(given is None or told(cell[name]) in map(told, given) for name, given in has.items()):
                found.update(map(told, words.get(setting, ())))
        return found


@lru_cache(maxsize=10_000, typed=True)
def told(value: object) -> str:
    """A setting's value so that equal ones are equal, whoever wrote them: 1e-3 and 0.001."""
    if isinstance(value, bool):
        return str(value)
    try:
        return repr(float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return str(value)


def names() -> list[str]:
    """Of all claims, C1 first."""
    stems = [file.name.removesuffix(".yaml") for file in _folder().iterdir() if file.name.endswith(".yaml")]
    return sorted(stems, key=lambda stem: (len(stem), stem))


def claim(name: str) -> Claim:
    """The claim of this name, such as ``C3``.

    Raises:
        ConfigError: there is none, or its file is wrong.
    """
    if not re.fullmatch(r"\w+", name) or name not in names():
        raise ConfigError(f"{cut(name)}: no such claim; there are {listed(names())}")
    file = _folder() / f"{name}.yaml"
    try:
        text = file.read_text(encoding="utf-8")
        found: Any = OmegaConf.to_container(OmegaConf.create(text), resolve=True)
        return Claim(name=name, **found)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}".removeprefix(": ") for one in error.errors()]
        raise ConfigError(f"{file}: {squeezed('; '.join(wrong), 500)}") from error
    except (OSError, ValueError, YAMLError, OmegaConfBaseException, TypeError) as error:
        raise ConfigError(f"{file}: {squeezed(error, 500)}") from error


def _folder() -> Any:
    return files("alphagrad.conf") / "claim"
