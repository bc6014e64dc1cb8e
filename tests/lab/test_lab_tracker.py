"""What a tracker writes to the store, and when the store fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import pytest
from entries import history, parent_and_children
from warm import context

from alphagrad.common.errors import StorageLost, Terminated
from alphagrad.lab.launching.study import study
from alphagrad.lab.records import provenance, writer
from alphagrad.lab.records.run import PARENT_RUN, Tracker
from alphagrad.lab.store.address import store_uri
from alphagrad.lab.store.connection import open_store


@pytest.fixture
def tracker(root, lab):
    return Tracker(store_uri(None, root), "unit", flush_seconds=0.05)


def test_thousands_of_points_arrive(tracker, root, store_runs):
    with tracker.run("many", {}, {}):
        for step in range(2600):
            tracker.metrics(step, {"a": step / 7, "b": -step})
    (run,) = store_runs(root)
    points = history(root, run.info.run_id)
    assert points == {"a": [(s, s / 7) for s in range(2600)], "b": [(s, -s) for s in range(2600)]}


def test_points_are_written_while_the_run_lasts(tracker, root):
    with tracker.run("live", {}, {}):
        tracker.metrics(5, {"a": 1.0})
        deadline = time.monotonic() + 30
        while "a" not in history(root, tracker.run_id) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert history(root, tracker.run_id) == {"a": [(5, 1.0)]}


def test_a_batch_is_never_larger_than_mlflow_takes(tracker, monkeypatch):
    sizes = []
    write, insert = tracker.client.client.log_batch, writer.log_points

    def noted(run_id, metrics=(), params=(), tags=()):
        sizes.append((len(metrics), len(params)))
        write(run_id, metrics=metrics, params=params, tags=tags)

    def noted_points(client, run_id, points, tags):
        sizes.append((len(points), 0))
        insert(client, run_id, points, tags)

    monkeypatch.setattr(tracker.client.client, "log_batch", noted)
    monkeypatch.setattr(writer, "log_points", noted_points)
    with tracker.run("many", {f"p.{k}": k for k in range(230)}, {}):
        for step in range(1500):
            tracker.metrics(step, {"a": 1.0, "b": 2.0})
    assert max(m for m, _ in sizes) <= 1000
    assert sum(m for m, _ in sizes) == 3000
    assert [p for _, p in sizes if p] == [100, 100, 30]


def test_a_writer_that_fails_is_an_error(tracker, root, store_runs, monkeypatch):
    """Training hears of it where it can stop, at the latest when the run ends; then the run can go on."""
    tracker.retry_seconds = 0.4

    def refuse(*_):
        raise OSError("disk full")

    monkeypatch.setattr(writer, "log_points", refuse)

    def train():
        with tracker.run("doomed", {"p": 1}, {}):
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                tracker.metrics(1, {"a": 1.0})
                tracker.check()
                time.sleep(0.01)

    with pytest.raises(StorageLost, match=r"tracking\.uri=sqlite:.*metrics can no longer be written") as caught:
        train()
    assert isinstance(caught.value.__cause__, OSError)
    (run,) = store_runs(root)
    assert run.info.status == "KILLED"
    assert "can no longer be written" in run.data.tags["alphagrad.reason"]


def test_metrics_lost_at_the_end_are_an_error(tracker, root, store_runs, monkeypatch):
    tracker.flush_seconds, tracker.retry_seconds = 1000.0, 0.4  # all is written when the run ends

    def refuse(*_, **__):
        raise OSError("disk full")

    def train():
        with tracker.run("doomed", {}, {}):
            tracker.metrics(1, {"a": 1.0})
            monkeypatch.setattr(tracker.client.client, "log_batch", refuse)

    with pytest.raises(StorageLost):
        train()
    (run,) = store_runs(root)
    assert run.info.status == "KILLED"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyboardInterrupt(), "KILLED"),
        (Terminated(143), "KILLED"),
        (SystemExit(0), "FAILED"),
        (ValueError("no"), "FAILED"),
        (MemoryError(), "FAILED"),
    ],
)
@pytest.mark.long
def test_status_says_how_it_ended(tracker, root, store_runs, error, status):
    def train():
        with tracker.run("ends", {}, {"tag": "kept"}):
            tracker.metrics(2, {"a": 3.0})
            raise error

    with pytest.raises(type(error)):
        train()
    (run,) = store_runs(root)
    assert run.info.status == status
    assert run.data.metrics == {"a": 3.0}
    assert run.data.tags["tag"] == "kept"
    assert run.data.tags["alphagrad.reason"].startswith(type(error).__name__)


@pytest.mark.long
def test_children_of_other_processes(root, lab, store_runs):
    """The parent's id goes through the environment, so that any launcher's jobs find it."""
    child = (
        "import sys\n"
        "from alphagrad.lab.records.run import Tracker\n"
        "with Tracker(sys.argv[1], 'unit').run('child', {}, {}): pass"
    )
    uri = store_uri(None, root)
    with study(Tracker(uri, "unit"), "parent", "key", {"a": "b"}, {}, root / "study"):
        parent = os.environ[PARENT_RUN]
        subprocess.run([sys.executable, "-c", child, uri], check=True)
    parent_run, children = parent_and_children(store_runs(root))
    assert parent_run.info.run_id == parent
    assert [c.info.run_name for c in children] == ["child"]
    assert parent_run.data.tags["a"] == "b"


def test_odd_values_of_parameters_and_metrics(tracker, root, store_runs):
    with tracker.run("odd", {"long": "x" * 9000, "none": None, "list": [1, 2]}, {}):
        tracker.metrics(0, {"nan": float("nan"), "inf": float("inf")})
    (run,) = store_runs(root)
    assert run.info.status == "FINISHED"
    assert run.data.params["none"] == "None"
    assert run.data.params["long"].startswith("xxx")
    assert run.data.metrics["inf"] > 1e308


def first_use(uri: str, name: str, together) -> None:
    """A run that begins when all processes are there."""
    together.wait()
    with Tracker(uri, "together").run(name, {}, {}) as tracker:
        tracker.metrics(0, {"a": 1.0})


@pytest.mark.parametrize("count", [4, pytest.param(8, marks=pytest.mark.slow)])
def test_processes_that_open_a_fresh_store_at_once(tmp_path, count):
    """MLflow's own first call corrupts the file when several make it together."""
    uri = store_uri(None, tmp_path)
    together = context().Barrier(count)
    jobs = [context().Process(target=first_use, args=(uri, str(k), together)) for k in range(count)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(600)
    assert [job.exitcode for job in jobs] == [0] * count
    client = open_store(uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "together"]
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name for run in runs) == [str(k) for k in range(count)]
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_deleted_experiment_is_named(cli, root, tiny, store_runs):
    client = open_store(store_uri(None, root))
    client.delete_experiment(client.create_experiment("gone"))
    failed = cli("run", f"output_root={root}", "tracking.experiment=gone", *tiny)
    assert failed.status == 2
    assert "tracking.experiment=gone: was deleted" in failed.err
    assert store_runs(root) == []


def test_a_commit_is_dirty_where_code_was_changed_not_evidence(monkeypatch, tmp_path):
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a", *words], check=True)

    code, kept = tmp_path / "package" / "code.py", tmp_path / "evidence" / "C1.json"
    for file in (code, kept):
        file.parent.mkdir()
        file.write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "all")
    monkeypatch.setattr(provenance, "__file__", str(code))
    commit = provenance.git_commit()
    assert re.fullmatch(r"[0-9a-f]{40}", commit)
    kept.write_text("2")
    assert provenance.git_commit() == commit
    code.write_text("2")
    assert provenance.git_commit() == f"{commit}-dirty"


def test_provenance_outside_a_checkout(monkeypatch):
    def no_git(*_, **__):
        raise OSError("no git here")

    monkeypatch.setattr(provenance.subprocess, "run", no_git)
    assert provenance.git_commit() is None
    assert "mlflow.source.git.commit" not in provenance.provenance()
