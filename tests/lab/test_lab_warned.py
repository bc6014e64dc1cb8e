"""What libraries warn of, and what Hydra says of a failed job, on the terminal."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import pytest
from tiers import long

from alphagrad.common import warned
from alphagrad.lab.training.logfiles import Once

sys.path.insert(0, str(Path(__file__).parent))
from forked import start


@pytest.mark.parametrize("launcher", [*long("basic", "stacked", "joblib", "submitit_local")])
def test_a_warning_of_a_library_is_shown_once_a_study(lab, root, tiny, tmp_path, launcher):
    """Though every process makes the environment that gymnasium calls out of date, and some make it often."""
    if launcher in ("joblib", "submitit_local"):
        pytest.importorskip(launcher.partition("_")[0])
    said = tmp_path / "said"
    own = {"stacked": ["stack.max_runs=1"], "joblib": ["hydra.launcher.n_jobs=2"]}
    words = ("recipe=dqn_cartpole", "env.id=CartPole-v0", *tiny, "seed=0,1", *own.get(launcher, []))
    process = start("run", "-m", *words, f"hydra/launcher={launcher}", f"output_root={root}", said=said)
    process.join(240)
    assert process.exitcode == 0, said.read_text()
    told = [line for line in said.read_text().splitlines() if "out of date" in line]
    assert told == [
        "DeprecationWarning of gymnasium: The environment CartPole-v0 is out of date. "
        "You should consider upgrading to version `v1`."
    ]
    logs = "".join(file.read_text() for file in root.rglob("submitit/*.err"))
    assert "out of date" not in logs


@pytest.mark.parametrize("launcher", ["basic", "stacked", "joblib", "submitit_local"])
@pytest.mark.long
def test_of_a_failed_job_our_line_comes_first(cli, odd, root, launcher):
    if launcher in ("joblib", "submitit_local"):
        pytest.importorskip(launcher.partition("_")[0])
    words = ("recipe=odd", "recipe.raising=[0]", "seed=0,1", "recipe.total_steps=2", f"output_root={root}")
    done = cli("run", "-m", f"hydra/launcher={launcher}", *words)
    assert done.status == 1
    assert "Error executing job" not in done.out + done.err
    assert "HYDRA" not in done.out + done.err
    assert "Traceback" not in done.out + done.err
    told = [line for line in done.out.splitlines() if "ZeroDivisionError" in line]
    assert told[0].startswith("alphagrad seed=0: failed, ZeroDivisionError: seed 0 (in ")


def test_what_was_shown_counts_for_all_processes_of_a_command(tmp_path, monkeypatch):
    monkeypatch.setenv(warned.SHOWN, str(tmp_path))
    assert warned.is_new("old")
    assert not warned.is_new("old")
    assert warned.is_new("other")
    other = tmp_path / "command"
    other.mkdir()
    monkeypatch.setenv(warned.SHOWN, str(other))
    assert warned.is_new("old")
    monkeypatch.setenv(warned.SHOWN, str(tmp_path / "on another machine"))
    assert warned.is_new("old")
    assert not warned.is_new("old")


def test_a_command_leaves_the_warnings_as_they_were(recwarn):
    before = warnings.showwarning, warnings.formatwarning
    with warned.once():
        for _ in range(3):
            warnings.warn("\x1b[33mWARN: old\x1b[0m", UserWarning, stacklevel=1)
        shown = warnings.formatwarning("\x1b[33mWARN: old\x1b[0m", UserWarning, "/x/site-packages/gymnasium/a.py", 3)
    assert shown == "UserWarning of gymnasium: old\n"
    assert (warnings.showwarning, warnings.formatwarning) == before
    assert len(recwarn) == 1


def test_libraries_that_log_are_shown_once_too(tmp_path, monkeypatch):
    monkeypatch.setenv(warned.SHOWN, str(tmp_path))

    def shown(name: str, level: int) -> bool:
        return Once().filter(logging.LogRecord(name, level, "", 0, "gave %s", ("out",), None))

    assert [shown("mlflow.store", logging.WARNING) for _ in range(2)] == [True, False]
    assert [shown("alphagrad", logging.WARNING) for _ in range(2)] == [True, True]
    assert [shown("mlflow.store", logging.ERROR) for _ in range(2)] == [True, True]
