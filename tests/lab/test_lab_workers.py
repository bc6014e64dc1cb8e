"""What the end of one stack's process does to the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest

from alphagrad.lab.launching.workers import run_stacks
from alphagrad.lab.training.job import Assignment, Outcome
from alphagrad.lab.training.progress import Progress


def killed_or_done(assignments: Sequence[Assignment], line: Progress) -> list[Outcome]:
    if assignments[0].title == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return [Outcome({"done": 1.0}) for _ in assignments]


@pytest.mark.parametrize(("processes", "rest"), [(1, 1), pytest.param(2, 2, marks=pytest.mark.slow)])
def test_a_killed_process_costs_its_own_stack_alone(processes: int, rest: int) -> None:
    jobs: list[Any] = [
        Assignment({"group": group, "optimizer": {}}, title, "")
        for group, title in enumerate(["killed", *["done"] * rest])
    ]
    killed, *others = run_stacks(jobs, max_runs=1, processes=processes, train=killed_or_done)
    assert "its process ended without a result, with status -9" in (killed.failure or "")
    assert [outcome.metrics for outcome in others] == [{"done": 1.0}] * rest


def whose(assignments: Sequence[Assignment], line: Progress) -> list[Outcome]:
    """Each run's outcome tells its process; one whose time has come is killed while it has nothing to do."""
    if assignments[0].title == "killed afterwards":
        stop = f"import os, time; time.sleep(0.5); os.kill({os.getpid()}, {int(signal.SIGKILL)})"
        subprocess.Popen([sys.executable, "-c", stop])
    return [Outcome({"process": float(os.getpid())}) for _ in assignments]


def test_a_process_trains_one_stack_after_the_other() -> None:
    train = whose
    jobs: list[Any] = [Assignment({"group": group, "optimizer": {}}, "", "") for group in range(3)]
    outcomes = run_stacks(jobs, max_runs=1, processes=1, train=train)
    assert len({outcome.metrics["process"] for outcome in outcomes}) == 1


@pytest.mark.long
def test_a_process_killed_between_two_stacks_costs_none() -> None:
    train = whose
    jobs: list[Any] = [
        Assignment({"group": group, "optimizer": {}}, title, "")
        for group, title in enumerate(["killed afterwards", "", ""])
    ]

    def slow(told: Any) -> bool:
        time.sleep(2)
        return False

    outcomes = run_stacks(jobs, max_runs=1, processes=1, ended=slow, train=train)
    first, *others = [outcome.metrics["process"] for outcome in outcomes]
    assert len(set(others)) == 1
    assert first not in others


def whose_it_fails(assignments: Sequence[Assignment], line: Progress) -> list[Outcome]:
    raise ValueError(os.getpid())


def test_a_job_that_fails_leaves_its_process_to_the_next() -> None:
    """Each that waits would hold its memory to the study's end."""
    train = whose_it_fails
    jobs: list[Any] = [Assignment({"group": group, "optimizer": {}}, "", "") for group in range(3)]
    outcomes = run_stacks(jobs, max_runs=1, processes=1, train=train)
    assert len({outcome.failure for outcome in outcomes}) == 1
    assert "ValueError" in (outcomes[0].failure or "")


def signalled(assignments: Sequence[Assignment], line: Progress) -> list[Outcome]:
    if assignments[0].title == "signalled":
        with suppress(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        raise SystemExit(143)
    return [Outcome({"process": float(os.getpid())}) for _ in assignments]


def test_a_signal_to_one_process_costs_its_own_stack_alone() -> None:
    """It can go on, and no other stack is sent to the process that ends."""
    jobs: list[Any] = [
        Assignment({"group": group, "optimizer": {}}, title, "") for group, title in enumerate(["signalled", "", ""])
    ]
    first, *others = run_stacks(jobs, max_runs=1, processes=1, train=signalled)
    assert first.life.can_go_on
    assert all(outcome.life.finished for outcome in others)
    assert len({outcome.metrics["process"] for outcome in others}) == 1


class Stuck:
    def __reduce__(self) -> Any:
        raise TypeError("does not travel")


def what_does_not_travel(assignments: Sequence[Assignment], line: Progress) -> list[Outcome]:
    return [Outcome({"x": Stuck()}) for _ in assignments]  # type: ignore[dict-item]


def test_what_cannot_be_sent_is_told() -> None:
    jobs: list[Any] = [Assignment({"group": group, "optimizer": {}}, "", "") for group in range(2)]
    assert all("does not travel" in (o.failure or "") for o in run_stacks(jobs, 1, 1, train=what_does_not_travel))
    jobs = [Assignment({"group": 0, "optimizer": {}}, "", "", pruner=Stuck())]  # type: ignore[arg-type]
    (outcome,) = run_stacks(jobs, 1, 1, train=whose)
    assert "does not travel" in (outcome.failure or "")
