"""How a run stands and how it ends: the one place that knows which runs are over and which can go on."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

REASON = "alphagrad.reason"
"""Tag that says why a run did not finish, for people."""
STANDING = "alphagrad.standing"
"""Tag with the :class:`Standing` of a run that has ended."""
PAUSED = "alphagrad.paused_seconds"
"""Tag: how long a run that was stopped did not train, all its pauses together."""


class Standing(StrEnum):
    """How a run stands, or how it ended."""

    MISSING = "missing"
    """A job of a study that has no run."""
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    """Something raised."""
    DIVERGED = "diverged"
    """Its loss or its parameters are not finite."""
    PRUNED = "pruned"
    """A tuning ended it, because others are better."""
    STOPPED = "stopped"
    """By a signal, a store or disk that gave out, or the death of its process."""
    TAKEN_BACK = "taken back"
    """Deleted from the store, by its stack, whose runs are trained anew, or by the user."""


_STATUS = {
    Standing.FAILED: "FAILED",
    Standing.DIVERGED: "FAILED",
    Standing.PRUNED: "KILLED",
    Standing.STOPPED: "KILLED",
    Standing.TAKEN_BACK: "KILLED",
}
"""MLflow's word, where it is not the standing itself."""
_MEANT = {"FINISHED": Standing.FINISHED, "FAILED": Standing.FAILED, "KILLED": Standing.STOPPED}
"""What MLflow's word alone means; any other one is a run that trains."""


STATUSES = ("RUNNING", "FAILED", "KILLED", "MISSING", "FINISHED")
"""MLflow's words, and MISSING; those that need a look come first."""
SHOWN = {"MISSING": "not begun"}
"""What people are told, where it is not the word itself."""


@dataclass(frozen=True)
class Life:
    """How a run stands, and why it did not finish, in a line."""

    standing: Standing
    reason: str = ""

    @property
    def status(self) -> str:
        """MLflow's word for it; MISSING for a job without a run."""
        return _STATUS.get(self.standing, self.standing.upper())

    @property
    def word(self) -> str:
        """One for people: *failed* of one that diverged, too."""
        return "failed" if self.failed else str(self.standing)

    @property
    def shown(self) -> str:
        """Its status, for people: *killed* of one that was stopped or pruned."""
        return SHOWN.get(self.status, self.status.lower())

    @property
    def begun(self) -> bool:
        """Whether there is a run."""
        return self.standing is not Standing.MISSING

    @property
    def finished(self) -> bool:
        """Whether it trained to its end."""
        return self.standing is Standing.FINISHED

    @property
    def failed(self) -> bool:
        """Whether it ended by its own fault: something raised, or it diverged."""
        return self.standing in (Standing.FAILED, Standing.DIVERGED)

    @property
    def pruned(self) -> bool:
        """Whether a tuning ended it."""
        return self.standing is Standing.PRUNED

    @property
    def running(self) -> bool:
        """Whether it trains, as far as its record knows."""
        return self.standing is Standing.RUNNING

    @property
    def taken_back(self) -> bool:
        """Whether it was deleted from the store."""
        return self.standing is Standing.TAKEN_BACK

    @property
    def over(self) -> bool:
        """Whether it can never go on, whoever asks for it."""
        return self.standing in (Standing.FINISHED, Standing.DIVERGED, Standing.PRUNED, Standing.TAKEN_BACK)

    @property
    def can_go_on(self) -> bool:
        """Whether it goes on by itself when its job is started again: it was stopped, or trains as far as is known."""
        return self.standing in (Standing.RUNNING, Standing.STOPPED)

    def plain(self) -> dict[str, str]:
        """As a saved state holds it; :func:`life_in` reads it."""
        return {"standing": str(self.standing), "reason": self.reason}


FINISHED = Life(Standing.FINISHED)
DEAD = Life(Standing.STOPPED, "its process ended without a word")


def life_of(run: Any) -> Life:
    """How a run of the store stands.

    A run that an earlier alphagrad recorded has no :data:`STANDING`; its status and reason say it then.
    """
    status, tags = run.info.status, run.data.tags
    reason = tags.get(REASON, "")
    if run.info.lifecycle_stage != "active":
        return Life(Standing.TAKEN_BACK, reason or "deleted from the store")
    noted = tags.get(STANDING)
    if noted not in list(Standing):
        return _earlier(status, reason)
    life = Life(Standing(noted), reason)
    if life.status == status and not life.taken_back:
        return life
    return Life(_MEANT.get(status, Standing.RUNNING), reason)  # somebody has changed it since, or restored the run


def life_in(kept: Mapping[str, str] | str) -> Life:
    """How a run stood that a saved state tells of; states of an earlier alphagrad hold the reason alone."""
    if isinstance(kept, str):
        return FINISHED if kept == "FINISHED" else _earlier("FAILED", kept)
    return Life(Standing(kept["standing"]), kept["reason"])


def _earlier(status: str, reason: str) -> Life:
    """What an earlier alphagrad's record meant, whose reasons began with how the run ended."""
    for standing in (Standing.DIVERGED, Standing.PRUNED):
        if reason.startswith(standing):
            return Life(standing, reason)
    return Life(_MEANT.get(status, Standing.RUNNING), reason)


def note_end(client: Any, run_id: str, life: Life) -> None:
    """Writes how a run ended into the store."""
    client.set_tag(run_id, STANDING, str(life.standing))
    if life.reason:
        client.set_tag(run_id, REASON, life.reason)
    client.set_terminated(run_id, status=life.status)


def note_beginning(client: Any, run: Any, moments: Iterable[int]) -> None:
    """Marks a run of the store as one that trains again, and notes for how long it did not.

    Args:
        client: of the store.
        run: as it stands.
        moments: of its metrics, in ms. The last one is when it stopped, where its process ended without a word.
    """
    info, tags = run.info, run.data.tags
    told = info.end_time and life_of(run) != DEAD and not life_of(run).running
    last = info.end_time if told else max([info.start_time, *moments])
    paused = _paused(run) + max(0.0, time.time() - last / 1000)
    client.set_tag(info.run_id, PAUSED, f"{paused:.3f}")
    client.update_run(info.run_id, status="RUNNING")
    for tag in (STANDING, REASON):
        if tag in tags:
            client.delete_tag(info.run_id, tag)  # what stopped it before


def seconds_of(run: Any, now: float | None = None) -> float | None:
    """For how long a run trained: from its start to its end, less the pauses before it went on.

    Args:
        run: of the store.
        now: the end of one that has not ended, in seconds of the clock; without it there is None for such a run.
    """
    end = now if life_of(run).running else (run.info.end_time or 0) / 1000 or now
    return None if end is None else max(0.0, end - run.info.start_time / 1000 - _paused(run))


def _paused(run: Any) -> float:
    return float(run.data.tags.get(PAUSED, 0.0))
