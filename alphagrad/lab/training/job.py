"""A job as it is handed over to be trained, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from alphagrad.common.cells import in_common, words_of
from alphagrad.lab.records.lifecycle import FINISHED, Life, Standing
from alphagrad.lab.store.address import kept_uri

Pruner = Callable[[int, Mapping[str, float]], str | None]
"""Sees a run's metrics of each step; where it returns a reason, the run is ended as pruned. Pickles."""
ASIDE = ("output_root=", "tracking=", "tracking.", "stack.", "checkpoint.", "study.", "hydra.", "hydra/")
"""Settings of where and how runs are trained and kept, which change no number and no name."""
UNTOLD = ("recipe=", "optimizer=", "experiment=", "seed=", "threads=", "device=", *ASIDE)
"""Settings that a job's title leaves out: they are told elsewhere, or change no number."""


@dataclass(frozen=True)
class Assignment:
    """A job as a launcher hands it over: plain data, so that it can go to another process."""

    config: dict[str, Any]
    """The composed configuration, Hydra's own part and resolution left out."""
    title: str
    """The variant and what the user changed: the label of the job's replicas."""
    folder: str
    """Its output folder."""
    resume: bool = False
    """Whether a run in that folder goes on even if it failed."""
    new_store: bool = False
    """Whether it goes on in a store that does not know it."""
    pruner: Pruner | None = None
    """May end the run early."""

    @property
    def seed(self) -> int:
        """Of the job."""
        return int(self.config.get("seed", 0))

    @property
    def named(self) -> tuple[str, str, int]:
        """Its recipe, title and seed."""
        return str(self.config.get("recipe", {}).get("name", "")), self.title, self.seed


@dataclass(frozen=True)
class Outcome:
    """How a job ended, with the last value of each metric."""

    metrics: dict[str, float] = field(default_factory=dict)
    life: Life = FINISHED
    headline: str = ""
    """The metrics that are worth a place in a line."""
    score: float | None = None
    """By the recipe's objective, larger where it is better."""

    @classmethod
    def failed(cls, reason: str) -> Outcome:
        """That of a job which raised before it measured anything."""
        return cls({}, Life(Standing.FAILED, reason))

    @property
    def told(self) -> str:
        """How it ended, in a line."""
        if self.life.finished:
            return self.headline
        return self.life.reason if self.life.pruned else f"{self.life.word}, {self.life.reason}"

    @property
    def failure(self) -> str | None:
        """Why it did not finish; None if it did."""
        return None if self.life.finished else self.life.reason


def shared_words(jobs: Iterable[tuple[DictConfig, Sequence[str]]]) -> list[str]:
    """What the configurations of all jobs of a study have in common, given each with its settings."""
    return sorted(in_common(words_of(str(c.recipe.name), title_of(c, overrides)) for c, overrides in jobs))


def title_of(config: DictConfig, overrides: Sequence[str]) -> str:
    """The variant and what the user changed."""
    return " ".join([str(config.optimizer.name), *(o for o in overrides if not o.startswith(UNTOLD))])


def assignment_of(config: DictConfig, overrides: Sequence[str], folder: Path) -> Assignment:
    """What a launcher needs to hand over of a composed job."""
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    # where it was, from wherever it goes on; a password stays out of files and messages
    plain["tracking"]["uri"] = kept_uri(plain["tracking"]["uri"], plain["output_root"])
    plain["output_root"] = str(Path(plain["output_root"]).expanduser().resolve())
    own = {str(k): v for k, v in plain.items() if k != "hydra"}
    return Assignment(own, title_of(config, overrides), str(folder))
