"""What the end of one stack's process does to the others."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

import pytest

from alphagrad.lab import stacking
from alphagrad.lab.runner import Assignment, Outcome


def killed_or_done(index: int, assignments: Sequence[Assignment]) -> list[Outcome]:
    if assignments[0].title == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return [Outcome({"done": 1.0}) for _ in assignments]


@pytest.mark.parametrize(("processes", "rest"), [(1, 1), pytest.param(2, 2, marks=pytest.mark.slow)])
def test_a_killed_process_costs_its_own_stack_alone(processes: int, rest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacking, "_train", killed_or_done)
    jobs: list[Any] = [
        Assignment({"group": group, "optimizer": {}}, title, "")
        for group, title in enumerate(["killed", *["done"] * rest])
    ]
    killed, *others = stacking.run_stacks(jobs, max_runs=1, processes=processes)
    assert "BrokenProcessPool" in (killed.failure or "")
    assert [outcome.metrics for outcome in others] == [{"done": 1.0}] * rest
