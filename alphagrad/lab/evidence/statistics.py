"""What samples say of what they were drawn from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 10_000


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Percentile-bootstrap interval of the mean at 95 %; None for fewer than two values, or one that is not finite."""
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    if len(set(values)) == 1:
        return values[0], values[0]
    found = stats.bootstrap(
        (np.asarray(values),),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)
