"""Bad input: exit status 2, a line for each problem that names the setting, nothing begun."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from bad_words import ONE_LINE
from tiers import one_in

from alphagrad.common.errors import ConfigError


def files_under(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file()] if folder.exists() else []


@pytest.mark.parametrize("words", one_in(6, ONE_LINE))
def test_one_line_names_the_setting(cli, tmp_path, words):
    out = tmp_path / "out"
    where = [] if "output_root" in words else [f"output_root={out}"]
    failed = cli("run", *words.split(" "), *where)
    assert failed.status == 2
    lines = failed.err.splitlines()
    assert len(lines) == 1, failed.err
    assert lines[0].startswith("alphagrad: ")
    for needed in ONE_LINE[words]:
        assert needed in lines[0]
    assert failed.out == ""
    assert not files_under(tmp_path)


def test_all_problems_at_once(cli, tmp_path):
    failed = cli(
        "run",
        "recipe.gamma=2",
        "recipe.tau=0",
        "optimizer.lr=-1",
        "seed=-1",
        "threads=0",
        "device=foo",
        f"output_root={tmp_path / 'out'}",
    )
    assert failed.status == 2
    lines = failed.err.splitlines()
    assert all(line.startswith("alphagrad: ") for line in lines)
    named = {line.removeprefix("alphagrad: ").partition("=")[0] for line in lines}
    assert named == {"recipe.gamma", "recipe.tau", "optimizer.lr", "seed", "threads", "device"}
    assert len(lines) == 6
    assert not (tmp_path / "out").exists()


def test_output_root_under_a_file(cli, tmp_path):
    (tmp_path / "file").write_text("mine")
    failed = cli("run", f"output_root={tmp_path}/file/out")
    assert failed.status == 2
    assert failed.err.splitlines() == [failed.err.strip()]
    assert f"output_root={tmp_path}/file/out" in failed.err
    assert (tmp_path / "file").read_text() == "mine"


def test_tracking_server_that_is_not_there(cli, tmp_path, lab):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{s.getsockname()[1]}"
    failed = cli("run", f"tracking.uri={uri}", f"output_root={tmp_path / 'out'}")
    assert (failed.status, len(failed.err.splitlines())) == (2, 1)
    assert f"tracking.uri={uri}" in failed.err
    lab.setenv("MLFLOW_TRACKING_URI", uri)
    again = cli("run", f"output_root={tmp_path / 'out'}")
    assert again.err == failed.err  # the environment variable counts as well
    assert not (tmp_path / "out").exists()


def test_something_else_that_answers(cli, tmp_path):
    """A server that is no MLflow server."""
    import http.server
    import threading

    class NotFound(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), NotFound) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        failed = cli("run", f"tracking.uri={uri}", f"output_root={tmp_path / 'out'}")
        server.shutdown()
    assert (failed.status, len(failed.err.splitlines())) == (2, 1)
    assert uri in failed.err
    assert not files_under(tmp_path)


def test_no_run_is_recorded(cli, root, store_runs):
    for words in ("recipe.gamma=2", "optimizer=nope", "env.id=Nope-v0", "-m seed=1,2 recipe.gamma=0.9,2"):
        assert cli("run", *words.split(" "), f"output_root={root}").status == 2
    assert store_runs(root) == []
    assert [p.name for p in root.iterdir() if not p.name.endswith(".lock")] == ["mlflow.db"]


def test_unknown_command_and_flag(cli, tmp_path):
    failed = cli("trian")
    assert failed.status == 2
    assert failed.err.splitlines() == [failed.err.strip()]
    assert "trian" in failed.err
    assert (
        "run, tune, resume, status, ls, alpha, report, export, export-model, claims, instruments, landscape, watch, "
        "ui, completion" in failed.err
    )
    for command in (("run", "--nope", f"output_root={tmp_path / 'out'}"), ("ls", "--nope"), ("report", "--nope")):
        failed = cli(*command)
        assert failed.status == 2
        assert "--nope" in failed.err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_alpha_and_report_complain_the_same_way(cli, tmp_path):
    failed = cli("alpha", "optimizer=nope")
    assert failed.status == 2
    assert failed.err.startswith("alphagrad: optimizer=nope: no such optimizer")
    failed = cli("alpha", "alpha.value=-3")
    assert (failed.status, len(failed.err.splitlines())) == (2, 1)
    failed = cli("report", "--output-root", str(tmp_path / "none"))
    assert (failed.status, len(failed.err.splitlines())) == (2, 1)
    assert "none/mlflow.db" in failed.err
    assert not (tmp_path / "none").exists()


def test_traceback_when_asked_for(cli, tmp_path):
    for place in (0, 1, 2):
        words = ["run", "recipe.gamma=2", f"output_root={tmp_path / 'out'}"]
        words.insert(place, "--traceback")
        with pytest.raises(ConfigError, match=r"recipe\.gamma=2"):
            cli(*words)


def test_messages_do_not_depend_on_the_order(cli, tmp_path):
    """Overrides of a group and of its keys may come in any order."""
    out = f"output_root={tmp_path / 'out'}"
    first = cli("run", "alpha.value=3", "optimizer=adam", out)
    second = cli("run", "optimizer=adam", "alpha.value=3", out)
    assert first.status == second.status == 2
    assert first.err == second.err


def test_a_store_that_is_some_other_file(cli, tmp_path):
    file = tmp_path / "notes.db"
    file.write_text("not a database")
    failed = cli("run", f"tracking.uri=sqlite:///{file}", f"output_root={tmp_path / 'out'}")
    assert failed.status == 2
    assert failed.err.count("\n") == 1
    assert "is not an SQLite database" in failed.err
    assert file.read_text() == "not a database"


@pytest.mark.parametrize("command", ["report", "status"])
def test_the_settings_of_a_run_say_where_the_store_is(cli, root, tmp_path, lab, command):
    lab.chdir(tmp_path)
    words = (f"output_root={root}", "tracking.experiment=nowhere")
    told = cli(command, *words)
    assert (told.status, len(told.err.splitlines())) == (2, 1)
    assert "tracking.experiment=nowhere: not in this store" in told.err
    told = cli(command, "recipe.gamma=1")
    assert (told.status, len(told.err.splitlines())) == (2, 1)
    assert "takes of a run's settings output_root, tracking.uri, tracking.experiment" in told.err


def test_a_word_with_a_blank_before_its_value_is_offered_without(cli):
    told = cli("run", "seed = 3")
    assert told.err == "alphagrad: seed = 3: cannot be read; give seed=3\n"


@pytest.mark.parametrize("command", [("report",), ("status",), ("ui",), ("resume", "3f2a"), ("watch", "3f2a")])
@pytest.mark.parametrize("place", ["~nosuchuser", "x" * 5000])
def test_a_place_that_is_no_path(cli, lab, tmp_path, command, place):
    lab.chdir(tmp_path)
    for words, setting in (("--output-root", place), "output_root"), (("--uri", f"sqlite:///{place}"), "tracking.uri"):
        told = cli(*command, *words)
        assert (told.status, len(told.err.splitlines())) == (2, 1)
        assert told.err.startswith(f"alphagrad: {setting}={place[:50]}")
        assert len(told.err) < 1000
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("point", ["x", "-1", "", "9" * 5000])
def test_completion_does_without_a_cursor_that_is_none(cli, lab, point):
    lab.setenv("COMP_LINE", "alphagrad rep")
    lab.setenv("COMP_POINT", point)
    told = cli("complete")
    assert (told.status, told.out, told.err) == (0, "report\n", "")


@pytest.mark.parametrize("words", [("--trials", "9" * 20), ("--studies", "9" * 4000), ("--studies", "0")])
def test_a_budget_that_is_none(cli, lab, tmp_path, words):
    lab.chdir(tmp_path)
    told = cli("tune", "optimizer=adam", *words)
    assert (told.status, len(told.err.splitlines())) == (2, 1)
    assert told.err.startswith(f"alphagrad: {words[0]}={words[1][:20]}")
    assert "at most 10000" in told.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["a." * 500 + "b", "a/" * 3000 + "b"])
def test_a_setting_longer_than_any_file_s_name_is_refused(cli, lab, tmp_path, key):
    """Hydra looks for a file of that name, dots and all."""
    lab.chdir(tmp_path)
    told = cli("run", f"{key}=1")
    assert (told.status, len(told.err.splitlines())) == (2, 1)
    assert "no such setting; it is longer than any" in told.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "words"),
    [("folder", ("run",)), ("pipe", ("status",)), ("link", ("run", "-m", "seed=0,1")), ("link", ("tune",))],
)
def test_what_is_no_lock_file_is_told_at_once(cli, root, lab, kind, words):
    """Waiting would not change it."""
    from alphagrad.lab.tuning import search as tune

    lab.setattr(tune, "key_of", lambda *_: "key")
    lock = root / {"tune": ".tuning-key.lock"}.get(words[0], "mlflow.db.lock")
    lock.unlink(missing_ok=True)
    {"folder": lock.mkdir, "pipe": lambda: os.mkfifo(lock), "link": lambda: lock.symlink_to("/dev/zero")}[kind]()
    told = cli(*words, f"output_root={root}")
    assert (told.status, len(told.err.splitlines())) == (2, 1), told.err
    assert f"{lock}: is to be a lock file and is no regular file; remove it" in told.err


def test_what_is_no_lock_file_is_held_by_nobody(tmp_path):
    from alphagrad.lab.records.folder import claimed, is_held

    lock = tmp_path / "lock"
    lock.symlink_to("/dev/zero")
    assert not is_held(lock)
    with pytest.raises(ConfigError, match="is no regular file; remove it"), claimed(lock):
        pass
