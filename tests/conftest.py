"""Settings of all tests, and fixtures of the laboratory's: nothing leaks from the shell or between tests."""

from __future__ import annotations

import os

# before anything imports torch or mlflow
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MPLBACKEND"] = "Agg"

import logging
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import recalled
import warm

CHECKOUT = Path(__file__).resolve().parent.parent
# a run of a few gradient steps, under a second
TINY = (
    "recipe.total_steps=120",
    "recipe.learning_starts=20",
    "recipe.log_every=40",
    "recipe.eval_episodes=2",
    "recipe.batch_size=16",
    "recipe.target_every=25",
    "instruments.every=4",
)


@pytest.fixture(scope="session", autouse=True)
def quick():
    """Hydra reads each shipped file once (:mod:`recalled`), and workers need not import anything (:mod:`warm`).

    A study's report, which takes a second, is made where a test asks for it.
    """
    with recalled.recalled(), warm.spawning_warm(), pytest.MonkeyPatch.context() as patched:
        patched.setattr("alphagrad.lab.evidence.conclusion.MOST_RUNS", -1)
        yield


@pytest.fixture
def started():
    """Takes processes that lead sessions of their own; of these none is left after the test."""
    taken: list[subprocess.Popen] = []
    yield taken
    for process in taken:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@dataclass
class Outcome:
    """What a command left behind."""

    status: int
    out: str
    err: str


@pytest.fixture
def lab(monkeypatch):
    """The laboratory as in a fresh shell: none of the user's settings, Hydra's traces removed afterwards."""
    for name in ("MLFLOW_TRACKING_URI", "ALPHAGRAD_CONF", "ALPHAGRAD_PARENT_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HYDRA_FULL_ERROR", "COMP_LINE", "COMP_POINT"):
        # set first, so that monkeypatch also undoes what the command line sets
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "argv", ["alphagrad"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    level, handlers = logging.root.level, list(logging.root.handlers)
    yield monkeypatch
    for handler in logging.root.handlers:
        if handler not in handlers:
            handler.close()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture
def odd(lab) -> Path:
    """The recipe ``odd``, which fails on demand, in this process and in all that it starts; its configuration."""
    folder = CHECKOUT / "tests/lab/odd"
    lab.syspath_prepend(str(folder))
    lab.setenv("PYTHONPATH", str(folder))
    lab.setenv("ALPHAGRAD_CONF", str(folder))
    return folder


@pytest.fixture
def cli(lab, capfd):
    """``cli("run", "seed=1")`` → its :class:`Outcome`, in this process."""
    import alphagrad_cli

    def call(*arguments: str) -> Outcome:
        capfd.readouterr()
        try:
            status = alphagrad_cli.main(list(arguments))
        except SystemExit as left:  # argparse's and Hydra's way out
            status = left.code or 0
        written = capfd.readouterr()
        return Outcome(status, written.out, written.err)

    return call


@pytest.fixture
def at(lab):
    """``at(step, act)``: ``act()`` is called when the run has taken so many steps for the first time."""

    def call(step: int, act) -> None:
        from alphagrad.lab.training.log import TrackedLog

        checkpoint, done = TrackedLog.checkpoint, []

        def watched(self, reached, parts, result):
            checkpoint(self, reached, parts, result)
            if reached == step and not done:
                done.append(True)
                act()

        lab.setattr(TrackedLog, "checkpoint", watched)

    return call


@pytest.fixture
def composed(lab):
    """``composed("optimizer=adam")`` → the configuration of one job."""
    from alphagrad.lab.config import compose

    with compose.hydra_initialized():
        yield lambda *overrides: compose.compose(overrides)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """A store without runs; making its tables takes MLflow seconds, so most tests copy this one."""
    from alphagrad.lab.store.connection import open_store

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    open_store(f"sqlite:///{file}")
    return file


@pytest.fixture
def root(tmp_path, empty_store) -> Path:
    """An output folder with an empty store in it."""
    folder = tmp_path / "outputs"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    return folder


def runs_of(root: Path) -> list:
    """All runs in the store under an output folder, oldest first; none if there is no store."""
    from alphagrad.lab.store.address import store_uri
    from alphagrad.lab.store.connection import open_store

    if not (root / "mlflow.db").exists():
        return []
    client = open_store(store_uri(None, root))
    ids = [e.experiment_id for e in client.search_experiments()]
    return client.search_runs(ids, order_by=["start_time ASC"])


@pytest.fixture
def store_runs():
    """The function :func:`runs_of`."""
    return runs_of


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The folder of the checkout."""
    return CHECKOUT


@pytest.fixture
def tiny() -> tuple[str, ...]:
    """Overrides that make a run short."""
    return TINY
