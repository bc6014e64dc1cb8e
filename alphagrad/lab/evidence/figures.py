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
LESS, MORE = ("loss", "error", "perplexity", "bits", "gap"), ("return", "accuracy", "f1")
"""In a metric's name: whether less or more of it is better."""
LINES = 12
"""In one figure at most, which are told apart."""
MARGIN = 0.1
"""Beside what was measured, as a share of it."""


def plot(results: Results, study: Comparison, metric: str, file: Path, logarithmic: bool = False) -> None:
    """Mean of a metric over the steps, in a band of its 95 % interval: a line for each configuration.

    Of more than :data:`LINES` configurations the best are drawn. A logarithmic axis leaves out what is not above 0.

    Raises:
        ConfigError: no finished run has the metric, or the file cannot be written.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    drawn: dict[int, list[Curve]] = {}
    for place, group in enumerate(study.groups):
        if curves := list(results.histories(group.finished(), [metric]).values()):
            drawn[place] = curves
    if not drawn:
        known = sorted({m for group in study.groups for run in group.runs for m in run.metrics})
        raise ConfigError(f"--metric={metric}: no finished run has it; there are {listed(known)}")
    title, best = study.title, _best(drawn, metric)
    if len(best) < len(drawn):
        title += f"; the {len(best)} best of {len(drawn)} configurations"
    figure, axes = plt.subplots(figsize=(8, 4.5), constrained_layout=True)
    for place in best:
        line(axes, f"{study.groups[place].label} ({count(drawn[place])})", *band(drawn[place]), number=place)
    if logarithmic:
        axes.set_yscale("log")
    frame(axes, [curve for place in best for curve in drawn[place]])
    axes.set_xlabel("step")
    axes.set_ylabel(unformatted(metrics.title(metric)))
    axes.set_title(unformatted(title), fontsize="small", wrap=True)
    axes.legend(fontsize="small")
    try:
        figure.savefig(file, dpi=150)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--plot={file}: cannot be written ({error})") from error
    plt.close(figure)


def _best(drawn: dict[int, list[Curve]], metric: str) -> list[int]:
    """The places of at most :data:`LINES` groups, in their order: those whose curves end best, if it is known."""
    sign = {"min": 1, "max": -1}.get(direction(metric), 0)
    last = {place: sign * float(np.mean([values[-1] for _, values in curves])) for place, curves in drawn.items()}
    ranked = sorted(drawn, key=lambda place: (not np.isfinite(last[place]), last[place]))
    return sorted(ranked[:LINES])


def direction(metric: str) -> str:
    """*max* or *min* where a metric's name says which is better; empty otherwise."""
    name = metric.lower()
    return "min" if any(word in name for word in LESS) else "max" if any(word in name for word in MORE) else ""


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
