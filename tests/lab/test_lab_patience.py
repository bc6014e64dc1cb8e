"""A store or disk that fails for a while, at any moment of a run: nothing that was trained is lost."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from tiers import long

from alphagrad.common.errors import StorageLost
from alphagrad.lab.records import checkpoint, writer
from alphagrad.lab.records.lifecycle import Life, Standing
from alphagrad.lab.records.run import Tracker
from alphagrad.lab.store.address import store_uri
from alphagrad.lab.store.connection import open_store
from alphagrad.lab.store.patience import Patience

FAST = ("tracking.flush_seconds=0.01", "recipe.compile=false")
IMAGE = ("recipe=image", "optimizer=adam", "recipe.epochs=1", "recipe.batch_size=256", "model=mlp", "model.hidden=[8]")


class Failing:
    """A method of MLflow's client that fails for the first calls, or for all."""

    def __init__(self, lab, name: str, times: float, concerns=lambda arguments: True) -> None:
        self.calls, self.lab, self.name = 0, lab, name
        self.real = real = getattr(MlflowClient, name)

        def call(client, *arguments, **more):
            if concerns([*arguments, *more.values()]):
                self.calls += 1
                if self.calls <= times:
                    raise MlflowException("503 Service Unavailable")
            return real(client, *arguments, **more)

        lab.setattr(MlflowClient, name, call)

    def mend(self) -> None:
        self.lab.setattr(MlflowClient, self.name, self.real)


def locked(file: Path, seconds: float) -> threading.Thread:
    """Somebody else's exclusive transaction, which lasts so long."""
    ready = threading.Event()

    def hold() -> None:
        with closing(sqlite3.connect(file)) as database:
            database.execute("BEGIN EXCLUSIVE")
            ready.set()
            threading.Event().wait(seconds)

    thread = threading.Thread(target=hold)
    thread.start()
    ready.wait()
    return thread


@pytest.mark.parametrize("name", ["create_run", "log_batch", *long("log_artifact", "set_terminated", "search_runs")])
def test_what_fails_twice_is_written(cli, lab, root, tiny, store_runs, name):
    failing = Failing(lab, name, 2)
    done = cli("run", *tiny, *FAST, f"output_root={root}")
    assert done.status == 0, done.err
    assert failing.calls > 2
    assert "trying on" in done.err
    (run,) = store_runs(root)
    assert run.info.status == "FINISHED"
    assert "alphagrad.reason" not in run.data.tags
    files = {file.path for file in open_store(store_uri(None, root)).list_artifacts(run.info.run_id)}
    assert files == {"config.yaml", "checkpoint.pt"}


@pytest.mark.parametrize("what", long("checkpoint.pt", "confusion.png"))
def test_a_finished_training_whose_files_are_not_taken(cli, lab, root, store_runs, what):
    """It is KILLED with its state, and what goes on is not trained again."""
    folder = root / "run"
    failing = Failing(lab, "log_artifact", 1e9, lambda given: any(str(g).endswith(what) for g in given))
    words = (*IMAGE, *FAST, f"output_root={root}", f"hydra.run.dir={folder}", "tracking.retry_seconds=0.5")
    failed = cli("run", *words)
    assert failed.status == 1
    (said,) = [line for line in failed.err.splitlines() if line.startswith("alphagrad: ")]
    assert "503" in said
    assert f"`alphagrad resume {folder}` goes on" in said
    (run,) = store_runs(root)
    assert run.info.status == "KILLED"
    states = sorted(folder.glob("state-*.pt"))
    last = torch.load(states[-1], weights_only=True)
    assert what == "confusion.png" or (folder / "checkpoint.pt").exists()
    failing.mend()
    assert cli("resume", str(folder)).status == 0
    (after,) = store_runs(root)
    assert (after.info.run_id, after.info.status) == (run.info.run_id, "FINISHED")
    files = {file.path for file in open_store(store_uri(None, root)).list_artifacts(run.info.run_id)}
    assert {"config.yaml", "checkpoint.pt", "confusion.png"} <= files
    assert last["step"] == int(after.data.params.get("recipe.total_steps", last["step"]))
    assert not list(folder.glob("state-*"))


