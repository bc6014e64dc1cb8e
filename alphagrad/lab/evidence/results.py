"""What the store knows of finished and unfinished runs; reads, never writes, and needs no torch."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from alphagrad.common.errors import ConfigError
from alphagrad.common.words import cut, squeezed
from alphagrad.lab.records.judged import headlines_of, objective_of
from alphagrad.lab.records.lifecycle import Life, life_of
from alphagrad.lab.records.search import FOLDER, JOB_KEY, PARENT, search
from alphagrad.lab.records.study import KIND, titles_of
from alphagrad.lab.store.connection import open_existing


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
    """The runs of one experiment in a store.

    Raises:
        ConfigError: the store or the experiment does not exist.
    """

    def __init__(self, uri: str, experiment: str) -> None:
        self.client = open_existing(uri)
        found = self.client.get_experiment_by_name(experiment)
        if found is None:
            names = ", ".join(e.name for e in self.client.search_experiments())
            raise ConfigError(f"tracking.experiment={experiment}: not in this store; there are {squeezed(names, 1000)}")
        self.experiment_id = found.experiment_id

    def study(self, run_id: str | None = None) -> Comparison:
        """The multirun or single run with this run id (or a beginning of it); by default the newest multirun.

        An experiment without a multirun is one study of all its runs.
        """
        parent = self.named(run_id)
        if parent is None:
            return Comparison("All runs", grouped(search(self.client, self.experiment_id)))
        own = parent.info
        if KIND not in parent.data.tags:
            (group,) = grouped([parent]) or [Group(own.run_name, [])]
            return Comparison(
                f"Run {own.run_id[:8]}, {life_of(parent).shown}: {own.run_name}", [replace(group, unfinished=True)]
            )
        runs = search(self.client, own.experiment_id, PARENT, own.run_id)
        with suppress(ConfigError):  # a list that is damaged: they come in the order they started
            titles = list(titles_of(self.client, own.run_id, parent.data.tags.get(FOLDER, "")))
            order = {key: -place for place, key in enumerate(titles)}
            runs.sort(key=lambda run: order.get(run.data.tags.get(JOB_KEY, ""), -len(order)))
        return Comparison(f"Study {own.run_id[:8]}: {own.run_name}", grouped(runs))

    def named(self, run_id: str | None = None) -> Any:
        """The parent run of a multirun, or a single run, found as by :meth:`study`; None where there is no multirun."""
        if run_id is None:
            return next(iter(search(self.client, self.experiment_id, KIND, "study")), None)
        runs = search(self.client, self.experiment_id)
        found = [run for run in runs if run.info.run_id.startswith(run_id)]
        if len(found) != 1:
            raise ConfigError(f"{cut(run_id)}: {len(found)} studies and runs have an id that begins so; give one's")
        return found[0]

    def newest(self) -> Any:
        """The newest multirun or single run; None in an empty experiment."""
        runs = search(self.client, self.experiment_id)
        return next((run for run in runs if PARENT not in run.data.tags), None)

    def history(self, run: Run, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of a metric, in order of steps."""
        points = sorted((m.step, as_logged(m.value)) for m in self.client.get_metric_history(run.id, metric))
        return np.array([s for s, _ in points]), np.array([v for _, v in points])


def as_logged(value: float) -> float:
    """A metric's value as the run had it: a store has ±1.797e308, the largest number there is, for ±infinity."""
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value


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
        if "seed" not in tags:
            continue
        info, seed = entry.info, int(tags["seed"])
        label = tags.get("configuration", info.run_name)
        key = tags.get("config_hash") or label
        labels.setdefault(key, label)
        if (key, seed) in counted:
            earlier[key] += 1
        else:
            values = {name: as_logged(value) for name, value in entry.data.metrics.items()}
            counted[key, seed] = Run(info.run_id, info.run_name, life_of(entry), seed, values, dict(tags))
    groups: dict[str, list[Run]] = {}
    for (key, _), run in reversed(counted.items()):
        groups.setdefault(key, []).append(run)
    words = [set(label.split()) for label in labels.values()]
    shared = set.intersection(*words) if len(words) > 1 else set()

    def told(label: str) -> str:
        return " ".join(word for word in label.split() if word not in shared) or label

    return [Group(told(labels[key]), runs, earlier[key]) for key, runs in groups.items()]
