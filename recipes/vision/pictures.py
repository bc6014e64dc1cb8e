"""A grid of the images that a classifier got wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

MISTAKES = 25
"""Shown at most."""
COLUMNS = 5


def draw_mistakes(
    path: Path,
    mistakes: Sequence[tuple[int, int, int, float]],
    picture: Callable[[int], Tensor],
    classes: Sequence[str],
    title: str,
) -> None:
    """Draws images under what they were taken for, how surely, and what they are.

    Args:
        path: the file.
        mistakes: index, true class, predicted class and confidence of each.
        picture: index → uint8 [H, W, C].
        classes: their names.
        title: above all of them.
    """
    from matplotlib.figure import Figure

    rows = max(1, -(-len(mistakes) // COLUMNS))
    figure = Figure(figsize=(1.9 * COLUMNS, 2.1 * rows + 0.5), layout="constrained")
    figure.suptitle(title if mistakes else f"{title}: none")
    for axes, (index, true, guess, sure) in zip(figure.subplots(rows, COLUMNS).flat, mistakes, strict=False):
        image = picture(index).numpy()
        axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
        axes.set_title(f"{classes[guess]} ({sure:.2f})\nis {classes[true]}", fontsize=8)
    for axes in figure.axes:
        axes.set_axis_off()
    figure.savefig(path, dpi=120)
