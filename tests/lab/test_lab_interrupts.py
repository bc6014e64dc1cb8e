"""Ctrl-C and SIGTERM, to real processes: every run that was begun says KILLED."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from forked import Command

from alphagrad.common import interrupts
from alphagrad.common.interrupts import check, closing_runs_on_signals
from alphagrad.lab.launching.resume import told

INTERRUPTED, TERMINATED = (signal.SIGINT, 130), (signal.SIGTERM, 143)
COMMAND = [sys.executable, "-m", "alphagrad_cli", "run"]
ENDLESS = ("recipe.total_steps=100000000", "recipe.eval_every=0", "recipe.compile=false")


def wait_for(condition, process: subprocess.Popen | Command, what: str) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert process.poll() is None, f"the run ended before {what}: {process.communicate()}"
        assert time.monotonic() < deadline, f"no {what} in time"
        time.sleep(0.1)


@pytest.fixture
def start(lab, root, started):
    """``start("seed=1")`` → the process of a run that never ends by itself."""

    def call(*words: str) -> subprocess.Popen:
        command = [*COMMAND, *words, *ENDLESS, f"output_root={root}"]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=root, start_new_session=True))
        return started[-1]

    return call


@pytest.fixture
def start_forked(lab, root, tmp_path, started):
    """As ``start``; the process need not import anything first."""

    def call(*words: str) -> Command:
        started.append(Command("run", *words, *ENDLESS, f"output_root={root}", cwd=root, said=tmp_path / "said"))
        return started[-1]

    return call


def begun(root: Path) -> list[Path]:
    """The runs that are in the store: their folder holds their id, and unlike a study's their configuration."""
    return [file for file in root.rglob("run_id") if file.with_name("config.yaml").exists()]


@pytest.mark.long
@pytest.mark.parametrize(("number", "status"), [INTERRUPTED, pytest.param(*TERMINATED, marks=pytest.mark.slow)])
def test_a_single_run(start, root, store_runs, number, status):
    process = start()
    wait_for(lambda: begun(root), process, "run")
    time.sleep(0.5)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status
    assert "Traceback" not in said
    (run,) = store_runs(root)
    assert run.info.status == "KILLED"
    assert run.info.end_time
    assert run.data.tags["alphagrad.reason"].startswith(("KeyboardInterrupt", "Terminated"))
    assert not list(root.rglob("*.tmp"))


@pytest.mark.long
@pytest.mark.parametrize(("number", "status"), [pytest.param(*INTERRUPTED, marks=pytest.mark.slow), TERMINATED])
def test_a_multirun(start_forked, root, store_runs, number, status):
    process = start_forked("-m", "seed=range(3)", "optimizer=adam,alphagrad")
    wait_for(lambda: begun(root), process, "child")
    time.sleep(0.5)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status
    assert "Traceback" not in said
    runs = store_runs(root)
    assert [run.info.status for run in runs] == ["KILLED", "KILLED"]  # the parent and the child that was training
    (parent,) = [r for r in runs if r.data.tags.get("alphagrad.kind") == "study"]
    (child,) = [r for r in runs if r is not parent]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_impatience_does_not_leave_a_run_open(start_forked, root, store_runs):
    """Signals that come while the run is being closed do not stop that."""
    process = start_forked()
    wait_for(lambda: begun(root), process, "run")
    for _ in range(5):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT)  # the last may meet Python on its way out
    assert [run.info.status for run in store_runs(root)] == ["KILLED"]


def test_a_signal_before_anything_has_begun(start, root, store_runs):
    process = start()
    time.sleep(0.3)  # Python is still importing
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert "RUNNING" not in {run.info.status for run in store_runs(root)}


@pytest.mark.long
@pytest.mark.parametrize(("number", "status"), [INTERRUPTED, pytest.param(*TERMINATED, marks=pytest.mark.slow)])
def test_a_stacked_multirun(start_forked, root, store_runs, number, status):
    process = start_forked("-m", "hydra/launcher=stacked", "seed=range(2)", "optimizer=adam", "stack.processes=2")
    wait_for(lambda: len(begun(root)) == 2, process, "runs")
    time.sleep(0.5)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # a terminal's Ctrl-C reaches the whole group
    else:
        process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == status
    assert [run.info.status for run in store_runs(root)] == ["KILLED"] * 3
    for _ in range(100):  # Python's own helper processes notice a moment later that theirs has ended
        if not left(process):
            break
        time.sleep(0.1)
    assert not left(process)


