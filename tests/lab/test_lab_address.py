"""Addresses of stores: what can be one, what is touched, what is shown, and tracking=none."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from alphagrad.common.errors import ConfigError
from alphagrad.lab.store import address
from alphagrad.lab.store.address import HANDED, hide, kept_uri, masked, store_uri
from alphagrad.lab.store.connection import check_store, open_existing, open_store
from alphagrad.lab.training.job import assignment_of

SECRET = "postgresql+psycopg://me:s3cret/x@db.example:5432/runs"
SHOWN = "postgresql+psycopg://me:***@db.example:5432/runs"


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.fixture
def unseen(lab):
    """No password is known from another test, and none stays known."""
    lab.setattr(address, "_secrets", set())
    lab.setenv(HANDED, "")
    lab.delenv(HANDED)


def make(kind: str, path: Path) -> None:
    if kind == "text":
        path.write_text("notes")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("/dev/null")
    elif kind == "hanging link":
        path.symlink_to(path.parent / "nothing/there")
    else:
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("CREATE TABLE bookmarks (url)")


@pytest.mark.parametrize("kind", ["text", "folder", "pipe", "link", "hanging link", "another program's"])
@pytest.mark.parametrize("command", ["run", "ui"])
def test_what_is_no_store_is_not_touched(cli, tmp_path, tiny, kind, command):
    path = tmp_path / "place"
    make(kind, path)
    before = os.lstat(path)
    words = {"run": (f"tracking.uri=sqlite:///{path}", f"output_root={tmp_path / 'out'}", *tiny)}
    failed = cli(command, *words.get(command, ("--uri", f"sqlite:///{path}")))
    assert failed.status == 2
    assert len(failed.err.splitlines()) == 1, failed.err
    after = os.lstat(path)
    assert (before.st_ino, before.st_mode, before.st_size, before.st_mtime_ns) == (
        after.st_ino, after.st_mode, after.st_size, after.st_mtime_ns,
    )  # fmt: skip
    assert os.listdir(tmp_path) == ["place"]


@pytest.mark.parametrize(
    "uri", ["sqlite:////dev/null", "sqlite:////dev/zero", "sqlite:///:memory:?x", "sqlite://", "file:///x"]
)
def test_addresses_that_are_none(uri):
    with pytest.raises(ConfigError, match=r"tracking\.uri="):
        check_store(store_uri(uri, "."))
    with pytest.raises(ConfigError, match=r"tracking\.uri="):
        open_store(store_uri(uri, "."))
    assert not Path("/dev/null.lock").exists()


@pytest.mark.parametrize("name", ["100% sure", "my runs", "a#b", "größe 🙂", "it's", "tr [1]", "a&b=c"])
@pytest.mark.long
def test_any_folder_name(lab, tmp_path, empty_store, store_runs, name):
    root = tmp_path / name
    root.mkdir()
    shutil.copy(empty_store, root / "mlflow.db")
    uri = store_uri(None, root)
    check_store(uri)
    from alphagrad.lab.records.run import Tracker

    tracker = Tracker(uri, "alphagrad")
    (root / "file").write_text("text")
    with tracker.run("a run", {"a": 1}, {"output_folder": str(root)}):
        tracker.metrics(1, {"m": 2.0})
        tracker.artifact(root / "file")
        assert tracker.open_run(str(root)) == tracker.run_id
    (run,) = store_runs(root)
    assert run.data.metrics == {"m": 2.0}
    assert (root / "artifacts/alphagrad" / run.info.run_id / "artifacts/file").read_text() == "text"


@pytest.mark.parametrize("name", ["what?", "100%20"])
def test_a_folder_name_that_no_address_can_hold(cli, tmp_path, tiny, name):
    failed = cli("run", f"output_root='{tmp_path}/{name}'", *tiny)
    assert failed.status == 2
    assert name in failed.err
    assert os.listdir(tmp_path) == []


@pytest.mark.long
def test_a_relative_store(cli, lab, at, tmp_path, tiny, empty_store):
    """MLflow's own default; a run that goes on finds it from elsewhere, and without the variable."""
    lab.chdir(tmp_path)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    lab.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    at(70, interrupt)
    words = (*tiny, "checkpoint.every_steps=10", "recipe.compile=false")
    assert cli("run", *words, "output_root=out").status == 130
    lab.delenv("MLFLOW_TRACKING_URI")
    (tmp_path / "elsewhere").mkdir()
    lab.chdir(tmp_path / "elsewhere")
    (folder,) = [file.parent for file in tmp_path.rglob("config.yaml") if "artifacts" not in file.parts]
    resumed = cli("resume", str(folder))
    assert resumed.status == 0, resumed.err
    client = open_existing(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("dqn_cartpole").experiment_id])
    assert run.info.status == "FINISHED"
    assert os.listdir(tmp_path / "elsewhere") == []


@pytest.mark.parametrize(
    ("whole", "shown"),
    [
        (SECRET, SHOWN),
        ("mysql://me:p@ss:w@h/db", "mysql://me:***@h/db"),
        ("postgresql://h/db?user=me&password=s3cret&x=1", "postgresql://h/db?user=me&password=***&x=1"),
        ("https://tok3n@h:5000", "https://***@h:5000"),
        ("https://h:5000/path", "https://h:5000/path"),
        ("postgresql://me@h/db", "postgresql://me@h/db"),
        ("sqlite:////a/b:c@d/e.db", "sqlite:////a/b:c@d/e.db"),
    ],
)
def test_passwords_are_masked(whole, shown):
    assert masked(whole) == shown
    assert masked(shown) == shown


