"""Signals at the worst moments, in this process: a run being created, an interruption that Python drops."""

from __future__ import annotations

import signal
import sys
import time
import weakref
from types import SimpleNamespace

import pytest

from alphagrad.common.errors import StorageLost
from alphagrad.common.interrupts import check, closing_runs_on_signals
from alphagrad.lab.records.run import Tracker
from alphagrad.lab.store.address import store_uri


def test_a_signal_while_the_store_creates_the_run(lab, root, store_runs, monkeypatch):
    """The store has the run, but its creator does not know its id yet."""
    tracker = Tracker(store_uri(None, root), "alphagrad")
    create = tracker.client.client.create_run

    def interrupted(*arguments, **more):
        created = create(*arguments, **more)
        signal.raise_signal(signal.SIGTERM)
        return created

    monkeypatch.setattr(tracker.client.client, "create_run", interrupted)
    with pytest.raises(SystemExit), closing_runs_on_signals(), tracker.run("a run", {"a": 1}, {}):
        raise AssertionError("the signal was lost")
    assert [run.info.status for run in store_runs(root)] == ["KILLED"]


def test_a_run_whose_creation_fails_half_way(lab, root, store_runs, monkeypatch):
    """It can go on: the store's fault is no failure of the run."""
    tracker = Tracker(store_uri(None, root), "alphagrad", retry_seconds=0.3)

    def refuse(*arguments, **more):
        raise OSError("no")

    monkeypatch.setattr(tracker.client.client, "log_batch", refuse)
    with pytest.raises(StorageLost, match="no"), tracker.run("a run", {"a": 1}, {}):
        raise AssertionError("the run began")
    assert [run.info.status for run in store_runs(root)] == ["KILLED"]


class Anything:
    pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_that_python_drops_is_not_lost(number):
    """Exceptions in a weak reference's callback are printed and dropped; compiling is full of such callbacks."""
    from alphagrad.lab.training.log import TrackedLog
    from alphagrad.lab.training.torchrun import Leader

    kind = KeyboardInterrupt if number == signal.SIGINT else SystemExit
    settings = SimpleNamespace(instruments=SimpleNamespace(every=0), checkpoint=SimpleNamespace(best=None))
    job = SimpleNamespace(observation=None, settings=settings)
    before = signal.getsignal(number)
    log = TrackedLog([], SimpleNamespace(update=lambda *_: None), job, Leader())
    with closing_runs_on_signals():
        check()
        log.progress(1, "")
        thing = Anything()
        reference = weakref.ref(thing, lambda _: signal.raise_signal(number))
        del thing  # the signal comes here, and its exception is dropped
        assert reference() is None
        with pytest.raises(kind):
            log.progress(2, "")
        with pytest.raises(kind):
            log.metrics(0, 2, {})
        signal.raise_signal(number)  # while runs are closed, another one does nothing
    assert signal.getsignal(number) == before
    check()


def sleep_after(number: int) -> None:
    """Sends itself a signal where an exception is dropped, and sleeps."""
    thing = Anything()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(number))
    del thing
    time.sleep(20)
    raise AssertionError(reference)


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="this system has no alarm")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_that_python_drops_is_raised_again(number, capsys):
    """Soon, and not at the next look, which may be minutes away."""
    kind = KeyboardInterrupt if number == signal.SIGINT else SystemExit
    with pytest.raises(kind), closing_runs_on_signals():
        sleep_after(number)
    assert "ignored" not in capsys.readouterr().err


def test_what_else_python_drops_is_told(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: told.append(lost.exc_type))
    with closing_runs_on_signals():
        anything = Anything()
        follower = weakref.ref(anything, lambda _: 1 / 0)
        del anything
    assert follower() is None
    assert told == [ZeroDivisionError]
