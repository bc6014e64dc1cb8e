"""The table of a study, from the store alone."""

from __future__ import annotations

import numpy as np
from rich.table import Table

from alphagrad.common.words import cell
from alphagrad.harness import metrics
from alphagrad.lab.evidence.results import Comparison
from alphagrad.lab.evidence.statistics.intervals import FEWEST, interval
from alphagrad.lab.evidence.tables import table

SAYS = f"mean over seeds [95 % interval]; of fewer than {FEWEST['mean']} (least to largest)"
"""What the numbers of a table are."""


def study_table(study: Comparison) -> Table:
    """One row for each configuration: runs finished, and the mean of each metric with its interval."""
    headlines = study.headlines()
    present = [m for m in headlines if any(group.values(m) for group in study.groups)]
    caption = SAYS
    if earlier := sum(group.earlier for group in study.groups):
        caption += f"; of runs of one job the newest counts, {earlier} earlier left out"
    numbers = ("runs", *present, "steps/s")
    shown = table("configuration", *numbers, folded=("configuration",), right=numbers, caption=caption)
    for group in study.groups:
        cells = [mean_and_interval(group.values(metric), headlines[metric]) for metric in present]
        rates = group.values(metrics.STEPS_PER_SECOND)
        rate = (
            f"{np.mean(rates):,.0f}"
            if rates
            else "–"
            if any(g.values(metrics.STEPS_PER_SECOND) for g in study.groups)
            else ""
        )
        shown.add_row(cell(group.label), f"{len(group.finished())}/{len(group.runs)}", *cells, rate)
    return shown


def mean_and_interval(values: list[float], digits: int) -> str:
    """``mean [low, high]``; of too few runs for an interval ``mean (least to largest)``, and of one its value."""
    if not values:
        return "–"
    bounds = interval(values)
    mean = f"{np.mean(values):.{digits}f}"
    if bounds is not None:
        return f"{mean} [{bounds[0]:.{digits}f}, {bounds[1]:.{digits}f}]"
    return f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else mean
