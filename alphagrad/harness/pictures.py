"""The pictures of what the instruments measured: Q-Q plots, and the histograms of α·ĝ through time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from alphagrad.harness.metrics import per_tensor
from alphagrad.instruments.gaussianity import LEVELS
from alphagrad.instruments.histogram import EDGES, Histogram
from alphagrad.instruments.quantities import KURTOSIS, quantile

HISTOGRAM = "histogram"
"""The name of a run's picture and data, without their endings."""
PANELS = 12
"""Histograms in a picture: of all tensors together, and of the largest."""
_COUNTS, _STEPS = "counts/", "steps/"


class RunHistogram(NamedTuple):
    """A histogram of one run, or its row in that of a stack."""

    histogram: Histogram
    row: int


@runtime_checkable
class HasHistograms(Protocol):
    """A part of a recipe that counts α·ĝ, as the optimizers of a stack do."""

    def histograms(self, run: int) -> list[RunHistogram]: ...


class Pictures:
    """Draws what the instruments measured of a run, once it has ended.

    Args:
        artifact: as :meth:`alphagrad.harness.recipe.Log.artifact`.
        every: gradient steps between measurements.
    """

    def __init__(self, artifact: Callable[[int, str, Callable[[Path], None]], None], every: int) -> None:
        self._artifact, self._every = artifact, every
        self.parts: Mapping[str, Any] = {}
        """What the recipe trains with, by name; those that count α·ĝ are asked."""

    def draw(self, run: int, last: Mapping[str, float]) -> None:
        """Draws what there is of a run, and keeps the data of its histogram.

        Args:
            run: its number in the stack.
            last: the last value of each of its metrics.
        """
        if tensors_in(last):
            self._artifact(run, "qq.png", partial(draw_qq, values=dict(last)))
        own = [h for part in self.parts.values() if isinstance(part, HasHistograms) for h in part.histograms(run)]
        if data := histogram_data(own, self._every):
            self._artifact(run, HISTOGRAM + ".npz", partial(save_histogram, data=data))
            self._artifact(run, HISTOGRAM + ".png", partial(draw_histogram, data=data))


def histogram_data(own: Sequence[RunHistogram], every: int) -> dict[str, np.ndarray]:
    """What was counted of one run, as arrays; empty if nothing was.

    Args:
        own: histograms of the run, one for each of its optimizers.
        every: gradient steps between measurements.

    Returns:
        ``edges`` of the inner bins [81]; of each tensor ``counts/TENSOR`` [stretches of time, 82], where the first and
        the last bin hold what is beyond the edges, and ``steps/TENSOR`` [stretches + 1], the gradient
        steps between them.
    """
    found: dict[str, np.ndarray] = {}
    for histogram, row in own:
        for name, counts in histogram.of_run(row).items():
            found[_COUNTS + name] = counts.numpy()
            found[_STEPS + name] = every * np.array(histogram.starts())
    return {"edges": np.array(EDGES), **found} if found else {}


def save_histogram(path: Path, data: Mapping[str, np.ndarray]) -> None:
    """Writes :func:`histogram_data` as a file that ``numpy.load`` reads."""
    arrays: dict[str, Any] = dict(data)
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def draw_histogram(path: Path, data: Mapping[str, np.ndarray]) -> None:
    """Draws α·ĝ over gradient steps, tanh beside it: the darker, the larger the share of components

    A panel for each of the largest tensors, after one of all tensors together where their times are the same.
    """
    from matplotlib.figure import Figure

    panels = _panels(data)
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.8 * columns, 2.8 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, 2 * columns, width_ratios=[4, 1] * columns)
    for place, (title, steps, counts) in enumerate(panels):
        at = divmod(place, columns)
        axes = figure.add_subplot(grid[at[0], 2 * at[1]])
        beside = figure.add_subplot(grid[at[0], 2 * at[1] + 1], sharey=axes)
        _draw_panel(axes, beside, steps, counts, data["edges"])
        axes.set_title(title, fontsize="small")
    figure.supxlabel("gradient steps", fontsize="small")
    figure.savefig(path, dpi=100)


def _panels(data: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Title, times and counts of each panel."""
    names = [key.removeprefix(_COUNTS) for key in data if key.startswith(_COUNTS)]
    size = {name: int(data[_COUNTS + name].sum()) for name in names}
    alike = len({tuple(data[_STEPS + name]) for name in names}) == 1
    shown = sorted(names, key=lambda name: -size[name])[: PANELS - (alike and len(names) > 1)]
    panels = [(name, data[_STEPS + name], data[_COUNTS + name]) for name in names if name in shown]
    if alike and len(names) > 1:
        whole = np.sum([data[_COUNTS + name] for name in names], axis=0)
        panels.insert(0, (f"all {len(names)} tensors", data[_STEPS + names[0]], whole))
    return panels


def _draw_panel(axes: Any, beside: Any, steps: np.ndarray, counts: np.ndarray, edges: np.ndarray) -> None:
    """One histogram: the shares of the bins through time; what is beyond the edges in the outermost rows."""
    width = edges[1] - edges[0]
    heights = np.concatenate([[edges[0] - 2 * width], edges, [edges[-1] + 2 * width]])
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    # the root shows what is rare, which is where tanh bends
    axes.pcolormesh(steps, heights, np.sqrt(shares.T), cmap="Greys", vmin=0, vmax=0.5, rasterized=True)
    axes.set_ylabel("α·ĝ", fontsize="small")
    u = np.linspace(heights[0], heights[-1], 200)
    beside.plot(np.tanh(u), u, color="black", linewidth=1)
    beside.set_title("tanh", fontsize="small")
    beside.set(xlim=(-1.1, 1.1), ylim=(heights[0], heights[-1]), xticks=[-1, 0, 1])
    beside.tick_params(labelleft=False)
    beside.grid(linewidth=0.3)


def tensors_in(values: Mapping[str, float]) -> list[str]:
    """The tensors whose quantiles are among a run's metrics, in order."""
    prefix = f"{quantile(LEVELS[0])}/"
    return [name.removeprefix(prefix) for name in values if name.startswith(prefix)]


def draw_qq(path: Path, values: Mapping[str, float]) -> None:
    """A Q-Q plot of each tensor from a run's last metrics: its quantiles in units of σ over those of N(0, 1)."""
    from matplotlib.figure import Figure

    names = tensors_in(values)
    columns = min(4, max(1, len(names)))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3 * columns, 3 * max(1, rows)), layout="constrained")
    for place, name in enumerate(names, start=1):
        axes = figure.add_subplot(rows, columns, place)
        own = [values[per_tensor(quantile(level), name)] for level in LEVELS]
        axes.plot(LEVELS, LEVELS, color="grey", linewidth=1)
        axes.plot(LEVELS, own, "o", markersize=3)
        kurtosis = values.get(per_tensor(KURTOSIS, name))
        told = "" if kurtosis is None else f": kurtosis {kurtosis:.3g}"
        axes.set_title(f"{name}{told}", fontsize="small")
        axes.set(xlabel="quantile of N(0, 1)", ylabel="of √d·ĝ")
    figure.savefig(path, dpi=100)
