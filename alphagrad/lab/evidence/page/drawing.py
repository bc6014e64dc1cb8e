"""Figures of a page: made without a window, as SVG whose bytes depend on what they show alone."""

from __future__ import annotations

import io
from typing import Any

from alphagrad.common.words import cut
from alphagrad.lab.evidence.figures import unformatted

SIZE = (8.0, 3.8)
LABEL = 90
"""Characters of a label."""
LINE = 0.2
"""Height of a legend's line in inches."""
NARROW = 45
"""Characters of labels of which two fit side by side."""
LOOK: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "alphagrad",
    "font.family": ["DejaVu Sans", "Verdana", "sans-serif"],
    "font.size": 10,
}


def axes_of(size: tuple[float, float] = SIZE) -> tuple[Any, Any]:
    """A figure and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def below(axes: Any) -> None:
    """The legend, under the axes where it hides no line."""
    labels = axes.get_legend_handles_labels()[1]
    columns = 2 if len(labels) > 3 and max(map(len, labels)) <= NARROW else 1
    width, height = axes.figure.get_size_inches()
    axes.figure.set_size_inches(width, height + LINE * -(-len(labels) // columns))
    axes.figure.legend(loc="outside lower left", ncols=columns, fontsize="small", frameon=False)


def label(text: str) -> str:
    """A label as matplotlib is to take it, not too long."""
    return cut(unformatted(text), LABEL)


def svg(figure: Any) -> bytes:
    """The figure in a file's bytes."""
    import matplotlib as mpl

    file = io.BytesIO()
    with mpl.rc_context(LOOK):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