def left(process: subprocess.Popen) -> bool:
    """Whether any process of the group is left."""
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.long
def test_a_closed_terminal(lab, root, store_runs, started):
    """The run is closed though nothing can be written to its terminal any more."""
    import pty

    terminal, own = pty.openpty()
    command = [*COMMAND, *ENDLESS, f"output_root={root}"]
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup, the run would not heed it
    process = subprocess.Popen(command, stdin=own, stdout=own, stderr=own, cwd=root, start_new_session=True)
    signal.signal(signal.SIGHUP, before)
    started.append(process)
    os.close(own)
    wait_for(lambda: begun(root), process, "run")
    time.sleep(0.5)
    process.send_signal(signal.SIGHUP)
    os.close(terminal)
    assert process.wait(60) == 128 + signal.SIGHUP
    (run,) = store_runs(root)
    assert run.info.status == "KILLED"


def test_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with closing_runs_on_signals():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        with closing_runs_on_signals():
            signal.raise_signal(signal.SIGHUP)
            check()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_what_an_idle_worker_ignores_is_heard_while_it_trains(number, error):
    """Of a farm's worker only hanging up stays ignored, which a user asks for."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with pytest.raises(error), closing_runs_on_signals():
            signal.raise_signal(number)
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.fixture
def iteration(monkeypatch):
    """What runs while a signal waits for the end of an iteration."""
    monkeypatch.setattr(interrupts, "TOGETHER_SECONDS", 0.2)
    monkeypatch.setattr(interrupts, "GRACE_SECONDS", 60.0)
    with closing_runs_on_signals(), interrupts.at_ends_of_iterations():
        yield


def test_a_signal_waits_for_the_end_of_an_iteration(iteration):
    signal.raise_signal(signal.SIGINT)
    check()  # does not raise yet
    signal.raise_signal(signal.SIGTERM)  # of the same wish: a launcher sends it, too
    assert interrupts.came()
    with pytest.raises(KeyboardInterrupt):
        interrupts.iteration_ended()
    with pytest.raises(KeyboardInterrupt):
        check()  # it came, and does not wait any more


def test_a_second_signal_does_not_wait(iteration):
    signal.raise_signal(signal.SIGTERM)
    time.sleep(0.3)
    with pytest.raises(SystemExit) as left:
        signal.raise_signal(signal.SIGINT)
    assert left.value.code == 128 + signal.SIGTERM


def test_a_signal_does_not_wait_for_ever(iteration, monkeypatch):
    monkeypatch.setattr(interrupts, "GRACE_SECONDS", 0.1)
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        time.sleep(10)


def test_no_signal_ends_no_iteration(iteration):
    interrupts.iteration_ended()
    check()


@pytest.mark.parametrize(("number", "status"), [INTERRUPTED, TERMINATED])
@pytest.mark.long
def test_what_a_run_has_reached_is_saved(cli, at, lab, root, tiny, number, status):
    """Though none was due; the last line says what goes on, and that ends as a run that was not interrupted does."""
    words = ("run", *tiny, "checkpoint.every_seconds=null", "recipe.compile=false", f"output_root={root}")
    folders = [root / name for name in ("whole", "stopped")]
    assert cli(*words, f"hydra.run.dir={folders[0]}").status == 0
    at(40, lambda: signal.raise_signal(number))
    stopped = cli(*words, f"hydra.run.dir={folders[1]}")
    assert stopped.status == status
    last = stopped.err.splitlines()[-1]
    assert last == f"alphagrad: stopped at step 41; `alphagrad resume {folders[1]}` goes on"
    assert [file.name for file in folders[1].glob("state-*.pt")] == ["state-000000000041.pt"]
    lab.undo()
    assert cli("resume", str(folders[1])).status == 0
    whole, resumed = (tensors_in(torch.load(folder / "checkpoint.pt", weights_only=True)) for folder in folders)
    assert len(whole) > 4
    assert all(torch.equal(one, other) for one, other in zip(whole, resumed, strict=True))


@pytest.mark.parametrize(("number", "status"), [INTERRUPTED, TERMINATED])
@pytest.mark.long
def test_what_fails_by_a_signal_is_stopped(cli, at, root, tiny, store_runs, number, status):
    """As where another process of the run has gone before this one."""

    def fail() -> None:
        signal.raise_signal(number)
        raise RuntimeError("connection closed by peer")

    at(40, fail)
    stopped = cli("run", *tiny, "recipe.compile=false", f"output_root={root}")
    assert stopped.status == status
    assert "connection closed" not in stopped.err
    assert [run.info.status for run in store_runs(root)] == ["KILLED"]


def tensors_in(content) -> list[torch.Tensor]:
    if isinstance(content, dict):
        return [tensor for key in content for tensor in tensors_in(content[key])]
    return [content] if isinstance(content, torch.Tensor) else []


def test_of_a_run_that_had_not_begun_nothing_goes_on(tmp_path, capsys):
    stop = KeyboardInterrupt()
    assert told(stop, tmp_path) is stop
    assert capsys.readouterr().err == ""
    (tmp_path / "config.yaml").write_text("a: 1\n")
    assert told(stop, tmp_path).args  # the command line has nothing to add
    assert f"`alphagrad resume {tmp_path}` goes on" in capsys.readouterr().err
