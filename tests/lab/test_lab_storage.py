"""The disk is full or the store does not answer while a run trains: its state is kept, and nothing is lost."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import torch
from servers import free_port, mlflow_server
from tiers import long

from alphagrad.common.errors import StorageLost
from alphagrad.lab.records.folder import claimed, is_held
from alphagrad.lab.store.address import store_uri
from alphagrad.lab.store.connection import open_store
from alphagrad.lab.store.patience import cause_of
from alphagrad.lab.training.logfiles import LOG_FILE, log_files

STEPS, LOST_AT = 400, 149
RUN = ("optimizer=adam", f"recipe.total_steps={STEPS}", "recipe.learning_starts=20", "recipe.log_every=10")
RUN += ("recipe.eval_episodes=1", "recipe.batch_size=16", "recipe.compile=false", "checkpoint.every_steps=50")
RUN += ("tracking.flush_seconds=0.01",)


class Disk:
    """A small disk of its own that can be filled up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.filler = folder / "filler"

    def fill(self) -> None:
        with self.filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        assert os.statvfs(self.folder).f_bavail == 0

    def free(self) -> None:
        self.filler.unlink()


@pytest.fixture
def disk(tmp_path):
    """A tmpfs of a few MB."""
    if os.geteuid():
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=False).returncode:
        pytest.skip("cannot mount a tmpfs here")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", folder], check=True)


def outcome(uri: str, folder: Path) -> tuple[dict, dict]:
    """The model, and every point of every metric but those that measure time."""
    client = open_store(uri)
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert run.info.status == "FINISHED"
    assert "alphagrad.reason" not in run.data.tags
    names = [name for name in run.data.metrics if not name.startswith(("time/", "cost/"))]
    points = {n: sorted((p.step, p.value) for p in client.get_metric_history(run.info.run_id, n)) for n in names}
    return torch.load(folder / "checkpoint.pt", weights_only=True), points


@pytest.fixture
def undisturbed(cli, root, tmp_path):
    """What the run is if nothing happens."""
    folder = tmp_path / "undisturbed"
    assert cli("run", *RUN, f"output_root={root}", f"hydra.run.dir={folder}").status == 0
    return outcome(store_uri(None, root), folder)


def assert_same(found: tuple[dict, dict], expected: tuple[dict, dict]) -> None:
    assert found[1] == expected[1]
    assert len(found[1]["exploration/epsilon"]) == STEPS // 10
    for name, value in expected[0]["q_network"].items():
        assert torch.equal(found[0]["q_network"][name], value), name


@pytest.mark.parametrize("full", ["store", "folder", "both"])
@pytest.mark.long
def test_a_full_disk(cli, disk, at, undisturbed, tmp_path, empty_store, full):
    """The run ends with one line, its state on the disk; when there is room again, resuming loses nothing."""
    folder = (tmp_path if full == "store" else disk.folder) / "run"
    store = (tmp_path if full == "folder" else disk.folder) / "store.db"
    shutil.copy(empty_store, store)
    at(LOST_AT, disk.fill)
    words = ("tracking.retry_seconds=0.5", f"tracking.uri=sqlite:///{store}", f"output_root={tmp_path / 'out'}")
    failed = cli("run", *RUN, *words, f"hydra.run.dir={folder}")
    assert failed.status == 1
    assert "Traceback" not in failed.err
    (said,) = [line for line in failed.err.splitlines() if line.startswith("alphagrad: ")]
    assert len(said) < 600, said
    assert "full" in said or "No space" in said
    told = {"store": f"tracking.uri=sqlite:///{store}", "folder": "cannot be written"}
    assert any(told[where] in said for where in told if full in (where, "both"))
    assert f"`alphagrad resume {folder}` goes on" in said
    *_, state = sorted(folder.glob("state-*.pt"))
    assert f"step {int(state.stem[6:])} is kept" in said
    # with room for the state there is all that was trained, else what was saved before
    assert (int(state.stem[6:]) > LOST_AT) == (full == "store")
    assert not list(folder.glob("*.tmp"))
    disk.free()
    resumed = cli("resume", str(folder))
    assert resumed.status == 0, resumed.err
    assert_same(outcome(f"sqlite:///{store}", folder), undisturbed)


@pytest.mark.parametrize("free", [0, *long(600)])
def test_a_disk_that_is_full_from_the_start(cli, disk, free):
    """One line says so, also after several attempts; nothing half-made is left; with room the same words train."""
    words = ("run", *RUN, f"output_root={disk.folder}", f"hydra.run.dir={disk.folder / 'run'}")
    room = disk.folder / "room"
    room.write_bytes(bytes(free * 1024))
    disk.fill()
    room.unlink()
    failed = cli(*words, "tracking.retry_seconds=1")
    assert failed.status == 1
    told = [line for line in failed.err.splitlines() if "trying on" not in line]
    assert len(told) == 1, failed.err
    assert f"tracking.uri=sqlite:///{disk.folder}/mlflow.db: cannot be used (" in told[0]
    assert "full" in told[0]
    assert "once that is put right, start it again" in told[0]
    assert {file.name for file in disk.folder.iterdir()} <= {"filler", "run", "mlflow.db.lock"}
    if not free:
        failed = cli("run", "-m", *words[1:-1], "seed=0,1", "tracking.retry_seconds=0")
        assert failed.status == 1
        assert "once that is put right, the same command goes on" in failed.err
        assert len(failed.err.splitlines()) == 1, failed.err
    else:
        disk.free()
        done = cli(*words)
        assert done.status == 0, done.err


