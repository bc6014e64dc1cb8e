"""A run that is recorded nowhere: ``tracking=none``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alphagrad.lab.records.lifecycle import FINISHED, Life
from alphagrad.lab.store.bulk import Point


class Untracked:
    """Stands where a :class:`alphagrad.lab.records.run.Tracker` does; its run's folder holds all there is."""

    tracks = False
    run_id = ""
    number: int | None = None

    @contextmanager
    def run(
        self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], resume: str | None = None
    ) -> Iterator[Untracked]:
        yield self

    def another(self) -> Untracked:
        return Untracked()

    def leave(self, run_id: str) -> None:
        pass

    def take_back(self, reason: str) -> None:
        pass

    def end(self, life: Life = FINISHED, seconds: float | None = None) -> None:
        pass

    def counted(self, prefix: str) -> int:
        return 0

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def position(self, step: int, total: int) -> None:
        pass

    def pending(self) -> list[Point]:
        return []

    def send(self, points: Iterable[Point]) -> None:
        pass

    def check(self) -> None:
        pass

    def drain(self) -> None:
        pass

    def artifact(self, path: Path, folder: str | None = None) -> None:
        pass

    def upload(self, path: Path) -> None:
        pass

    def waiting(self) -> list[str]:
        return []

    def has_artifact(self, name: str) -> bool:
        return True
