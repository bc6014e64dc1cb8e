"""Pictures of a study, from the store alone."""

from __future__ import annotations

from collections.abc import Sized
from pathlib import Path

import numpy as np

from alphagrad.common.errors import ConfigError
from alphagrad.common.words import listed, plain
from alphagrad.harness import metrics
from alphagrad.lab.evidence.results import Comparison, Results
from alphagrad.lab.evidence.statistics.curves import lined_up
from alphagrad.lab.evidence.statistics.intervals import FEWEST, intervals

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Those of Okabe and Ito that stand out on white; who sees red and green alike tells them apart, too."""
STYLES = ("-", "--", ":", "-.")
"""Of lines, once the colours are used up."""


def plot(results: Results, study: Comparison, metric: str, file: Path, logarithmic: bool = False) -> None:
    """Mean of a metric over the steps, in a band of its 95 % interval: a line for each configuration.

    A logarithmic axis leaves out what is not above 0.

    Raises:
        ConfigError: no finished run has the metric, or the file cannot be written.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from cycler import cycler
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), constrained_layout=True)
    axes.set_prop_cycle(cycler(linestyle=STYLES) * cycler(color=COLORS))
    drawn = False
    for group in study.groups:
        curves = list(results.histories(group.finished(), [metric]).values())
        if not curves:
            continue
        steps, low, mean, high = band(curves)
        (line,) = axes.plot(steps, mean, label=f"{unformatted(group.label)} ({count(curves)})")
        axes.fill_between(steps, low, high, alpha=0.2, color=line.get_color())
        bad = steps[~np.isfinite(mean)]  # where the line has a gap, a × at the upper edge
        if len(bad):
            axes.plot(bad, np.ones(len(bad)), "x", transform=axes.get_xaxis_transform(), color=line.get_color())
        drawn = True
    if not drawn:
        known = sorted({m for group in study.groups for run in group.runs for m in run.metrics})
        raise ConfigError(f"--metric={metric}: no finished run has it; there are {listed(known)}")
    if logarithmic:
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel(unformatted(metrics.title(metric)))
    axes.set_title(unformatted(study.title), fontsize="small", wrap=True)
    axes.legend(fontsize="small")
    try:
        figure.savefig(file, dpi=150)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--plot={file}: cannot be written ({error})") from error
    plt.close(figure)


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
