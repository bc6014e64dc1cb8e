"""The jobs of a command, from their check to the sweeper that hands them out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from omegaconf import DictConfig

from alphagrad.common.cells import differing, in_common
from alphagrad.lab.config.overrides import HYDRA


@dataclass(frozen=True)
class CheckedJob:
    """A job that was composed and checked: its settings as they were given, and its configuration."""

    words: tuple[str, ...]
    config: DictConfig


class Jobs(dict[str, CheckedJob]):
    """Key (:func:`alphagrad.lab.config.compose.job_key`) → job; of equal jobs the last stands for all."""

    def titles(self) -> dict[str, str]:
        """Key → the settings that tell the job from the others."""
        common = in_common(job.words for job in self.values())
        return {key: differing(job.words, common, " ".join(job.words)) for key, job in self.items()}

    @contextmanager
    def handed_out(self, without: Set[str] = frozenset()) -> Iterator[None]:
        """Within it :func:`to_run` gives these jobs, but not those whose keys are in ``without``."""
        left = [job.words for key, job in self.items() if key not in without]
        token = _HANDED_OUT.set([[word for word in words if not word.startswith(HYDRA)] for words in left])
        try:
            yield
        finally:
            _HANDED_OUT.reset(token)


_HANDED_OUT: ContextVar[Sequence[list[str]]] = ContextVar("jobs")


def to_run() -> list[list[str]]:
    """The settings of the jobs that Hydra is to run now, Hydra's own left out; Hydra has no other way to be told."""
    return list(_HANDED_OUT.get())
