"""How a run stands: what its record says, of this alphagrad's and of earlier ones."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from alphagrad.lab.records.lifecycle import (
    DEAD,
    FINISHED,
    REASON,
    STANDING,
    STATUSES,
    Life,
    Standing,
    life_in,
    life_of,
    note_beginning,
    note_end,
    seconds_of,
)

GOES_ON = {Standing.RUNNING, Standing.STOPPED}
OVER = {Standing.FINISHED, Standing.DIVERGED, Standing.PRUNED, Standing.TAKEN_BACK}


class Store:
    """One run, as MLflow's client has it."""

    def __init__(self, status="RUNNING", stage="active", **tags):
        self.run = SimpleNamespace(
            info=SimpleNamespace(run_id="", status=status, lifecycle_stage=stage, start_time=0, end_time=None),
            data=SimpleNamespace(tags=tags),
        )

    def set_tag(self, run_id, key, value):
        self.run.data.tags[key] = value

    def delete_tag(self, run_id, key):
        del self.run.data.tags[key]

    def set_terminated(self, run_id, status):
        self.run.info.status = status

    def update_run(self, run_id, status):
        self.run.info.status = status


@pytest.mark.parametrize("standing", Standing)
def test_each_standing(standing):
    life = Life(standing, "because")
    assert life.status in STATUSES
    assert life.over == (standing in OVER)
    assert life.can_go_on == (standing in GOES_ON)
    assert not (life.over and life.can_go_on)
    assert life.failed == (standing in (Standing.FAILED, Standing.DIVERGED)) == (life.status == "FAILED")
    assert (life.finished, life.pruned, life.running, life.taken_back) == tuple(
        standing is one for one in (Standing.FINISHED, Standing.PRUNED, Standing.RUNNING, Standing.TAKEN_BACK)
    )
    assert life_in(life.plain()) == life


ENDS = set(Standing) - {Standing.MISSING, Standing.RUNNING, Standing.TAKEN_BACK}


@pytest.mark.parametrize("standing", sorted(ENDS))
def test_an_end_is_read_as_it_was_written(standing):
    store, life = Store(), Life(standing, "" if standing is Standing.FINISHED else "diverged, it says, of old")
    note_end(store, "", life)
    assert life_of(store.run) == life
    note_beginning(store, store.run, [])
    assert life_of(store.run) == Life(Standing.RUNNING)
    assert not {STANDING, REASON} & set(store.run.data.tags)


@pytest.mark.parametrize(
    ("life", "end", "moments", "trained"),
    [
        (Life(Standing.STOPPED, "interrupted"), 60, [50], 60),
        (DEAD, 3600, [10, 50, 20], 50),  # somebody noticed an hour later
        (DEAD, 3600, [], 0),
        (Life(Standing.RUNNING), None, [50], 50),  # nobody did
        (Life(Standing.RUNNING), 7, [50], 50),  # its end is that of an earlier stop
    ],
)
def test_a_pause_is_no_training(monkeypatch, life, end, moments, trained):
    store = Store()
    if not life.running:
        note_end(store, "", life)
    store.run.info.end_time = end and end * 1000
    monkeypatch.setattr("time.time", lambda: 10_000.0)
    note_beginning(store, store.run, [moment * 1000 for moment in moments])
    assert seconds_of(store.run) is None
    assert seconds_of(store.run, now=10_005.0) == pytest.approx(trained + 5)
    note_end(store, "", Life(Standing.STOPPED))
    store.run.info.end_time = 10_010_000
    assert seconds_of(store.run) == pytest.approx(trained + 10)
    monkeypatch.setattr("time.time", lambda: 10_110.0)
    note_beginning(store, store.run, [])
    note_end(store, "", FINISHED)
    store.run.info.end_time = 10_120_000
    assert seconds_of(store.run) == pytest.approx(trained + 20)


def test_a_run_whose_process_was_killed_and_one_that_somebody_changed():
    store = Store()
    note_end(store, "", DEAD)
    assert life_of(store.run).can_go_on
    note_end(store, "", FINISHED)
    store.run.info.status = "FAILED"  # in MLflow's UI, say
    assert life_of(store.run).standing is Standing.FAILED
    store.run.info.lifecycle_stage = "deleted"
    assert life_of(store.run).taken_back


@pytest.mark.parametrize("standing", [Standing.DIVERGED, Standing.PRUNED, Standing.FAILED, Standing.STOPPED])
@pytest.mark.parametrize(("status", "meant"), [("FINISHED", Standing.FINISHED), ("RUNNING", Standing.RUNNING)])
def test_a_status_that_somebody_gave_counts(standing, status, meant):
    store = Store()
    note_end(store, "", Life(standing, f"{standing} at step 3"))
    store.run.info.status = status
    assert life_of(store.run).standing is meant


def test_a_run_that_was_taken_back_and_restored_can_go_on():
    store = Store()
    note_end(store, "", Life(Standing.TAKEN_BACK, "its stack ended"))
    assert life_of(store.run).can_go_on
    store.run.info.lifecycle_stage = "deleted"
    assert life_of(store.run).over


@pytest.mark.parametrize(
    ("status", "reason", "standing"),
    [
        ("FINISHED", "", Standing.FINISHED),
        ("FAILED", "ValueError: no", Standing.FAILED),
        ("FAILED", "diverged at step 3: loss is nan", Standing.DIVERGED),
        ("KILLED", "pruned at step 3: worse", Standing.PRUNED),
        ("KILLED", "KeyboardInterrupt", Standing.STOPPED),
        ("RUNNING", "", Standing.RUNNING),
        ("SCHEDULED", "", Standing.RUNNING),
    ],
)
def test_a_run_of_an_earlier_alphagrad(status, reason, standing):
    tags = {REASON: reason} if reason else {}
    assert life_of(Store(status, **tags).run) == Life(standing, reason)


def test_a_state_of_an_earlier_alphagrad():
    assert life_in("FINISHED") == FINISHED
    assert life_in("diverged at step 2: x").standing is Standing.DIVERGED
    assert life_in("pruned at step 2: x").pruned
    assert life_in("ZeroDivisionError").failed
