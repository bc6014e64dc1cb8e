"""`status`, `report`, `ls` and `alpha` in a narrow terminal and in a pipe."""

from __future__ import annotations

import io
import re
import sys

import pytest

from alphagrad.lab.evidence import figures, tables
from alphagrad.lab.evidence.status import left_of_all, summary
from alphagrad.lab.records.lifecycle import FINISHED, Life, Standing
from alphagrad.lab.records.study import JobState

RUNNING, WAITING = Life(Standing.RUNNING), Life(Standing.MISSING)
LONG = ("optimizer=sin_tanh,adam", "optimizer_defaults.lr=0.001,0.0003", "recipe.total_steps=4", "seed=1,0")


@pytest.fixture
def study(cli, odd, root):
    """A study of eight jobs, its output folder and its id."""
    assert cli("run", "-m", "recipe=odd", *LONG, f"output_root={root}").status == 0
    told = cli("status", "--output-root", str(root)).out
    return root, re.match(r"Study (\w{8}), finished: ", told)[1]


@pytest.mark.long
def test_no_id_and_no_number_is_broken(cli, lab, study):
    root, run_id = study
    whole = {}
    for width in ("", "80", "40"):
        lab.setenv("COLUMNS", width)
        for command in ("status", "report"):
            told = cli(command, run_id, "--output-root", str(root))
            assert told.status == 0, told.err
            lines = told.out.splitlines()
            assert run_id in lines[0]
            if width == "80":
                assert all(len(line) <= 80 for line in lines if str(root) not in line)
            numbers = set(re.findall(r"(?<![\w./=])-?\d[\d.,:/]*\d(?![\w/])|sin_tanh-seed\d-\w{8}", told.out))
            assert numbers == whole.setdefault(command, numbers)  # as in a pipe, which has no width
    lab.setenv("COLUMNS", "")
    (row,) = [
        line for line in cli("status", "--output-root", str(root)).out.splitlines() if "lr=0.0003 seed=0" in line
    ][:1]
    assert "sin_tanh-seed0-" in row or "adam-seed0-" in row  # in a pipe a row is a line


@pytest.mark.long
def test_rows_keep_the_order_of_the_command_and_say_what_jobs_are_judged_by(cli, lab, study):
    root, _ = study
    lab.setenv("COLUMNS", "")
    lines = cli("status", "--output-root", str(root)).out.splitlines()
    heading = next(line for line in lines if line.startswith(" job"))
    assert "eval/return" in heading
    assert "why" not in heading  # an empty column goes
    assert "left" not in heading
    jobs = [line.split()[:3] for line in lines if " finished " in line]
    rates = ("optimizer_defaults.lr=0.001", "optimizer_defaults.lr=0.0003")
    assert jobs == [[o, r, s] for o in ("sin_tanh", "adam") for r in rates for s in ("seed=1", "seed=0")]
    rows = [line.split()[:2] for line in cli("report", "--output-root", str(root)).out.splitlines() if " 2/2 " in line]
    assert rows == [[o, r] for o in ("sin_tanh", "adam") for r in rates]


@pytest.mark.long
def test_a_single_run_has_a_status_and_a_report(cli, lab, odd, study, tmp_path):
    root, _ = study
    assert cli("run", "recipe=odd", "seed=7", "recipe.total_steps=5", f"output_root={root}").status == 0
    told = cli("status", "--output-root", str(root)).out  # it is the newest
    assert told.startswith("Single runs\n1 job: 1 finished\n")
    assert "5/5" in told
    run_id = next(root.rglob("seed7-*")).glob("*/run_id")
    run_id = next(run_id).read_text().strip()
    assert "eval/return" in cli("status", run_id[:8], "--output-root", str(root)).out
    told = cli("report", run_id, "--plot", str(tmp_path / "run.png"), "--output-root", str(root))
    assert told.status == 0, told.err
    assert told.out.startswith(f"Run {run_id[:8]}, finished: ")
    assert "1/1" in told.out
    assert (tmp_path / "run.png").stat().st_size > 1000
    failed = cli("report", "zzz", "--output-root", str(root))
    assert (failed.status, failed.err) == (
        2,
        "alphagrad: zzz: 0 studies and runs have an id that begins so; give one's\n",
    )


