"""What the store knows of finished and unfinished runs; reads, never writes, and needs no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alphagrad.common.errors import ConfigError
from alphagrad.common.words import cut, squeezed
from alphagrad.lab.records.judged import headlines_of, objective_of
from alphagrad.lab.records.lifecycle import Life, life_of
from alphagrad.lab.records.search import CONFIGURATION, PARENT, SEED, search
from alphagrad.lab.records.study import KIND
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


@dataclass(frozen=True)
class Group:
    """Runs that differ in seed alone."""

    label: str
    runs: list[Run]
    """The newest of each job, so one of each seed."""
    earlier: int = 0
    """Earlier runs of the same jobs, which do not count."""

    def finished(self) -> list[Run]:
        """The runs that count."""
        return [run for run in self.runs if run.life.finished]

    def values(self, metric: str) -> list[float]:
        """The last values of a metric over the finished runs."""
        return [run.metrics[metric] for run in self.finished() if metric in run.metrics]


@dataclass(frozen=True)
class Comparison:
    """The runs of a study, or all single runs of an experiment, in groups that differ in more than the seed."""

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
        """The multirun with this parent run id (or a beginning of it); by default the newest one.

        Where there is no multirun, all runs are one study.
        """
        parent = self.parent(run_id)
        title = "all runs" if parent is None else f"{parent.info.run_name} ({parent.info.run_id[:8]})"
        return Comparison(title, grouped(self.runs(parent)))

    def runs(self, parent: Any = None) -> list[Any]:
        """The runs of a study, or all training runs there are; newest first."""
        if parent is not None:
            return search(self.client, PARENT, parent.info.run_id)
        return [run for run in search(self.client, experiments=self.experiments) if SEED in run.data.tags]

    def studies(self) -> list[Any]:
        """The parent runs of all multiruns, newest first."""
        return search(self.client, KIND, "study", self.experiments)

    def parent(self, run_id: str | None = None) -> Any:
        """The parent run of a multirun, found as by :meth:`study`; None where there is none."""
        parents = self.studies()
        if run_id is not None:
            parents = [p for p in parents if p.info.run_id.startswith(run_id)]
            if len(parents) != 1:
                raise ConfigError(
                    f"{cut(run_id)}: {len(parents)} studies have a run id that begins so; give one study's"
                )
        return parents[0] if parents else None

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
            counted[key, seed] = Run(info.run_id, info.run_name, life_of(entry), seed, values, dict(tags))
    groups: dict[str, list[Run]] = {}
    for (key, _), run in reversed(counted.items()):
        groups.setdefault(key, []).append(run)
    words = [set(label.split()) for label in labels.values()]
    shared = set.intersection(*words) if len(words) > 1 else set()

    def told(label: str) -> str:
        return " ".join(word for word in label.split() if word not in shared) or label

    return [Group(told(labels[key]), runs, earlier[key]) for key, runs in groups.items()]
