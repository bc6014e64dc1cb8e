"""Progress where nobody watches a terminal."""

from __future__ import annotations

import io

import pytest

from alphagrad.lab.training import progress
from alphagrad.lab.training.progress import LineAMinute, rate


@pytest.fixture
def clock(monkeypatch):
    """Seconds, as the lines have them; to be set."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_a_minute(clock, capsys):
    line = LineAMinute("lm adamw")
    line.start(3000)
    for step in range(0, 300, 10):
        line.update(step, f"loss {step}")
        clock[0] += 5
    assert capsys.readouterr().err.splitlines() == [
        "lm adamw: step 120 of 3,000 (4 %), 2 steps/s, 0:24:00 left, loss 120",
        "lm adamw: step 240 of 3,000 (8 %), 2 steps/s, 0:23:00 left, loss 240",
    ]


def test_what_a_run_went_on_from_is_not_counted_as_its_speed(clock, capsys):
    line = LineAMinute("run")
    line.start(1000)
    line.update(900, "resumed")
    clock[0] += 60
    line.update(960, "")
    clock[0] += 60
    line.update(960, "")
    assert capsys.readouterr().err.splitlines() == [
        "run: step 960 of 1,000 (96 %), 1 steps/s, 0:00:40 left",
        "run: step 960 of 1,000 (96 %), 0 steps/s",
    ]


class Full(io.StringIO):
    """A file on a disk that is full."""

    refused = 0

    def flush(self) -> None:
        self.refused += 1
        raise OSError(28, "No space left on device")


def test_a_log_that_takes_no_more_does_not_end_the_run(clock, monkeypatch):
    line = LineAMinute("run")
    line.start(100)
    full = Full()
    monkeypatch.setattr(progress.sys, "stderr", full)
    for step in range(3):
        line.update(step, "")
        clock[0] += 60
    assert full.refused == 2


@pytest.mark.parametrize(("speed", "shown"), [(0.6345, "0.63"), (9.96, "10"), (12.4, "12"), (1250.3, "1,250")])
def test_a_slow_run_has_a_rate_too(speed, shown):
    assert rate(speed) == f"{shown} steps/s"


@pytest.mark.parametrize(
    ("launcher", "title"),
    [
        ((), "odd alphagrad recipe.total_steps=4 recipe.pause=0.3"),
        (("-m", "hydra/launcher=stacked", "seed=0,1", "stack.processes=1"), "stack 1/1, 2 runs"),
    ],
)
def test_a_run_whose_output_is_kept_tells_how_far_it_is(cli, odd, root, monkeypatch, launcher, title):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    done = cli("run", *launcher, "recipe=odd", "recipe.total_steps=4", "recipe.pause=0.3", f"output_root={root}")
    assert done.status == 0
    assert f"{title}: step 2 of 4 (50 %), " in done.err
