"""The picture of a run's statements, measured against bound, and the numbers behind it."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from alphagrad.harness import metrics

OWN = {"Theorem 1": metrics.THEOREM1_OWN, "Theorem 2": metrics.THEOREM2_OWN}
SAID = {
    "Lemma 1": "‖g'‖² ≤ bound",
    "Lemma 2": "⟨g, g'⟩ ≥ bound",
    "descent": "f after the step ≤ bound",
    "Theorem 1": "mean f − f* ≤ bound",
    "Theorem 2": "min h(N) ≤ bound",
}


def draw_statements(path: Path, history: Sequence[Mapping[str, float]], title: str, gap: str = "f − f*") -> None:
    """A panel for each statement that the run has: both sides over the steps, on a logarithmic scale if they can be.

    ``gap`` is what the progress is called: f − f_inf where f* is not known.
    """
    from matplotlib.figure import Figure

    present = [name for name, sides in metrics.SIDES.items() if any(sides[1] in row for row in history)]
    panels = [*present, "gap"]
    figure = Figure(figsize=(4 * len(panels), 3.6))
    figure.suptitle(title, fontsize="medium")
    for place, name in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), place)
        lines = {gap: metrics.OPTIMALITY_GAP, "h(N)": metrics.SMOOTHED_NORM}
        if name != "gap":
            measured, bound = metrics.SIDES[name]
            lines = {"measured": measured, "bound": bound}
            lines |= {"bound of its own step": OWN[name]} if name in OWN else {}
        lowest = math.inf
        for label, metric in lines.items():
            values = np.array([row.get(metric, math.nan) for row in history])
            values[~np.isfinite(values)] = math.nan
            if np.isfinite(values).any():
                axes.plot(values, label=label, linestyle="--" if label.startswith("bound of") else "-")
                lowest = min(lowest, float(np.nanmin(values)))
        if 0 < lowest < math.inf:
            axes.set_yscale("log")
        axes.set(title=SAID.get(name, "progress"), xlabel="step")
        axes.legend(fontsize="small")
    figure.subplots_adjust(left=0.04, right=0.99, top=0.82, bottom=0.14, wspace=0.25)
    figure.savefig(path, dpi=80)


def write_statements(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """The same numbers as a table, a row a step."""
    names = list(dict.fromkeys(name for row in history for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["step", *names])
        rows.writerows([step, *(row.get(name, "") for name in names)] for step, row in enumerate(history))


def tightness(history: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Measured over bound of each statement; see :data:`alphagrad.harness.metrics.TIGHTNESS`."""
    found = {}
    for name, metric in metrics.TIGHTNESS.items():
        measured, bound = metrics.SIDES[name]
        ratios = [row[measured] / row[bound] for row in history if row.get(bound, 0.0) not in (0.0, math.inf)]
        if ratios:
            found[metric] = float(np.median(ratios)) if name.startswith("Lemma") else ratios[-1]
    return found
