"""The picture of a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

LABELLED = 30
"""Classes up to which cells and axes carry numbers and names; more would not be read."""


def draw_confusion(path: Path, counts: np.ndarray, classes: Sequence[str], title: str) -> None:
    """Draws counts [true, predicted]; a cell's shade is its share of its true class."""
    from matplotlib.figure import Figure

    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(max(4.0, 0.5 * len(classes)), 14.0)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    if len(classes) <= LABELLED:
        axes.set_xticks(range(len(classes)), classes, rotation=90)
        axes.set_yticks(range(len(classes)), classes)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=colour)
    figure.savefig(path, dpi=120)
