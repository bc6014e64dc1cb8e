"""`alphagrad resume`: what is refused, and what is not read."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from stopped import EVERY, MORE, OPTIMIZERS, interrupt
from tiers import one_in

from alphagrad.common.errors import ConfigError
from alphagrad.lab.config.build import build
from alphagrad.lab.records.checkpoint import load_safely
from alphagrad.lab.records.folder import stack_of


class Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.long
def test_a_malicious_state_is_refused(cli, at, root, tiny, store_runs):
    """And the run is as it was: with the file put right, it goes on."""
    folder = root / "run"
    at(70, interrupt)
    assert cli("run", *tiny, *EVERY, f"output_root={root}", f"hydra.run.dir={folder}").status == 130
    *_, state = sorted(folder.glob("state-*.pt"))
    good = state.read_bytes()
    torch.save({"version": 1, "step": 70, "parts": Malicious(root / "mark")}, state)
    refused = cli("resume", str(folder))
    assert refused.status == 2
    assert "refused" in refused.err
    assert len(refused.err.splitlines()) == 1
    assert not (root / "mark").exists()
    assert [run.info.status for run in store_runs(root)] == ["KILLED"]
    state.write_bytes(good)
    assert cli("resume", str(folder)).status == 0


def test_a_run_that_its_store_does_not_have(cli, at, root, tiny, store_runs):
    at(20, interrupt)
    folder = root / "run"
    assert cli("run", f"output_root={root}", f"hydra.run.dir={folder}", *tiny, *EVERY).status == 130
    (run,) = store_runs(root)
    states = list(folder.glob("state-*.pt"))
    with closing(sqlite3.connect(root / "mlflow.db")) as store, store:
        store.execute("DELETE FROM runs")
    failed = cli("resume", str(folder))
    assert failed.status == 2
    (said,) = [line for line in failed.err.splitlines() if line.startswith("alphagrad: ")]
    assert f"{folder}: its run {run.info.run_id} is not in the store sqlite:///" in said
    assert list(folder.glob("state-*.pt")) == states != []


def test_an_unknown_run_makes_no_store(cli, tmp_path):
    none = tmp_path / "none"
    failed = cli("resume", "deadbeef", "--output-root", str(none))
    assert failed.status == 2
    assert "there is no such store yet" in failed.err
    assert not none.exists()


def test_what_cannot_be_gone_on_with(cli, root, tmp_path):
    for what, needed in ((str(tmp_path), "is not the folder of a run or study"), ("feed", "0 runs have an id")):
        failed = cli("resume", what, "--output-root", str(root))
        assert failed.status == 2
        assert needed in failed.err
        assert len(failed.err.splitlines()) == 1


@pytest.mark.parametrize("words", [*((f"optimizer={name}",) for name in OPTIMIZERS), *MORE], ids=" ".join)
def test_what_a_run_has_noted_can_be_built(composed, words):
    """In it nothing points to the sections any more that recipe and optimizer use."""
    noted = OmegaConf.create(OmegaConf.to_yaml(composed(*words), resolve=True))
    assert {"env", "recipe", "optimizer"} <= set(noted)
    build(noted)


def test_a_section_that_nothing_uses_is_refused_where_it_is_composed(composed):
    with pytest.raises(ConfigError, match="nosuch: no such setting"):
        composed("+nosuch=1")


@pytest.mark.parametrize("name", ["arguments.json", "config.yaml", "members.json", "run_id", "stack"])
def test_a_pipe_in_a_folder_is_not_read(cli, composed, tmp_path, name):
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(composed(f"output_root={tmp_path}"), resolve=True))
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    signal.alarm(60)  # ends the test's process, rather than never
    failed = cli("resume", str(tmp_path))
    signal.alarm(0)
    assert failed.status == 2
    (line,) = failed.err.splitlines()
    assert f"{name}: " in line
    assert "is no regular file" in line


@pytest.mark.parametrize("name", ["arguments.json", "config.yaml", "members.json", "run_id", "stack"])
@pytest.mark.long
def test_a_file_far_too_large_is_not_read(cli, composed, tmp_path, name):
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(composed(f"output_root={tmp_path}"), resolve=True))
    (tmp_path / name).touch()
    os.truncate(tmp_path / name, 1 << 33)
    failed = cli("resume", str(tmp_path))
    assert failed.status == 2
    (line,) = failed.err.splitlines()
    assert f"{name}: is damaged, it holds 8,589,934,592 bytes" in line


def test_a_configuration_that_repeats_itself_without_end_is_not_read(cli, composed, tmp_path):
    bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    bomb += [f"a{k + 1}: &a{k + 1} [{', '.join([f'*a{k}'] * 9)}]" for k in range(9)]
    (tmp_path / "config.yaml").write_text("\n".join(bomb))
    signal.alarm(60)
    failed = cli("resume", str(tmp_path))
    signal.alarm(0)
    assert failed.status == 2
    (line,) = failed.err.splitlines()
    assert f"{tmp_path}/config.yaml: cannot be read (it repeats parts of itself" in line


@pytest.mark.parametrize(
    "name", one_in(3, ["config.yaml", "run_id", "members.json", "stack", "checkpoint.pt", "best.pt"])
)
def test_a_folder_in_place_of_a_file_is_told_before_a_run_begins(cli, root, tiny, store_runs, name):
    folder = root / "run"
    (folder / name).mkdir(parents=True)
    refused = cli("run", *tiny, f"output_root={root}", f"hydra.run.dir={folder}")
    assert (refused.status, len(refused.err.splitlines())) == (2, 1), refused.err
    assert f"{folder / name}: is a folder, and is to be a file; remove it" in refused.err
    assert store_runs(root) == []


@pytest.mark.long
def test_a_folder_that_bears_a_states_name_hinders_nothing(cli, at, root, tiny, store_runs):
    folder = root / "run"
    at(70, interrupt)
    assert cli("run", *tiny, *EVERY, f"output_root={root}", f"hydra.run.dir={folder}").status == 130
    older, _ = sorted(folder.glob("state-*.pt"))
    older.unlink()
    older.mkdir()
    done = cli("resume", str(folder))
    assert done.status == 0, done.err
    assert [run.info.status for run in store_runs(root)] == ["FINISHED"]
    assert list(folder.glob("state-*")) == [older]


@pytest.mark.parametrize("damaged", ["", "../stack-a67f", "null"])
def test_a_stack_that_cannot_be_named_is_told(tmp_path, damaged):
    """Or the run would begin anew, and the stack's state be left behind."""
    (tmp_path / "stack").write_text(damaged)
    with pytest.raises(ConfigError, match="stack: is damaged, it names no stack; remove it"):
        stack_of(tmp_path)
    (tmp_path / "stack").write_text("../stack-a67f6185")  # which somebody has removed
    assert stack_of(tmp_path) == (tmp_path, [])


