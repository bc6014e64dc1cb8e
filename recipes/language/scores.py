"""What a confusion matrix says: macro-F1, and the counts as a table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor


def macro_f1(confusion: Tensor) -> Tensor:
    """The mean over classes of F1 = 2·tp/(2·tp + fp + fn) for counts of [..., true, predicted]: [...].

    A class that is neither there nor predicted is left out, as in scikit-learn.
    """
    right = confusion.diagonal(dim1=-2, dim2=-1).double()
    both = confusion.sum(-1) + confusion.sum(-2)
    return (2 * right / both.clamp(min=1)).sum(-1) / (both > 0).sum(-1)


def write_confusion(path: Path, counts: np.ndarray, classes: Sequence[str]) -> None:
    """Writes counts [true, predicted] as CSV: a row for each true class, a column for each predicted one."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["true", *classes])
        for name, row in zip(classes, counts.tolist(), strict=True):
            writer.writerow([name, *row])
