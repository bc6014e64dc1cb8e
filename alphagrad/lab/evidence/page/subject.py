"""What one part of a report is about: the configurations of one recipe, of one study or several, and their curves."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from alphagrad.common.cells import cells
from alphagrad.harness import metrics
from alphagrad.lab.evidence.figures import direction
from alphagrad.lab.evidence.results import Comparison, Group, Results, Run
from alphagrad.lab.evidence.statistics.curves import Curve
from alphagrad.lab.records.judged import objective_of
from alphagrad.lab.records.search import CONFIGURATION, PARENT, RECIPE

DRAWN, SIGNALS = 10, 5
"""Configurations in one figure at most, and in one of signals, whose bands are wide: the best."""


@dataclass(frozen=True)
class Subject:
    """Groups of one recipe."""

    recipe: str
    groups: list[Group]
    objective: str
    better: str
    """*max* or *min* of it."""
    digits: dict[str, int]
    """Headline metrics, the objective first, and their digits."""
    ids: tuple[str, ...]
    """Of the studies."""
    curves: dict[tuple[str, str], Curve] = field(default_factory=dict, repr=False)

    @property
    def runs(self) -> list[Run]:
        """All of them."""
        return [run for group in self.groups for run in group.runs]

    def present(self) -> list[str]:
        """The headline metrics that a finished run has."""
        return [metric for metric in self.digits if any(group.values(metric) for group in self.groups)]

    def direction(self, metric: str) -> str:
        """*max* or *min* where it is known which is better; empty otherwise."""
        return self.better if metric == self.objective else direction(metric)

    def mean(self, group: Group, metric: str = "") -> float:
        """The mean over a group's finished runs; NaN where there is none."""
        values = group.values(metric or self.objective)
        return float(np.mean(values)) if values else math.nan

    def score(self, group: Group, metric: str = "") -> float:
        """What a group is ranked by: its mean; NaN where a run diverged, whose survivors would decide."""
        return math.nan if diverged(group) else self.mean(group, metric)

    def best(self, metric: str = "") -> Group | None:
        """The group with the best mean, of those of which no run diverged."""
        metric = metric or self.objective
        known = [group for group in self.groups if math.isfinite(self.score(group, metric))]
        direction = self.direction(metric)
        if not known or not direction:
            return None
        return (max if direction == "max" else min)(known, key=lambda group: self.score(group, metric))

    def ranked(self) -> list[Group]:
        """The groups with a finished run, the best first; last those of which a run diverged."""
        sign = -1 if self.better == "max" else 1
        known = [group for group in self.groups if group.values(self.objective)]
        return sorted(known, key=lambda group: _last(sign * self.score(group)))

    def shown(self, most: int = DRAWN) -> list[tuple[int, Group]]:
        """The best groups, for a figure, in their own order, each with the number that gives its line its look."""
        best = [id(group) for group in self.ranked()[:most]]
        return [(place, group) for place, group in enumerate(self.groups) if id(group) in best]

    def outcomes(self, group: Group, metric: str = "") -> dict[int, float]:
        """Seed → last value; of a run that diverged the worst there is."""
        metric = metric or self.objective
        worst = math.inf if self.direction(metric) == "min" else -math.inf
        found = {run.seed: run.metrics[metric] for run in group.finished() if metric in run.metrics}
        return found | {run.seed: worst for run in group.runs if run.life.standing == "diverged"}

    def histories(self, group: Group, metric: str) -> list[Curve]:
        """The curves of the finished runs."""
        return [self.curves[run.id, metric] for run in group.finished() if (run.id, metric) in self.curves]

    def command(self, words: str) -> str:
        """`alphagrad report` of this."""
        return f"alphagrad report {' '.join(one[:8] for one in self.ids)} {words}".replace("  ", " ")


def diverged(group: Group) -> int:
    """How many of its runs did."""
    return sum(run.life.standing == "diverged" for run in group.runs)


def _last(value: float) -> float:
    return math.inf if math.isnan(value) else value


def subjects(results: Results, studies: Sequence[tuple[str, Comparison]]) -> list[Subject]:
    """A part for each recipe, with the curves that it needs.

    Args:
        results: of the store.
        studies: id and runs of each; of several, the configurations are told apart by the study's id, too.
    """
    by_recipe: dict[str, list[tuple[str, Group]]] = {}
    for run_id, study in studies:
        for group in study.groups:
            by_recipe.setdefault(group.runs[0].tags.get(RECIPE, ""), []).append((run_id, group))
    found = [_subject(recipe, own, len(studies) > 1) for recipe, own in by_recipe.items()]
    for subject in found:
        names = sorted({*subject.present(), subject.objective})
        subject.curves.update(results.histories(subject.runs, names))
        drawn = [run for _, group in subject.shown(SIGNALS) for run in group.finished()]
        subject.curves.update(results.histories(drawn, list(signals_of(subject))))
    return found


def _subject(recipe: str, own: list[tuple[str, Group]], several: bool) -> Subject:
    titles = [(recipe, group.runs[0].tags.get(CONFIGURATION, group.label)) for _, group in own]
    told = cells(titles)
    groups = [
        replace(group, label=f"{run_id[:4]}: {cell}" if several and run_id else cell)
        for (run_id, group), cell in zip(own, told, strict=True)
    ]
    study = Comparison(recipe, groups)
    judged = Counter(objective_of(run.tags, run.metrics) for run in study.runs()).most_common(1)[0][0]
    headlines = study.headlines()
    digits = {judged[0]: headlines.get(judged[0], 4)} | headlines
    ids = tuple(dict.fromkeys(run_id or group.runs[0].tags.get(PARENT, "") for run_id, group in own))
    return Subject(recipe, groups, *judged, digits, ids)


def signals_of(subject: Subject) -> dict[str, str]:
    """The metrics of single tensors, or of all of them, that its runs log, each with its quantity."""
    names = sorted({name for run in subject.runs for name in run.metrics})
    return {name: name.partition("/")[0] for name in names if name.partition("/")[0] in metrics.OF_TENSORS}