def test_a_password_goes_through_the_environment_and_nowhere_else(unseen, composed, tmp_path):
    config = composed(f"tracking.uri='{SECRET}'", f"output_root={tmp_path}")
    assignment = assignment_of(config, [], tmp_path)
    assert "s3cret" not in json.dumps(assignment.config)
    assert assignment.config["tracking"]["uri"] == SHOWN
    assert os.environ[HANDED] == SECRET
    assert store_uri(SHOWN, tmp_path) == SECRET
    assert "s3cret" not in hide('connection to "x@db.example" of s3cret failed for s3cret/x')
    del os.environ[HANDED]
    with pytest.raises(ConfigError, match="password is kept nowhere"):
        store_uri(SHOWN, tmp_path)
    os.environ[HANDED] = SECRET


@pytest.mark.parametrize("command", ["run", "status", "ui", "report", "resume"])
def test_no_message_tells_a_password(unseen, cli, tmp_path, tiny, command):
    """Of a server that does not answer, and of a driver that misreads the address."""
    for uri in ("http://me:s3cret@127.0.0.1:9", "postgresql://me:s3@cret#x@127.0.0.1:9/db"):
        words = {"run": (f"tracking.uri='{uri}'", f"output_root={tmp_path}", *tiny), "resume": ("ab12", "--uri", uri)}
        failed = cli(command, *words.get(command, ("--uri", uri)))
        assert failed.status == 2 or command == "ui"
        assert "cret" not in failed.err + failed.out


def test_a_run_without_tracking_makes_no_store(cli, tmp_path, tiny):
    done = cli("run", *tiny, "tracking=none", f"output_root={tmp_path}", f"hydra.run.dir={tmp_path}/run")
    assert done.status == 0, done.err
    assert (tmp_path / "run/checkpoint.pt").exists()
    assert not list(tmp_path.rglob("mlflow.db*"))


@pytest.mark.long
@pytest.mark.parametrize("how", ["tracking=none", "tracking.uri=none"])
def test_no_tracking(cli, at, tmp_path, tiny, how):
    """A run, one that goes on, a multirun and a stack; no store is made."""
    words = (*tiny, how, f"output_root={tmp_path}", "recipe.compile=false", "checkpoint.every_steps=10")
    folder = tmp_path / "run"
    at(70, interrupt)
    assert cli("run", *words, f"hydra.run.dir={folder}").status == 130
    assert list(folder.glob("state-*.pt"))
    resumed = cli("resume", str(folder))
    assert resumed.status == 0, resumed.err
    assert (folder / "checkpoint.pt").exists()
    assert not list(folder.glob("state-*.pt"))
    assert yaml.safe_load((folder / "config.yaml").read_text())["tracking"]["uri"] == "none"
    assert "is finished" in cli("resume", str(folder)).out
    for more in ((), ("hydra/launcher=stacked", "stack.processes=1")):
        done = cli("run", "-m", "seed=1,2", *words, *more, f"hydra.sweep.dir={tmp_path}/study{len(more)}")
        assert done.status == 0, done.err
        assert len(list((tmp_path / f"study{len(more)}").rglob("checkpoint.pt"))) == 2
    assert not list(tmp_path.rglob("mlflow.db*"))


@pytest.mark.parametrize("command", ["status", "report", "ui"])
def test_there_is_nothing_to_show_without_tracking(cli, command):
    failed = cli(command, "--uri", "none")
    assert failed.status == 2
    assert "without tracking" in failed.err


@pytest.mark.long
def test_a_lost_store(cli, at, root, tiny, store_runs, empty_store):
    """A run goes on in a new one with what its folder knows."""
    folder = root / "run"
    at(70, interrupt)
    words = (*tiny, "recipe.compile=false", "checkpoint.every_steps=10", f"output_root={root}")
    assert cli("run", *words, f"hydra.run.dir={folder}").status == 130
    (before,) = store_runs(root)
    (root / "mlflow.db").unlink()
    failed = cli("resume", str(folder))
    assert failed.status == 2
    assert f"`alphagrad resume {folder} --new-store`" in failed.err
    assert not (root / "mlflow.db").exists()
    shutil.copy(empty_store, root / "mlflow.db")
    again = cli("run", *words, f"hydra.run.dir={folder}")  # in the same folder: the state is not thrown away
    assert again.status == 2
    assert "--new-store" in again.err
    assert list(folder.glob("state-*.pt"))
    resumed = cli("resume", str(folder), "--new-store")
    assert resumed.status == 0, resumed.err
    assert "not in the store any more" not in resumed.err
    (run,) = store_runs(root)
    assert run.info.run_id != before.info.run_id
    assert (run.info.status, run.data.params["recipe.total_steps"]) == ("FINISHED", "120")
    assert set(before.data.metrics) <= set(run.data.metrics)
    client = open_existing(store_uri(None, root))
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"config.yaml", "checkpoint.pt"}
    assert "is finished" in cli("resume", str(folder)).out


def test_a_relative_address_is_kept_absolute(lab, tmp_path):
    lab.chdir(tmp_path)
    assert kept_uri("sqlite:///a.db", ".") == f"sqlite:///{tmp_path}/a.db"
    assert kept_uri(None, ".") is None


@pytest.mark.long
def test_an_experiment_that_keeps_its_files_elsewhere_is_told(cli, root, tiny, tmp_path):
    words = (*tiny, "recipe.compile=false", f"output_root={root}")
    for place, told in (("first", 0), ("first", 0), ("second", 1)):
        done = cli("run", *words, f"tracking.artifacts={tmp_path / place}")
        assert done.status == 0, done.err
        lines = [m for m in done.err.splitlines() if "is for new experiments" in m]
        assert len(lines) == told
    assert str(tmp_path / "first") in lines[0]