@pytest.mark.long
def test_an_end_that_cannot_be_written(cli, lab, root, tiny, store_runs):
    folder = root / "run"
    failing = Failing(lab, "set_terminated", 1e9)
    words = (*tiny, *FAST, f"output_root={root}", f"hydra.run.dir={folder}", "tracking.retry_seconds=0.3")
    failed = cli("run", *words)
    assert failed.status == 1
    assert f"step 120 is kept; once that is put right, `alphagrad resume {folder}` goes on" in failed.err
    failing.mend()
    assert cli("resume", str(folder)).status == 0
    assert [run.info.status for run in store_runs(root)] == ["FINISHED"]


@pytest.mark.parametrize("name", ["create_run", "log_batch"])
@pytest.mark.long
def test_a_run_that_cannot_begin(cli, lab, root, tiny, store_runs, name):
    folder = root / "run"
    failing = Failing(lab, name, 1e9)
    words = (*tiny, *FAST, f"output_root={root}", f"hydra.run.dir={folder}", "tracking.retry_seconds=0.3")
    failed = cli("run", *words)
    assert failed.status == 1
    assert f"`alphagrad resume {folder}` goes on" in failed.err
    assert "FAILED" not in {run.info.status for run in store_runs(root)}
    failing.mend()
    assert cli("resume", str(folder)).status == 0
    assert [run.info.status for run in store_runs(root)] == ["FINISHED"]


def test_a_creation_whose_answer_was_lost_creates_one_run(lab, root, store_runs):
    tracker = Tracker(store_uri(None, root), "alphagrad")
    real, calls = MlflowClient.create_run, []

    def create(client, *arguments, **more):
        made = real(client, *arguments, **more)
        calls.append(made)
        if len(calls) == 1:
            raise MlflowException("connection reset")
        return made

    lab.setattr(MlflowClient, "create_run", create)
    with tracker.run("a run", {}, {"output_folder": "here"}):
        assert tracker.run_id == calls[0].info.run_id
    assert [run.info.status for run in store_runs(root)] == ["FINISHED"]


