"""`alphagrad status`: what it says of a study's jobs, and that it can be read in a narrow terminal."""

from __future__ import annotations

import pytest
from mlflow import MlflowClient

from alphagrad.lab.evidence.status import common_folder, show_jobs
from alphagrad.lab.records.lifecycle import FINISHED, Life, Standing
from alphagrad.lab.records.study import JobState
from alphagrad.lab.store.address import store_uri
from alphagrad.lab.store.connection import open_store

PLACE = "/home/somebody/a/rather/deep/place/outputs/dqn_cartpole/studies/20260101-120000-000000"


@pytest.fixture
def shown(monkeypatch, capsys):
    """``shown(states, 80)`` → the table's rows in a terminal of that width."""

    def call(states: list[JobState], width: int) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        show_jobs(states, common_folder(states))
        return [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()][2:]

    return call


def test_a_narrow_terminal(shown):
    failed = Life(Standing.FAILED, "ValueError: no")
    states = [
        JobState("optimizer=adam seed=0", FINISHED, "a", f"{PLACE}/adam-seed0-1a2b3c4d", "500000/500000", 5025.0),
        JobState(
            "optimizer=adam seed=1",
            failed,
            "b",
            f"{PLACE}/adam-seed1-1a2b3c4d",
            "1/500000",
        ),
        JobState("optimizer=adam seed=2", Life(Standing.MISSING)),
    ]
    assert common_folder(states) == PLACE
    wide = shown(states, 130)
    assert [row.split()[2] for row in wide if row.startswith("adam")] == [
        "finished",
        "failed",
        "not",
    ]  # as the command had them
    assert wide[0].split() == ["adam", "seed=0", "finished", "500000/500000", "83:45", "adam-seed0-1a2b3c4d"]
    for width in (80, 40, 20):  # titles and reasons take another line, numbers and folders do not
        lines = shown(states, width)
        assert all(len(line) <= max(width, 42) for line in lines)
        narrow = " ".join(lines).split()
        assert {"500000/500000", "83:45", "adam-seed1-1a2b3c4d", "ValueError:"} < set(narrow)


def test_jobs_without_a_folder_in_common(shown):
    states = [JobState("a", FINISHED, "a", "/x/1/run"), JobState("b", FINISHED, "b", "/x/2/run")]
    assert common_folder(states) == "/x"
    assert any("1/run" in line for line in shown(states, 80))
    assert common_folder([]) == "/"
    assert shown([], 80) == []


def test_a_finished_run_shows_its_last_step(cli, root, tiny):
    """Though it is no multiple of the steps between two points of the log."""
    words = (*tiny, "recipe.total_steps=130", "recipe.log_every=50", f"output_root={root}")
    assert cli("run", *words).status == 0
    told = cli("status", "--output-root", str(root))
    assert "finished" in told.out
    assert "130/130" in told.out


@pytest.mark.long
def test_a_study_that_was_killed_before_its_first_job(cli, odd, lab, root, store_runs):
    """The jobs that were planned, and where; from the store, and where that has no list from the folder."""
    from alphagrad.lab.commands import run

    def killed(*_) -> None:
        raise KeyboardInterrupt

    lab.setattr(run, "through_hydra", killed)
    assert cli("run", "-m", "recipe=odd", "optimizer=adam,sgd", "seed=3,4", f"output_root={root}").status == 130
    (parent,) = store_runs(root)
    folder = parent.data.tags["output_folder"]
    for _ in range(2):
        told = cli("status", "--output-root", str(root))
        assert told.status == 0, told.err
        lines = told.out.splitlines()
        assert lines[1:3] == ["4 jobs: 4 not begun", f"in {folder}"]
        assert all(f"{name} seed={seed}" in told.out for name in ("adam", "sgd") for seed in (3, 4))
        for file in (root / "mlflow-artifacts").rglob("jobs.json"):
            file.unlink()


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.long
def test_a_study(cli, odd, lab, root, store_runs, named):
    lab.setenv("COLUMNS", "400")  # folders of tests are long
    words = ("recipe=odd", "seed=range(4)", "recipe.raising=[1]", "recipe.diverging=[2]", f"output_root={root}")
    assert cli("run", "-m", *words).status == 1
    runs = {run.data.tags.get("seed"): run for run in store_runs(root)}
    # as a SIGKILL leaves it
    open_store(store_uri(None, root)).update_run(runs["3"].info.run_id, status="RUNNING")
    told = cli("status", *([runs[None].info.run_id[:8]] if named else []), "--output-root", str(root))
    assert told.status == 0, told.err
    first, second, third, *rows = told.out.splitlines()
    assert first == f"Study {runs[None].info.run_id[:8]}, failed: {runs[None].info.run_name}"
    assert second == "4 jobs: 1 finished, 2 failed, 1 killed"
    assert third == f"in {runs[None].data.tags['output_folder']}"
    text = " ".join(" ".join(rows).split())
    for needed in ("ZeroDivisionError", "demand", "2/2", "seed=3", "alphagrad-seed3-"):
        assert needed in text


@pytest.mark.long
def test_a_store_that_cannot_be_written_is_shown(cli, odd, lab, root, store_runs):
    """Runs and study whose process is gone are killed, and stay RUNNING in the store; that takes one wait."""
    from alphagrad.lab.store import connection as store

    assert cli("run", "-m", "recipe=odd", "seed=range(3)", f"output_root={root}").status == 0
    client = open_store(store_uri(None, root))
    for run in store_runs(root):
        client.update_run(run.info.run_id, status="RUNNING")

    def full(*arguments, **more):
        calls.append(arguments)
        raise OSError(28, "No space left on device")

    calls: list = []
    lab.setattr(store, "READ_SECONDS", 0.3)
    for name in ("set_tag", "set_terminated"):
        lab.setattr(MlflowClient, name, full)
    told = cli("status", "--output-root", str(root))
    assert told.status == 0, told.err
    assert "3 jobs: 3 killed" in told.out
    assert "stay RUNNING" in told.err + told.out  # where the study's log goes
    assert len(calls) == 2
    assert {run.info.status for run in store_runs(root)} == {"RUNNING"}
