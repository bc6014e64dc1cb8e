"""What the store knows of finished and unfinished runs; reads, never writes, and needs no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from alphagrad.common.cells import cells
from alphagrad.common.errors import ConfigError
from alphagrad.common.words import cut, squeezed
from alphagrad.lab.records.judged import headlines_of, objective_of
from alphagrad.lab.records.lifecycle import Life, life_of, seconds_of
from alphagrad.lab.records.search import CONFIGURATION, FOLDER, JOB_KEY, PARENT, RECIPE, SEED, search
from alphagrad.lab.records.study import KIND, titles_of
from alphagrad.lab.store.connection import open_existing
from alphagrad.lab.store.curves import Curve, as_logged, curves


@dataclass(frozen=True)
class Run:
    """One job as the store has it."""

    id: str
    name: str
    life: Life
    seed: int
    metrics: dict[str, float]
    """Last value of each metric."""
    tags: dict[str, str] = field(repr=False)
    experiment: str = ""
    """Its id."""
    settings: dict[str, str] = field(default_factory=dict, repr=False)
    """Its parameters."""
    seconds: float | None = None
    """That it trained; None of one that has not ended."""


@dataclass(frozen=True)
class Group:
    """Runs that differ in seed alone."""

    label: str
    runs: list[Run]
    """The newest of each job, so one of each seed."""
    earlier: int = 0
    """Earlier runs of the same jobs, which do not count."""
    unfinished: bool = False
    """Whether unfinished ones count, as they stand."""

    def finished(self) -> list[Run]:
        """The runs that count."""
        return [run for run in self.runs if run.life.finished or self.unfinished]

    def values(self, metric: str) -> list[float]:
        """The last values of a metric over the finished runs."""
        return [run.metrics[metric] for run in self.finished() if metric in run.metrics]


@dataclass(frozen=True)
class Comparison:
    """The runs of a study, all runs of an experiment, or a single one, in groups that differ in more than the seed."""

    title: str
    groups: list[Group]

    def runs(self) -> list[Run]:
        """All of them."""
        return [run for group in self.groups for run in group.runs]

    def headlines(self) -> dict[str, int]:
        """The metrics that are worth a column, of all recipes in it, and the digits of their numbers."""
        return {name: digits for run in self.runs() for name, digits in headlines_of(run.tags).items()}

    def objective(self) -> str:
        """The metric that most of its runs are judged by.

        Raises:
            ConfigError: it has no runs.
        """
        counts = Counter(objective_of(run.tags, run.metrics)[0] for run in self.runs())
        if not counts:
            raise ConfigError(f"{self.title}: has no runs yet, so there is nothing to draw")
        return counts.most_common(1)[0][0]


class Results:
    """The runs of a store.

    Args:
        uri: the store.
        experiment: whose runs; None: of all experiments.

    Raises:
        ConfigError: the store or the experiment does not exist.
    """

    def __init__(self, uri: str, experiment: str | None = None) -> None:
        self.client = open_existing(uri)
        self.experiments: list[str] | None = None if experiment is None else [self._named(experiment)]

    @classmethod
    def of(cls, client: Any) -> Results:
        """The runs of the store that this client has open."""
        results = object.__new__(cls)
        results.client, results.experiments = client, None
        return results

    def _named(self, experiment: str) -> str:
        found = self.client.get_experiment_by_name(experiment)
        if found is None:
            names = ", ".join(e.name for e in self.client.search_experiments())
            raise ConfigError(f"tracking.experiment={experiment}: not in this store; there are {squeezed(names, 1000)}")
        return str(found.experiment_id)

    def study(self, run_id: str | None = None) -> Comparison:
        """The multirun or single run with this run id (or a beginning of it); by default the newest multirun.

        Where there is no multirun, all runs are one study.
        """
        return self.comparison(self.named(run_id))

    def comparison(self, parent: Any) -> Comparison:
        """The multirun with this parent run, or the single run that it is; None: all runs there are."""
        if parent is None:
            return Comparison("All runs", grouped(self.runs()))
        own = parent.info
        if KIND not in parent.data.tags:
            (group,) = grouped([parent]) or [Group(own.run_name, [])]
            return Comparison(
                f"Run {own.run_id[:8]}, {life_of(parent).shown}: {own.run_name}", [replace(group, unfinished=True)]
            )
        runs = self.runs(parent)
        with suppress(ConfigError):  # a list that is damaged: they come in the order they started
            titles = list(titles_of(self.client, own.run_id, parent.data.tags.get(FOLDER, "")))
            order = {key: -place for place, key in enumerate(titles)}
            runs.sort(key=lambda run: order.get(run.data.tags.get(JOB_KEY, ""), -len(order)))
        return Comparison(f"Study {own.run_id[:8]}: {own.run_name}", grouped(runs))

    def runs(self, parent: Any = None) -> list[Any]:
        """The runs of a study, or all training runs there are; newest first."""
        if parent is not None:
            return search(self.client, PARENT, parent.info.run_id)
        return [run for run in search(self.client, experiments=self.experiments) if SEED in run.data.tags]

    def studies(self) -> list[Any]:
        """The parent runs of all multiruns, newest first."""
        return search(self.client, KIND, "study", self.experiments)

    def named(self, run_id: str | None = None) -> Any:
        """The parent run of a multirun, or a single run, found as by :meth:`study`; None where there is no multirun."""
        if run_id is None:
            return next(iter(self.studies()), None)
        runs = search(self.client, experiments=self.experiments)
        found = [run for run in runs if run.info.run_id.startswith(run_id)]
        if len(found) != 1:
            raise ConfigError(f"{cut(run_id)}: {len(found)} studies and runs have an id that begins so; give one's")
        return found[0]

    def newest(self) -> Any:
        """The newest multirun or single run; None where there is none."""
        runs = search(self.client, experiments=self.experiments)
        return next((run for run in runs if PARENT not in run.data.tags), None)

    def history(self, run: Run, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of a metric, in order of steps."""
        return self.histories([run], [metric]).get((run.id, metric), (np.array([]), np.array([])))

    def histories(self, runs: Sequence[Run], names: Sequence[str]) -> dict[tuple[str, str], Curve]:
        """(run id, metric) → steps and values, of those that have any."""
        return curves(self.client, [run.id for run in runs], names)


def grouped(found: Sequence[Any]) -> list[Group]:
    """Runs in the order they started, replicas together, labelled by what tells them apart.

    Of the runs of one job, which are equal in configuration and seed, the newest counts.

    Args:
        found: runs of the store, newest first.
    """
    counted: dict[tuple[str, int], Run] = {}
    labels: dict[str, str] = {}
    earlier: Counter[str] = Counter()
    for entry in found:
        tags = entry.data.tags
        if SEED not in tags:
            continue
        info, seed = entry.info, int(tags[SEED])
        label = tags.get(CONFIGURATION, info.run_name)
        key = tags.get("config_hash") or label
        labels.setdefault(key, label)
        if (key, seed) in counted:
            earlier[key] += 1
        else:
            values = {name: as_logged(value) for name, value in entry.data.metrics.items()}
            own = dict(tags), info.experiment_id, dict(entry.data.params), seconds_of(entry)
            counted[key, seed] = Run(info.run_id, info.run_name, life_of(entry), seed, values, *own)
    groups: dict[str, list[Run]] = {}
    for (key, _), run in reversed(counted.items()):
        groups.setdefault(key, []).append(run)
    told = cells([(runs[0].tags.get(RECIPE, ""), labels[key]) for key, runs in groups.items()])
    return [Group(cell, runs, earlier[key]) for cell, (key, runs) in zip(told, groups.items(), strict=True)]
