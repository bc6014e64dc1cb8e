"""What a figure of many configurations shows."""

from __future__ import annotations

import numpy as np
import pytest

from alphagrad.lab.evidence import figures


@pytest.mark.parametrize(
    ("metric", "kept"),
    [("eval/loss", range(12)), ("eval/accuracy", range(8, 20)), ("alpha/0.weight", range(12))],
)
def test_of_many_configurations_the_best_are_drawn_in_their_order(metric, kept):
    drawn = {place: [(np.arange(3.0), np.array([9.0, 9.0, place]))] for place in range(20)}
    assert figures._best(drawn, metric) == list(kept)
    drawn[kept[0]] = [(np.arange(3.0), np.array([9.0, 9.0, np.nan]))]
    assert kept[0] not in figures._best(drawn, metric)
    assert len(figures._best(drawn, metric)) == figures.LINES


def test_a_wide_band_does_not_squeeze_what_was_measured():
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    steps = np.arange(4.0)
    figures.line(axes, "a", steps, np.full(4, -1e4), np.arange(4.0), np.full(4, 1e4))
    figures.frame(axes, [(steps, np.arange(4.0))])
    low, high = axes.get_ylim()
    assert low == pytest.approx(-0.3)
    assert high == pytest.approx(3.3)
