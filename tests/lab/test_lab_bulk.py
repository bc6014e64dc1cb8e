"""Metrics written in bulk are in the store as MLflow's own call writes them."""

from __future__ import annotations

import math
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alphagrad.lab.store import bulk

NUMBERS = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.integers(-3, 3).map(float))
POINTS = st.lists(
    st.tuples(st.sampled_from(["a", "b/c", "return"]), NUMBERS, st.integers(1, 3), st.integers(0, 4)), max_size=30
)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    from alphagrad.lab.store.connection import open_store

    return open_store(f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db").client


@pytest.fixture(scope="module")
def new_run(client):
    experiment = client.create_experiment("bulk")
    return lambda: client.create_run(experiment).info.run_id


def rows(client, run_id):
    """Both tables of metrics, as they are on the disk."""
    path = client.tracking_uri.removeprefix("sqlite:///")
    with sqlite3.connect(path) as database:
        return {
            table: sorted(
                database.execute(
                    f"SELECT key, value, timestamp, step, is_nan FROM {table} WHERE run_uuid = ?",
                    (run_id,),
                )
            )
            for table in ("metrics", "latest_metrics")
        }


@pytest.mark.long
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(POINTS, min_size=1, max_size=3))
def test_the_tables_are_as_after_mlflows_own_call(client, new_run, batches):
    """Repeated points, batches in any order of steps, NaN and infinities included."""
    from mlflow.entities import Metric

    ours, theirs = new_run(), new_run()
    for points in batches:
        bulk.log_points(client, ours, points, {})
        client.log_batch(theirs, metrics=[Metric(*point) for point in points])
    assert rows(client, ours) == rows(client, theirs)


def test_points_are_inserted_and_tags_set(client, new_run, monkeypatch):
    """What MLflow's own call gets is tags alone: that is what makes it fast."""
    run_id = new_run()
    given_to_mlflow = []
    call = client.log_batch
    monkeypatch.setattr(
        client, "log_batch", lambda *a, **more: given_to_mlflow.append(more["metrics"]) or call(*a, **more)
    )
    bulk.log_points(client, run_id, [("a", 1.5, 7, 2), ("a", math.nan, 8, 3)], {"at": "3/9"})
    assert given_to_mlflow == [[]]
    run = client.get_run(run_id)
    assert run.data.tags["at"] == "3/9"
    assert [(m.step, m.timestamp) for m in client.get_metric_history(run_id, "a")] == [(2, 7), (3, 8)]
    assert math.isnan(run.data.metrics["a"])


def test_a_store_of_another_make_is_written_to_by_mlflows_call(client, new_run, monkeypatch):
    run_id = new_run()
    monkeypatch.setattr(bulk, "COLUMNS", {"key", "value"})
    bulk.log_points(client, run_id, [("a", 1.0, 1, 1)], {})
    assert client.get_run(run_id).data.metrics == {"a": 1.0}


def test_a_run_that_is_deleted_takes_no_points(client, new_run):
    from mlflow.exceptions import MlflowException

    run_id = new_run()
    client.delete_run(run_id)
    with pytest.raises(MlflowException, match="active"):
        bulk.log_points(client, run_id, [("a", 1.0, 1, 1)], {})


@pytest.mark.parametrize("name", ["loss?", "a//b", "../a", "x" * 300, ""])
def test_a_name_that_mlflow_refuses_is_refused(client, new_run, name):
    from mlflow.exceptions import MlflowException

    run_id = new_run()
    with pytest.raises(MlflowException):
        bulk.log_points(client, run_id, [("a", 1.0, 1, 1), (name, 1.0, 1, 1)], {})
    assert rows(client, run_id)["metrics"] == []
