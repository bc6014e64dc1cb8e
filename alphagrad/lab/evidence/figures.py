"""Pictures of a study, from the store alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from alphagrad.common.errors import ConfigError
from alphagrad.common.words import listed, plain
from alphagrad.harness import metrics
from alphagrad.lab.evidence.results import Comparison, Results
from alphagrad.lab.evidence.statistics import interval


def plot(results: Results, study: Comparison, metric: str, file: Path, logarithmic: bool = False) -> None:
    """Mean of a metric over the steps with a band of its 95 % interval, one line a configuration.

    A logarithmic axis leaves out what is not above 0.

    Raises:
        ConfigError: no finished run has the metric, or the file cannot be written.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), constrained_layout=True)
    drawn = False
    for group in study.groups:
        curves = [results.history(run, metric) for run in group.finished()]
        curves = [curve for curve in curves if len(curve[0])]
        if not curves:
            continue
        steps, low, mean, high = band(curves)
        (line,) = axes.plot(steps, mean, label=f"{unformatted(group.label)} (n={len(curves)})")
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


def unformatted(text: str) -> str:
    """The text for matplotlib, to which ``$`` begins a formula and ``_`` a hidden label."""
    shown = plain(text).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def band(
    curves: list[tuple[np.ndarray, np.ndarray]], points: int = 200
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Steps, lower bound, mean and upper bound of curves known at different steps, interpolated."""
    start = max(steps[0] for steps, _ in curves)
    end = min(steps[-1] for steps, _ in curves)
    grid = np.unique(np.linspace(start, end, points).astype(int))
    rows = np.array([np.interp(grid, steps, values) for steps, values in curves])
    alone = len(curves) == 1
    bounds = [interval(column) or ((column[0],) * 2 if alone else (np.nan,) * 2) for column in rows.T.tolist()]
    low, high = np.array(bounds).T
    return grid, low, rows.mean(0), high
