"""Equations as pictures in the page itself, drawn by matplotlib when the site is built: a browser fetches nothing."""

from __future__ import annotations

import re
from functools import cache
from io import BytesIO
from typing import Any

from docutils import nodes
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import MathTextParser, math_to_image
from sphinx.application import Sphinx

SIZE = 12.0
"""Points; the page's letters are 16 pixels high."""


@cache
def drawn(latex: str) -> str:
    """An equation as SVG in the colour of the text around it, its baseline on that text's.

    Raises:
        ValueError: matplotlib does not know the notation.
    """
    text = f"${' '.join(latex.split())}$"
    font = FontProperties(size=SIZE, math_fontfamily="cm")
    out = BytesIO()
    math_to_image(text, out, prop=font, format="svg")
    depth = MathTextParser("path").parse(text, dpi=72, prop=font).depth
    svg = out.getvalue().decode()
    svg = svg[svg.index("<svg") :]
    for left_out in (r"<metadata>.*?</metadata>", r'<g id="patch_1">.*?</g>', r"<style.*?</style>", r"<!--.*?-->"):
        svg = re.sub(left_out, "", svg, flags=re.DOTALL)  # among them a white ground, and a style for the whole page
    svg = re.sub(r' id="(figure|text)_1"', "", svg)
    label = latex.strip().replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    style = f"vertical-align: {-depth:.2f}pt; fill: currentColor"
    return svg.replace("<svg", f'<svg class="equation" role="img" aria-label="{label}" style="{style}"', 1)


def inline(writer: Any, node: nodes.math) -> None:
    """An equation within a line."""
    writer.body.append(drawn(node.astext()))
    raise nodes.SkipNode


def block(writer: Any, node: nodes.math_block) -> None:
    """An equation of its own: each line of it, where there are several."""
    lines = [line for line in re.split(r"\\\\|\n\s*\n", node.astext()) if line.strip()]
    writer.body.append("".join(f'<p class="equation">{drawn(line)}</p>\n' for line in lines))
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_html_math_renderer("drawn", inline_renderers=(inline, None), block_renderers=(block, None))
    return {"parallel_read_safe": True}