def test_a_locked_store_is_waited_for(lab, root, store_runs, tmp_path):
    """From the first look at it; MLflow's own patience is made none."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def impatient(connection, cursor, statement, parameters, context, many):
        return statement.replace("busy_timeout = 20000", "busy_timeout = 1"), parameters

    event.listen(Engine, "before_cursor_execute", impatient, retval=True)
    try:
        other = locked(root / "mlflow.db", 1.0)
        tracker = Tracker(store_uri(None, root), "alphagrad")
        other.join()
        other = locked(root / "mlflow.db", 1.0)
        with tracker.run("a run", {"a": 1}, {}):
            other.join()
    finally:
        event.remove(Engine, "before_cursor_execute", impatient)
    (run,) = store_runs(root)
    assert (run.info.status, run.data.params) == ("FINISHED", {"a": "1"})


@pytest.mark.parametrize("what", ["config.yaml", *long("run_id", "checkpoint.pt", "best.pt")])
def test_a_disk_that_does_not_take_a_file_at_once(cli, lab, root, tiny, store_runs, what):
    real, refused = Path.replace, []

    def replace(self, target):
        if Path(target).name == what and len(refused) < 2:
            refused.append(target)
            raise OSError(28, "No space left on device")
        return real(self, target)

    lab.setattr(Path, "replace", replace)
    done = cli("run", *tiny, *FAST, f"output_root={root}", "checkpoint.best=eval/return", "recipe.eval_every=50")
    assert done.status == 0, done.err
    assert len(refused) == 2
    assert "trying on" in done.err
    (run,) = store_runs(root)
    assert run.info.status == "FINISHED"
    assert (Path(run.data.tags["output_folder"]) / what).exists()
    files = {file.path for file in open_store(store_uri(None, root)).list_artifacts(run.info.run_id)}
    assert files == {"config.yaml", "checkpoint.pt", "best.pt"}


@pytest.mark.long
def test_a_configuration_that_was_not_uploaded_is_when_the_run_goes_on(cli, at, lab, root, tiny, store_runs):
    def interrupt() -> None:
        raise KeyboardInterrupt

    folder = root / "run"
    failing = Failing(lab, "log_artifact", 1e9)
    at(70, interrupt)
    words = (*tiny, *FAST, "checkpoint.every_steps=10", f"output_root={root}", f"hydra.run.dir={folder}")
    lab.setattr("alphagrad.lab.records.run.LAST_SECONDS", 0.1)
    assert cli("run", *words).status == 130
    failing.mend()
    (run,) = store_runs(root)
    client = open_store(store_uri(None, root))
    assert not client.list_artifacts(run.info.run_id)
    assert cli("resume", str(folder)).status == 0
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {"config.yaml", "checkpoint.pt"}


def test_patience_ends(monkeypatch):
    pauses: list[float] = []

    def act() -> None:
        raise OSError("no")

    with pytest.raises(StorageLost, match=r"the thing: cannot be used \(OSError: no\)"):
        Patience("the thing", 3.0).persist(act, pause=lambda s: (pauses.append(s), threading.Event().wait(s)))
    assert pauses == [0.25, 0.5, 1.0]


def test_what_no_attempt_changes_is_raised_at_once():
    def act() -> None:
        raise MlflowException("no such run", RESOURCE_DOES_NOT_EXIST)

    with pytest.raises(MlflowException):
        Patience("the thing", 5.0).persist(act)


def test_one_writer_serves_all_runs_of_a_process(lab, root):
    first = Tracker(store_uri(None, root), "alphagrad", flush_seconds=0.05)
    trackers = [first, *(first.another() for _ in range(19))]
    before = threading.active_count()
    for number, tracker in enumerate(trackers):
        tracker.start(f"run {number}", {}, {})
        tracker.metrics(1, {"a": float(number)})
    assert threading.active_count() == before + 1
    for tracker in trackers:
        tracker.end()
    assert not writer._writers
    client = open_store(store_uri(None, root))
    assert [client.get_run(t.run_id).data.metrics["a"] for t in trackers] == [float(k) for k in range(20)]


def test_a_run_that_was_deleted_does_not_stop_the_others(lab, root):
    first = Tracker(store_uri(None, root), "alphagrad", flush_seconds=0.01)
    other = first.another()
    for tracker in (first, other):
        tracker.start("a run", {}, {})
    first.client.delete_run(first.run_id)
    for tracker in (first, other):
        tracker.metrics(1, {"a": 1.0})
    other.drain()
    with pytest.raises(StorageLost):
        first.drain()
    other.end()
    first.end(Life(Standing.STOPPED))
    assert first.client.get_run(other.run_id).data.metrics == {"a": 1.0}


@pytest.mark.long
def test_a_state_that_is_damaged_is_said_and_the_one_before_it_used(cli, at, root, tiny, store_runs):
    def interrupt() -> None:
        raise KeyboardInterrupt

    folder = root / "run"
    at(70, interrupt)
    words = (*tiny, *FAST, "checkpoint.every_steps=10", f"output_root={root}", f"hydra.run.dir={folder}")
    assert cli("run", *words, "checkpoint.keep_last=1").status == 130
    _older, newest = sorted(folder.glob("state-*.pt"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 4
    newest.write_bytes(content)
    resumed = cli("resume", str(folder))
    assert resumed.status == 0, resumed.err
    assert f"{newest}: is damaged" in resumed.err
    assert "the state before it is used, of step 60" in resumed.err
    (run,) = store_runs(root)
    assert run.info.status == "FINISHED"
    client = open_store(store_uri(None, root))
    for name in run.data.metrics:
        steps = [point.step for point in client.get_metric_history(run.info.run_id, name)]
        assert len(set(steps)) == len(steps), name


def test_every_flipped_bit_is_noticed(tmp_path):
    file = tmp_path / "state-000000000001.pt"
    checkpoint.save_atomically({"version": checkpoint.VERSION, "step": 1, "x": torch.randn(50)}, file)
    good = file.read_bytes()
    assert torch.load(file, weights_only=True)["step"] == 1  # any reader of archives takes it
    for bit in [*range(0, 8 * len(good), 97), *range(8 * (len(good) - 110), 8 * len(good), 5)]:
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        file.write_bytes(bad)
        with pytest.raises(checkpoint.Damaged):
            checkpoint._whole_state(file)
