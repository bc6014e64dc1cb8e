"""Pictures of a study, from the store alone."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from pathlib import Path
from typing import Any

import numpy as np

from alphagrad.common.errors import ConfigError
from alphagrad.common.words import listed, plain
from alphagrad.harness import metrics
from alphagrad.lab.evidence.results import Comparison, Results
from alphagrad.lab.evidence.statistics.curves import Curve, lined_up
from alphagrad.lab.evidence.statistics.intervals import FEWEST, intervals

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Those of Okabe and Ito that stand out on white; who sees red and green alike tells them apart, too."""
STYLES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Of lines, so that they differ without colours, too; with these, no two of the first 28 are alike."""
MARKS = 12
"""On a line, about."""
MARGIN = 0.1
"""Beside what was measured, as a share of it."""


def plot(results: Results, study: Comparison, metric: str, file: Path, logarithmic: bool = False) -> None:
    """Mean of a metric over the steps, in a band of its 95 % interval: a line for each configuration.

    A logarithmic axis leaves out what is not above 0.

    Raises:
        ConfigError: no finished run has the metric, or the file cannot be written.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), constrained_layout=True)
    drawn: list[Curve] = []
    for group in study.groups:
        curves = list(results.histories(group.finished(), [metric]).values())
        if curves:
            line(axes, f"{group.label} ({count(curves)})", *band(curves), number=study.groups.index(group))
            drawn += curves
    if not drawn:
        known = sorted({m for group in study.groups for run in group.runs for m in run.metrics})
        raise ConfigError(f"--metric={metric}: no finished run has it; there are {listed(known)}")
    if logarithmic:
        axes.set_yscale("log")
    frame(axes, drawn)
    axes.set_xlabel("step")
    axes.set_ylabel(unformatted(metrics.title(metric)))
    axes.set_title(unformatted(study.title), fontsize="small", wrap=True)
    axes.legend(fontsize="small")
    try:
        figure.savefig(file, dpi=150)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--plot={file}: cannot be written ({error})") from error
    plt.close(figure)


def line(
    axes: Any, label: str, steps: np.ndarray, low: np.ndarray, mean: np.ndarray, high: np.ndarray, number: int = 0
) -> None:
    """A line in its band; where it is not finite it has a gap, and a × at the upper edge.

    Args:
        axes: matplotlib's.
        label: for the legend.
        steps: of the following.
        low: lower bounds.
        mean: what the line is.
        high: upper bounds.
        number: of the line, which gives it colour, style and marker.
    """
    color = COLORS[number % len(COLORS)]
    style = STYLES[number % len(STYLES)]  # 4 and 7 have no divisor in common
    every = max(1, len(steps) // MARKS)
    look = {"color": color, "linestyle": style, "marker": MARKERS[number % len(MARKERS)], "markersize": 4}
    axes.plot(steps, mean, label=unformatted(label), markevery=every, **look)
    axes.fill_between(steps, low, high, alpha=0.2, color=color, linewidth=0)
    bad = steps[~np.isfinite(mean)]
    if len(bad):
        axes.plot(bad, np.ones(len(bad)), "x", transform=axes.get_xaxis_transform(), color=color)


def frame(axes: Any, curves: Iterable[Curve]) -> None:
    """Fits the axes to what was measured: a band that is much wider, as of few runs, is cut off at the edge."""
    values = np.concatenate([values for _, values in curves])
    values = values[np.isfinite(values)]
    if len(values) and values.min() < values.max():
        margin, (low, high) = MARGIN * np.ptp(values), axes.get_ylim()
        axes.set_ylim(max(low, values.min() - margin), min(high, values.max() + margin))


def few(runs: Sized) -> bool:
    """Whether they are too few for an interval."""
    return len(runs) < FEWEST["mean"]


def count(runs: Sized) -> str:
    """How many they are, for a legend, and what their band is where it is no interval."""
    return f"n={len(runs)}, least to largest" if few(runs) and len(runs) > 1 else f"n={len(runs)}"


def unformatted(text: str) -> str:
    """The text for matplotlib, to which ``$`` begins a formula and ``_`` a hidden label."""
    shown = plain(text).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def band(
    curves: list[tuple[np.ndarray, np.ndarray]], points: int = 200
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Steps, lower bound, mean and upper bound of curves: their least and largest value, where they are too few."""
    grid, rows = lined_up(curves, points)
    low, high = (rows.min(0), rows.max(0)) if few(rows) else intervals(rows)
    return grid, low, rows.mean(0), high