def test_a_log_file_on_a_full_disk_hides_nothing(tmp_path):
    """What it has not written fails once more when it is closed."""
    (tmp_path / LOG_FILE).symlink_to("/dev/full")
    with log_files([str(tmp_path)]):
        logging.getLogger("alphagrad").info("a line")


def test_a_log_file_that_cannot_be_made_is_waited_for(tmp_path, monkeypatch):
    real, tries = Path.mkdir, []

    def mkdir(self, *arguments, **more):
        tries.append(self)
        if len(tries) < 3:
            raise OSError(28, "No space left on device")
        real(self, *arguments, **more)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(StorageLost, match="No space left"), log_files([str(tmp_path / "run")]):
        pass
    with log_files([str(tmp_path / "run")], retry_seconds=5.0):
        assert (tmp_path / "run" / LOG_FILE).exists()
    assert len(tries) == 3


def test_a_lock_on_a_disk_that_became_read_only_hides_nothing(tmp_path, monkeypatch):
    def unlink(self, missing_ok=False):
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(StorageLost, match="the run's own"), claimed(tmp_path / "lock"):
        raise StorageLost("the run's own")
    assert not is_held(tmp_path / "lock")


def test_what_lies_behind_an_error_of_the_store():
    """MLflow deals with a metric that is there already and meets a full disk: that is told, without its SQL."""
    full = sqlite3.OperationalError("database or disk is full")
    full.__context__ = sqlite3.IntegrityError("UNIQUE constraint failed")
    wrapped, store = OSError("database or disk is full [SQL: INSERT ...]"), RuntimeError("the store's own")
    wrapped.__cause__, store.__cause__ = full, wrapped
    assert cause_of(store) == "OperationalError: database or disk is full"


def test_what_lies_behind_an_error_that_tells_of_another():
    """MLflow words anew what its client raised of a server that does not answer, without raising it from that."""
    refused, pool = ConnectionRefusedError(111, "Connection refused"), OSError("pool: max retries (Connection refused)")
    pool.__cause__ = refused
    store = RuntimeError(f"API request failed with exception {pool}")
    store.__context__ = pool
    assert cause_of(store) == "ConnectionRefusedError: [Errno 111] Connection refused"
    store.__context__ = OSError()  # in whose words is nothing that could be repeated
    assert cause_of(store).startswith("RuntimeError: API request failed")


@pytest.mark.long
def test_a_disk_that_is_full_for_a_while(cli, disk, at, undisturbed, tmp_path, empty_store):
    """The run only says so, and goes on."""
    store = disk.folder / "store.db"
    shutil.copy(empty_store, store)

    def fill() -> None:
        disk.fill()
        threading.Timer(1.0, disk.free).start()

    at(LOST_AT, fill)
    words = (f"tracking.uri=sqlite:///{store}", f"output_root={disk.folder}", f"hydra.run.dir={disk.folder / 'run'}")
    done = cli("run", *RUN, *words)
    assert done.status == 0, done.err
    assert "trying on" in done.err
    assert "Traceback" not in done.err
    assert_same(outcome(f"sqlite:///{store}", disk.folder / "run"), undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("for_a_while", [True, False])
def test_a_server_that_is_stopped(cli, at, undisturbed, tmp_path, empty_store, for_a_while):
    """Its run trains on; if it does not come back, the run ends with its state and what was not sent."""
    store, port, folder = tmp_path / "server.db", free_port(), tmp_path / "run"
    shutil.copy(empty_store, store)
    uri = f"http://127.0.0.1:{port}"

    def serve(stack: ExitStack) -> None:
        stack.enter_context(mlflow_server(f"sqlite:///{store}", tmp_path / "artifacts", port))

    with ExitStack() as first, ExitStack() as second:
        serve(first)

        def stop() -> None:
            first.close()
            if for_a_while:
                threading.Thread(target=serve, args=(second,)).start()

        at(LOST_AT, stop)
        patience = f"tracking.retry_seconds={120 if for_a_while else 1}"
        done = cli("run", *RUN, f"tracking.uri={uri}", patience, f"hydra.run.dir={folder}")
        if not for_a_while:
            assert done.status == 1
            (said,) = [line for line in done.err.splitlines() if line.startswith("alphagrad: ")]
            assert f"tracking.uri={uri}" in said
            assert "Connection refused" in said
            assert "Traceback" not in done.err
            *_, state = sorted(folder.glob("state-*.pt"))
            assert int(state.stem[6:]) > LOST_AT
            pending = torch.load(state, weights_only=True)["runs"][0]["pending"]
            assert pending
            serve(second)
            done = cli("resume", str(folder))
        assert done.status == 0, done.err
        assert_same(outcome(uri, folder), undisturbed)


@pytest.mark.long
def test_a_store_whose_making_was_killed_is_made_anew(tmp_path):
    """Half of MLflow's tables are worth nothing, so they never stand where the store is looked for."""
    store = tmp_path / "mlflow.db"
    making = [
        sys.executable,
        "-c",
        f"from alphagrad.lab.store.connection import open_store; open_store('sqlite:///{store}')",
    ]
    with subprocess.Popen(making) as process:
        unfinished = tmp_path / "mlflow.db.new"
        while process.poll() is None and not (unfinished.exists() and unfinished.stat().st_size > 100_000):
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert unfinished.exists()
    assert not store.exists()
    client = open_store(f"sqlite:///{store}")
    assert client.create_run("0").info.status == "RUNNING"
    assert [file.name for file in tmp_path.glob("*.new*")] == []
