"""Pictures of losses on lines and planes, and their data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

LINES = ("-", "--", "-.", ":")
"""Told apart in black and white."""
LEVELS = 24


@dataclass(frozen=True)
class View:
    """What is seen of one run."""

    title: str
    loss: np.ndarray
    """[*places of each axis]."""
    path: np.ndarray | None
    """Where its weights were, [models, dims], the last of them its end; None where it is not drawn."""
    end: np.ndarray
    """Where its weights are, [dims]."""
    sharpness: Mapping[str, Any] = field(default_factory=dict)
    """Name → number or numbers."""


def write_data(file: Path, axes: Sequence[np.ndarray], views: Sequence[View], about: Mapping[str, Any]) -> None:
    """An .npz file: ``x``, ``y``, ``about``, and of run k ``title_k``, ``loss_k``, ``end_k``, ``path_k`` and others."""
    found: dict[str, Any] = dict(zip("xy", axes, strict=False))
    found |= {name: np.asarray(value) for name, value in about.items()}
    for k, view in enumerate(views):
        found |= {f"title_{k}": view.title, f"loss_{k}": view.loss, f"end_{k}": view.end}
        found |= {f"{name}_{k}": value for name, value in view.sharpness.items()}
        if view.path is not None:
            found[f"path_{k}"] = view.path
    with file.open("wb") as opened:
        np.savez_compressed(opened, **found)


def draw(file: Path, axes: Sequence[np.ndarray], views: Sequence[View], names: Sequence[str]) -> None:
    """A line for each run on one pair of axes, or for each a panel with lines of equal loss, on one scale."""
    from matplotlib.figure import Figure

    columns = 1 if len(axes) == 1 else min(3, len(views))
    rows = 1 if len(axes) == 1 else -(-len(views) // columns)
    figure = Figure(figsize=(6.0 if columns == 1 else 4.5 * columns, 4.2 * rows), layout="constrained")
    if len(axes) == 1:
        _draw_lines(figure.add_subplot(), axes[0], views, names)
    else:
        _draw_planes(figure, rows, columns, axes, views, names)
    figure.savefig(file, dpi=150, format=file.suffix[1:])


def _draw_lines(plot: Any, x: np.ndarray, views: Sequence[View], names: Sequence[str]) -> None:
    for k, view in enumerate(views):
        (line,) = plot.plot(
            x, np.where(np.isfinite(view.loss), view.loss, np.nan), LINES[k % len(LINES)], label=view.title
        )
        plot.plot(view.end[0], np.interp(view.end[0], x, view.loss), "o", color=line.get_color())
        if view.path is not None:
            places = view.path[:, 0]
            plot.plot(places, np.interp(places, x, view.loss), "|", color=line.get_color())
    if _wide(views):
        plot.set_yscale("log")
    plot.set(xlabel=names[0], ylabel="training loss on the fixed examples")
    plot.legend(fontsize="small")
    plot.grid(alpha=0.3)


def _draw_planes(
    figure: Any, rows: int, columns: int, axes: Sequence[np.ndarray], views: Sequence[View], names: Sequence[str]
) -> None:
    from matplotlib.colors import LogNorm, Normalize

    low, high = _range(views)
    wide = _wide(views)
    levels = np.geomspace(low, high, LEVELS) if wide else np.linspace(low, high, LEVELS)
    norm = LogNorm(low, high) if wide else Normalize(low, high)
    plots: list[Any] = []
    for k, view in enumerate(views):
        shared = {"sharex": plots[0], "sharey": plots[0]} if plots else {}
        plot = figure.add_subplot(rows, columns, k + 1, **shared)
        plots.append(plot)
        seen = np.ma.masked_invalid(view.loss.T)
        filled = plot.contourf(axes[0], axes[1], seen, levels, cmap="cividis", norm=norm, extend="both")
        plot.contour(axes[0], axes[1], seen, levels[::3], colors="black", linewidths=0.4, norm=norm)
        if view.path is not None:
            plot.plot(*view.path.T, "-o", color="white", markeredgecolor="black", markersize=3.5, linewidth=1.2)
        plot.plot(*view.end, "*", color="white", markeredgecolor="black", markersize=12)
        plot.set_title(view.title, fontsize="small")
        plot.set(xlabel=names[0], ylabel=names[1] if k % columns == 0 else None)
        plot.set_xlim(axes[0][0], axes[0][-1])
        plot.set_ylim(axes[1][0], axes[1][-1])
    figure.colorbar(filled, ax=plots, label="training loss on the fixed examples", format="%.3g")


def _range(views: Sequence[View]) -> tuple[float, float]:
    """Least and largest loss of all runs, apart where they are equal."""
    losses = np.concatenate([view.loss[np.isfinite(view.loss)] for view in views])
    if not len(losses):
        return 0.0, 1.0
    low, high = float(losses.min()), float(losses.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _wide(views: Sequence[View]) -> bool:
    """Whether a logarithmic scale shows more."""
    low, high = _range(views)
    return low > 0 and high > 20 * low
