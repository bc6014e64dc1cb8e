"""Many metrics of many runs read at once, in a tenth of the time that MLflow's call for each of them takes."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import numpy as np

Curve = tuple[np.ndarray, np.ndarray]
"""Steps, rising, and values."""
RUNS = 400
"""In one question to a database."""


def curves(client: Any, run_ids: Sequence[str], metrics: Sequence[str]) -> dict[tuple[str, str], Curve]:
    """(run, metric) → its curve, for those of which there is a point.

    Args:
        client: of the store, a :class:`alphagrad.lab.store.patience.PatientClient`.
        run_ids: the runs.
        metrics: their metrics.
    """
    rows = client.ask(lambda bare: _from_database(bare, run_ids, metrics))
    if rows is None:
        rows = (
            (run_id, metric, point.step, point.value)
            for run_id in run_ids
            for metric in metrics
            for point in client.get_metric_history(run_id, metric)
        )
    found: dict[tuple[str, str], Curve] = {}
    for key, points in groupby(rows, lambda row: (row[0], row[1])):
        _, _, told, logged = zip(*points, strict=True)
        steps, values = np.array(told), np.array(logged, dtype=float)
        large = np.abs(values) >= sys.float_info.max
        values[large] = np.copysign(np.inf, values[large])
        order = np.lexsort((values, steps))
        found[key] = steps[order], values[order]
    return found


def as_logged(value: float) -> float:
    """A metric's value as the run had it: a store has ±1.797e308, the largest number there is, for ±infinity."""
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value


def _from_database(
    client: Any, run_ids: Sequence[str], metrics: Sequence[str]
) -> Iterable[tuple[str, str, int, float]] | None:
    """Rows of a store in a database, each curve's together; None for a store of another kind."""
    store: Any = getattr(getattr(client, "_tracking_client", None), "store", None)
    if not hasattr(store, "ManagedSessionMaker"):
        return None
    from mlflow.store.tracking.dbmodels.models import SqlMetric
    from sqlalchemy import select

    table = SqlMetric.__table__.c  # plain rows, in half the time that MLflow's objects take
    columns = table.run_uuid, table.key, table.step, table.value, table.is_nan
    rows: list[tuple[str, str, int, float]] = []
    for part in (run_ids[start : start + RUNS] for start in range(0, len(run_ids), RUNS)):
        asked: Any = select(*columns).where(table.run_uuid.in_(part), table.key.in_(list(metrics)))
        with store.ManagedSessionMaker() as session:
            answer = session.execute(asked.order_by(table.run_uuid, table.key)).all()
        rows += [(run, key, step, value if not none else math.nan) for run, key, step, value, none in answer]
    return rows
