"""What samples say of what they were drawn from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 10_000
BATCH = 500
"""Resamples at a time, which bounds the memory."""


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Percentile-bootstrap interval of the mean at 95 %; None for fewer than two values, or one that is not finite."""
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    low, high = intervals(np.asarray(values, dtype=float)[:, None])
    return float(low[0]), float(high[0])


def intervals(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """:func:`interval` of each column, as arrays of lower and upper bounds; NaN where a value is not finite.

    Args:
        rows: a row for each sample, at least two.
    """
    low, high = np.full((2, rows.shape[1]), np.nan)
    finite = np.isfinite(rows).all(0)
    equal = finite & (rows == rows[0]).all(0)
    low[equal] = high[equal] = rows[0, equal]
    if (spread := finite & ~equal).any():
        found = stats.bootstrap(
            (rows[:, spread],),
            np.mean,
            axis=0,
            batch=BATCH,
            confidence_level=CONFIDENCE,
            n_resamples=RESAMPLES,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
        low[spread], high[spread] = found.low, found.high
    return low, high
