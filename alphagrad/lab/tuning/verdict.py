"""How a tuning is judged: its budget, the optimizers that share it, and what each came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig

from alphagrad.common.errors import ConfigError
from alphagrad.common.words import cell, cut
from alphagrad.harness.recipe import Objective
from alphagrad.lab.tuning.spaces import Space

FAILURE = "failure"
"""Attribute of a trial that failed by itself, unlike one that an interruption cut off."""


MOST = 10_000
"""Trials of a search, and searches of an optimizer."""


@dataclass(frozen=True)
class TuningPlan:
    """The budget, equal for all optimizers, and what is searched for."""

    trials: int
    studies: int
    metric: str
    """What a run's last value counts of; empty: the recipe's objective."""
    minimize: bool | None
    """None: as the recipe's objective, if that is the metric; else more is better."""
    sampler: str
    prune: bool

    def of(self, objective: Objective) -> TuningPlan:
        """The plan for a recipe, whose objective fills in what was not said."""
        metric = self.metric or objective.metric
        own = metric == objective.metric and objective.better == "min"
        return replace(self, metric=metric, minimize=own if self.minimize is None else self.minimize)

    def check(self) -> None:
        """Raises :class:`ConfigError` for a budget that is none."""
        for name in ("trials", "studies"):
            if not 1 <= getattr(self, name) <= MOST:
                raise ConfigError(f"--{name}={cut(getattr(self, name))}: must be at least 1 and at most {MOST}")


@dataclass(frozen=True)
class Contender:
    """An optimizer, the overrides of all its trials, and its space."""

    name: str
    overrides: list[str]
    space: Space
    config: DictConfig


@dataclass(frozen=True)
class Verdict:
    """What a contender came to."""

    contender: Contender
    bests: list[float | None]
    """Each study's best value, None without a finished trial."""
    median: float | None
    """The middle one; of an even number the worse of the two, so that it is one that was reached."""
    settings: dict[str, Any]
    """Where it was reached."""
    counts: dict[str, int]
    """Trials finished, pruned and failed."""

    def plain(self) -> dict[str, Any]:
        """What is written of it."""
        space = self.contender.space
        told = {name: getattr(self, name) for name in ("bests", "median", "settings", "counts")}
        return {"optimizer": space.optimizer, "space": space.plain(), **told}


def spent_trials(study: Any) -> list[Any]:
    """The trials that count against the budget: all that ended by themselves."""
    from optuna.trial import TrialState

    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    return [t for t in study.get_trials(deepcopy=False) if t.state in ended or FAILURE in t.user_attrs]


def judge(contender: Contender, studies: Sequence[Any], plan: TuningPlan) -> Verdict:
    """The median over the searches (Optuna's studies) of the best among each one's first ``plan.trials`` trials."""
    from optuna.trial import TrialState

    sign = -1 if plan.minimize else 1
    bests: list[tuple[float, dict[str, Any]] | None] = []
    counts = dict.fromkeys(("finished", "pruned", "failed"), 0)
    names = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
    for study in studies:
        spent = spent_trials(study)[: plan.trials]
        for trial in spent:
            counts[names[trial.state]] += 1
        complete = [t for t in spent if t.state == TrialState.COMPLETE]
        best = max(complete, key=lambda t: sign * t.value, default=None)
        bests.append(None if best is None else (best.value, dict(best.params)))
    ordered = sorted(bests, key=lambda b: float("-inf") if b is None else sign * b[0])
    middle = ordered[(len(ordered) - 1) // 2]
    median, settings = (None, {}) if middle is None else middle
    return Verdict(contender, [None if b is None else b[0] for b in bests], median, settings, counts)


def verdict_table(verdicts: Sequence[Verdict], plan: TuningPlan) -> Any:
    """The verdicts as a table, best median first."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    sign = -1 if plan.minimize else 1
    caption = (
        f"{plan.studies} searches of {plan.trials} trials each in a space of {verdicts[0].contender.space.shown()}"
    )
    shown = Table(caption=cell(caption), box=SIMPLE_HEAD, pad_edge=False)
    headings = ("optimizer", "finished/pruned/failed", f"best {plan.metric} of each search", "median", "its settings")
    for heading in headings:
        shown.add_column(cell(heading), overflow="fold")
    ordered = sorted(verdicts, key=lambda v: float("inf") if v.median is None else -sign * v.median)
    for v in ordered:
        bests = " ".join("–" if best is None else f"{best:.4g}" for best in v.bests)
        settings = " ".join(f"{k}={x:.3g}" if isinstance(x, float) else f"{k}={x}" for k, x in v.settings.items())
        counts = "/".join(str(v.counts[name]) for name in ("finished", "pruned", "failed"))
        median = "–" if v.median is None else f"{v.median:.4g}"
        shown.add_row(*map(cell, (v.contender.name, counts, bests, median, settings)))
    return shown