def test_a_failed_run_is_reported_as_it_stands(cli, lab, odd, root):
    assert cli("run", "recipe=odd", "recipe.raising=[0]", f"output_root={root}").status == 1
    run_id = next(root.rglob("run_id")).read_text().strip()
    told = cli("report", run_id, "--output-root", str(root)).out
    assert told.startswith(f"Run {run_id[:8]}, failed: ")
    assert "eval/return" in told


def test_ls_and_alpha_fit(cli, lab):
    lab.setenv("COLUMNS", "")
    listed = cli("ls").out
    assert max(map(len, listed.splitlines())) > 80
    lab.setenv("COLUMNS", "80")
    narrow = cli("ls").out
    assert max(map(len, narrow.splitlines())) <= 80
    assert narrow.split() == listed.split()
    shown = cli("alpha", "recipe=image", "model=cnn").out
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.count("0.weight") == 2
    for whole in ("64×32×3×3", "18,432", "√fan-in", "alphagrad"):
        assert whole in shown.split()


def test_what_is_too_wide_comes_as_several_tables():
    shown = tables.table("job", "a", "b", "empty", "c", folded=("job",), caption="below")
    shown.add_row("one two", "1" * 10, "2" * 10, "", "3" * 10)
    headings = [[str(column.header) for column in part.columns] for part in tables.parts(shown, 30)]
    assert headings == [["job", "a"], ["job", "b"], ["job", "c"]]
    assert [[str(c.header) for c in part.columns] for part in tables.parts(shown, 1000)] == [["job", "a", "b", "c"]]
    assert [part.caption for part in tables.parts(shown, 30)] == [None, None, "below"]


def test_columns_stay_below_one_another_where_the_stream_knows_ascii_alone(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", errors="alphagrad.readable"))
    shown = tables.table("tensor", "√d", "α", right=("√d", "α"))
    shown.add_row("w", "1.0", "2.0")
    tables.show(shown)
    sys.stdout.flush()
    lines = written.getvalue().decode().splitlines()
    heading, row = (line for line in lines if re.search(r"\w", line))
    assert re.findall(r"\w+", heading) == ["tensor", "sqrt", "d", "alpha"]
    assert len(heading) == len(row)


def test_the_time_left():
    """Two train, one waits: those two at their own rates, the other as long as jobs take, side by side."""
    half = JobState("a", RUNNING, "a", "/a", "50/100", 30.0, rate=5.0)
    fast = JobState("b", RUNNING, "b", "/b", "90/100", 9.0)
    done = JobState("c", FINISHED, "c", "/c", "100/100", 110.0)
    assert (half.left, fast.left, done.left) == (10.0, pytest.approx(1.0), None)
    each = (60 + 10 + 110) / 3
    assert left_of_all([half, fast, done, JobState("d", WAITING)]) == pytest.approx((10 + 1 + each) / 2)
    assert left_of_all([done, JobState("d", WAITING)]) is None
    told = summary([half, fast, done, JobState("d", WAITING)])
    assert told == "4 jobs: 1 finished, 2 running, 1 not begun; about 0:00:36 left"


def test_lines_of_a_figure_are_told_apart():
    from cycler import cycler

    drawn = list(cycler(linestyle=figures.STYLES) * cycler(color=figures.COLORS))
    assert len({(line["linestyle"], line["color"]) for line in drawn}) == 28
    assert [line["linestyle"] for line in drawn[:8]] == ["-"] * 7 + ["--"]
    assert len(set(figures.COLORS)) == len(figures.COLORS) <= 8


def test_a_heading_is_broken_between_words(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "20")
    tables.say_wrapped("Study 3f2a1b4c, finished: optimizer=adam,alphagrad seed=1")
    assert capsys.readouterr().out.split() == ["Study", "3f2a1b4c,", "finished:", "optimizer=adam,alphagrad", "seed=1"]
