"""What is told of a classifier: accuracy, macro-F1 and confusion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor


def confusion(predicted: Tensor, actual: Tensor, classes: int) -> Tensor:
    """How often class i [B] was called j [R, B]: [R, classes, classes]."""
    pairs = actual * classes + predicted
    counts = [torch.bincount(row, minlength=classes * classes) for row in pairs]
    return torch.stack(counts).view(-1, classes, classes)


def accuracy(counts: Tensor) -> Tensor:
    """The share on the diagonal of [..., C, C]."""
    return counts.diagonal(dim1=-2, dim2=-1).sum(-1) / counts.sum((-1, -2))


def macro_f1(counts: Tensor) -> Tensor:
    """The mean over classes of F1 = 2·tp/(2·tp + fp + fn); 0 for a class that is neither there nor called."""
    right = counts.diagonal(dim1=-2, dim2=-1).double()
    both = counts.sum(-1) + counts.sum(-2)
    return (2 * right / both.clamp(min=1)).mean(-1)


def write_confusion(path: Path, counts: Tensor, classes: Sequence[str]) -> None:
    """The counts of one run [C, C] as CSV: a row for each class, a column for what it was called."""
    import csv

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["class", *classes])
        for name, row in zip(classes, counts.tolist(), strict=True):
            writer.writerow([name, *row])


def draw_confusion(path: Path, counts: Tensor, classes: Sequence[str]) -> None:
    """The same as a picture, each row divided by its sum."""
    from matplotlib.figure import Figure

    size = max(4.0, 0.32 * len(classes) + 2)
    figure = Figure(figsize=(size + 1, size), constrained_layout=True)
    axes = figure.add_subplot()
    shares = counts / counts.sum(-1, keepdim=True).clamp(min=1)
    figure.colorbar(axes.imshow(shares, vmin=0, vmax=1, cmap="Blues"), shrink=0.8)
    ticks = range(len(classes))
    axes.set_xticks(ticks, classes, rotation=90, fontsize="small")
    axes.set_yticks(ticks, classes, fontsize="small")
    axes.set(xlabel="called", ylabel="class")
    figure.savefig(path, dpi=120)
