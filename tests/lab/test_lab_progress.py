"""Progress where nobody watches a terminal."""

from __future__ import annotations

import io
import itertools
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress as Bars

from alphagrad.lab.launching import board as boards
from alphagrad.lab.launching.board import Board, Reporter, Reports, inside, names_of
from alphagrad.lab.training import cpu, progress
from alphagrad.lab.training.progress import ShortLines, rate


@pytest.fixture
def clock(monkeypatch):
    """Seconds, as the lines have them; to be set."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_come_soon_and_then_ever_more_rarely(clock, capsys):
    line = ShortLines("lm adamw")
    line.start(3000)
    for step in range(0, 500, 2):
        line.update(step, f"loss {step}")
        clock[0] += 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == [
        "lm adamw: begins, 3,000 steps",
        "lm adamw: 10 of 3,000 (0 %), 2 steps/s, 0:24:55 left, loss 10",
        "lm adamw: 30 of 3,000 (1 %), 2 steps/s, 0:24:45 left, loss 30",
    ]
    steps = [int(told.split()[2]) for told in lines[1:]]
    assert [b - a for a, b in itertools.pairwise(steps)] == [20, 40, 80, 120, 120]  # 10, 20, 40, 60, 60 s


def test_what_a_run_went_on_from_is_not_counted_as_its_speed(clock, capsys):
    line = ShortLines("run")
    line.start(1000)
    line.update(900, "resumed")
    clock[0] += 60
    line.update(960, "")
    clock[0] += 60
    line.update(960, "")
    assert capsys.readouterr().err.splitlines()[1:] == [
        "run: 960 of 1,000 (96 %), 1 steps/s, 0:00:40 left",
        "run: 960 of 1,000 (96 %), 0 steps/s",
    ]


LONG = "dqn_cartpole sin_tanh recipe.total_steps=3000 recipe.learning_starts=200 alpha.value=93 seed=7"


def test_a_line_is_short_and_elides_the_title(clock, capsys):
    line = ShortLines(LONG)
    line.start(500_000)
    for step in (0, 123_456):
        line.update(step, "return 35")
        clock[0] += 61
    line.note("compiling (first time, about 12 s)")
    for told in capsys.readouterr().err.splitlines():
        assert len(told) <= 80
        assert told.startswith("dqn_cart")
        assert "seed=7" in told
    clock[0] += 61


@pytest.mark.parametrize("width", [40, 60, 79, 200])
def test_the_line_that_moves_loses_its_title_first(width):
    bars = Bars(disable=True)
    number = bars.add_task(LONG, total=1000, completed=450, shown="return 35", steps=True, left=3748.0)
    (task,) = bars.tasks
    assert task.id == number
    lab_speed = progress.fitted(LONG, " 45 %  1,250 steps/s  1:02:28 left", "return 35", width)
    told = progress.Lines.line(task, width)
    for whole in (" 45 %", "1:02:28 left"):
        assert whole in told
        assert whole in lab_speed
    assert "1,250 steps/s" in lab_speed
    assert len(told) <= width
    assert len(lab_speed) <= width
    assert ("…" in told) == (width < 130)


@given(st.text(max_size=120), st.text(min_size=1, max_size=30), st.text(max_size=30), st.integers(1, 200))
def test_what_is_told_is_never_cut(title, told, shown, width):
    line = progress.fitted(title, told, shown, width)
    assert told in line
    assert len(line) <= max(width, len(told) + 2)


class Full(io.StringIO):
    """A file on a disk that is full."""

    refused = 0

    def flush(self) -> None:
        self.refused += 1
        raise OSError(28, "No space left on device")


def test_a_log_that_takes_no_more_does_not_end_the_run(clock, monkeypatch):
    line = ShortLines("run")
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


def test_a_run_whose_output_is_kept_tells_how_far_it_is(cli, odd, root, monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    done = cli("run", "recipe=odd", "recipe.total_steps=4", "recipe.pause=0.3", "seed=3", f"output_root={root}")
    assert done.status == 0
    title = "odd alphagrad recipe.total_steps=4 recipe.pause=0.3 seed=3"
    assert f"{title}: begins, 4 steps" in done.err
    assert "seed=3: 2 of 4 (50 %), " in done.err
    assert done.out.splitlines()[0].startswith(f"{title}: eval/return ")
    assert done.out.splitlines()[1].startswith(f"in {root}")


@pytest.mark.parametrize("launcher", ["stacked", "basic", "joblib", "submitit_local", "ray"])
@pytest.mark.long
def test_a_study_tells_how_far_it_is(cli, odd, root, monkeypatch, launcher):
    """How many jobs are done, who trains, and the time left for all; at the end of each its configuration and seed."""
    needs = {"joblib": "joblib", "submitit_local": "submitit", "ray": "ray"}
    if launcher in needs:
        pytest.importorskip(needs[launcher])
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    monkeypatch.setattr(boards, "REPORT_SECONDS", 0.1)
    extra = {"stacked": "stack.processes=1", "submitit_local": "hydra.launcher.array_parallelism=1"}
    words = ("recipe=odd", "optimizer=adam,sgd", "seed=5", "recipe.total_steps=8", "recipe.pause=0.3")
    given = [extra[launcher]] if launcher in extra else []
    done = cli("run", "-m", f"hydra/launcher={launcher}", *words, *given, f"output_root={root}")
    assert done.status == 0, done.err
    told, *lines = [line for line in done.err.splitlines() if " jobs, " in line]
    assert told.startswith("alphagrad: 2 jobs, in ")
    assert all(len(line) <= 80 for line in lines)
    assert lines[0].startswith("0/2 jobs, ")
    assert any(" left; " in line for line in lines)
    assert any("adam" in line and "seed" in line for line in lines)
    assert "#" not in done.out
    assert "HYDRA" not in done.out
    for name in ("adam seed=5: eval/return ", "sgd seed=5: eval/return "):
        assert any(line.startswith(name) for line in done.out.splitlines())
    assert not list(root.rglob(boards.REPORTS))


def test_who_is_inside():
    titles = ["adam recipe.gamma=1", "sin_tanh recipe.gamma=1 alpha.value=9", "adam recipe.gamma=1"]
    names = names_of([("lm", title, seed) for title, seed in zip(titles, [0, 0, 1], strict=True)])
    assert names == ["adam seed=0", "sin_tanh alpha.value=9 seed=0", "adam seed=1"]
    assert inside(names) == "3 runs: adam, sin_tanh alpha.value=9, seeds 0-1"
    assert inside(names[:1]) == "adam seed=0"
    assert inside(["adam seed=2", "adam seed=10", "sign seed=0"]) == "3 runs: adam, sign, seeds 0-10"
    assert inside(["a seed=0", "b seed=0", "c seed=0"]) == "3 runs: a and 2 more, seed 0"


def test_the_time_left_for_a_study(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(boards.time, "monotonic", lambda: now[0])
    board = Board(["a", "b"], [1, 3])
    with board:
        now[0] = 50.0  # workers start
        assert board.left is None
        board.start(0, 100)
        now[0] = 60.0
        board.update(0, 50, "")
        assert (board.done, board.share, board.told()) == (0, 0.125, "0/4 jobs, 12 %, 0:01:10 left")
        board.ended(0)
        assert board.told() == "1/4 jobs, 25 %, 0:00:30 left"


def test_reports_of_other_processes_come_through_files(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(boards, "REPORT_SECONDS", 0.01)
    board = Board(["adam seed=1"], [1])
    with board, Reports(board, tmp_path, 1) as reports:
        worker = Reporter(reports.files[0])
        worker.start(10)
        worker.note("compiling")
        worker.update(1, "")
        progress.time.sleep(0.05)
        worker.update(5, "loss 1")
        for _ in range(200):
            if board.share == 0.5:
                break
            progress.time.sleep(0.02)
        assert board.share == 0.5
    assert "adam seed=1: compiling" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    Reporter(str(tmp_path / "nowhere/0.json")).start(3)  # shows nothing, and ends nothing


def test_compiling_is_told(tmp_path, monkeypatch):
    class Compiled:
        compiles = True

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    assert cpu.compiling(Compiled()) == "compiling (first time, about 12 s)"
    (tmp_path / "kept").touch()
    assert cpu.compiling(Compiled()) == "compiling"
    assert cpu.compiling(object()) == ""


def test_on_a_terminal_a_line_comes_at_once(monkeypatch, cli):
    """Before what takes seconds to import."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert cli("run", "seed=x").err.splitlines()[0] == "alphagrad: composing"
    assert "composing" not in cli("run", "--cfg", "job").err
    assert "composing" not in cli("ls").err