def test_a_pipe_in_place_of_a_state_is_damaged(tmp_path):
    os.mkfifo(tmp_path / "state.pt")
    signal.alarm(60)
    with pytest.raises(ConfigError, match=r"state\.pt: is damaged, it is no regular file"):
        load_safely(tmp_path / "state.pt")
    signal.alarm(0)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("tracking.uri", {"_target_": "builtins.print"}),
        ("tracking", 3),
        ("output_root", ["a", "b"]),
        ("output_root", None),
        ("threads", "many"),
        ("recipe.gamma", 7),
        ("recipe._target_", "os.system"),
        ("optimizer.lr", [1, {"a": 2}]),
        ("env", 5),
    ],
)
def test_a_damaged_configuration_is_told_with_its_file(cli, composed, root, tmp_path, setting, value):
    folder = tmp_path / "run"
    folder.mkdir()
    words = ("tracking=none", f"output_root={root}")
    noted = OmegaConf.create(OmegaConf.to_yaml(composed(*words), resolve=True))
    OmegaConf.update(noted, setting, value, merge=False)
    if setting == "env":
        noted.recipe.env = value
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(noted))
    failed = cli("resume", str(folder))
    assert failed.status == 2
    (line,) = failed.err.splitlines()
    assert line.startswith(f"alphagrad: {folder}/config.yaml: {'recipe.env' if setting == 'env' else setting}")
