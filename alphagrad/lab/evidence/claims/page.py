"""What people read of the claims: a table in the terminal, and a page with a figure for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from alphagrad.common.files import write_whole
from alphagrad.common.words import cell
from alphagrad.lab.evidence.claims.data import Origin
from alphagrad.lab.evidence.claims.verdict import Decided, Verdict
from alphagrad.lab.evidence.figures import unformatted
from alphagrad.lab.evidence.tables import table as new_table

COLORS = {"supported": "#0072B2", "refuted": "#D55E00", "undecided": "#000000"}
"""Of the figure; its words say the verdict, too."""


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """A row for each part of each claim."""
    numbers = ("effect", "95 % interval", "n")
    shown = new_table("claim", "verdict", "part", *numbers, folded=("part",), right=numbers)
    for verdict in verdicts:
        shown.add_row(verdict.claim.name, str(verdict.stand), cell(verdict.claim.title), "", "", "")
        for part in verdict.parts.values():
            shown.add_row("", f"  {part.stand}", cell(part.part.says), *effect(part))
    return shown


def effect(part: Decided) -> tuple[str, str, str]:
    """Effect, interval and number in words."""
    if not part.n:
        return "–", "–", "0"
    bounds = "–" if part.interval is None else f"[{number(part.interval[0])}, {number(part.interval[1])}]"
    return number(part.effect), bounds, str(part.n)


def number(value: float) -> str:
    """In three digits."""
    return "–" if math.isnan(value) else f"{value:.3g}"


def write_page(verdicts: Sequence[Verdict], origins: Sequence[Origin | None], file: Path) -> None:
    """Writes the page, and its figures beside it in ``images/claims``."""
    figures = file.parent / "images" / "claims"
    figures.mkdir(parents=True, exist_ok=True)
    parts = [overview(verdicts)]
    for verdict, origin in zip(verdicts, origins, strict=True):
        drawn = any(part.values for part in verdict.parts.values())
        if drawn:
            draw(verdict, figures / f"{verdict.claim.name}.svg")
        parts.append(section(verdict, origin, f"images/claims/{verdict.claim.name}.svg" if drawn else ""))
    write_whole(file, "\n\n".join(parts) + "\n")


def overview(verdicts: Sequence[Verdict]) -> str:
    """All verdicts in a table of Markdown."""
    rows = [f"| [{v.claim.name}](#{v.claim.name.lower()}) | {v.claim.title} | **{v.stand}** |" for v in verdicts]
    return "\n".join(["| | claim | verdict |", "|---|---|---|", *rows])


def section(verdict: Verdict, origin: Origin | None, figure: str) -> str:
    """One claim: what is said, its verdict part by part, the figure, and how to repeat it."""
    claim = verdict.claim
    lines = [f"## {claim.name}", f"**{verdict.stand.capitalize()}.** {claim.says} (paper, {claim.section})"]
    rows = ["| part | verdict | effect | 95 % interval | n | least that matters |", "|---|---|---:|---:|---:|---:|"]
    for part in verdict.parts.values():
        least = "" if part.part.bound else number(part.part.least)
        rows.append(f"| {part.part.says} | {part.stand} | {' | '.join(effect(part))} | {least} |")
    lines.append("\n".join(rows))
    if chosen := list(dict.fromkeys(part.chosen for part in verdict.parts.values() if part.chosen)):
        lines.append(f"Best settings, chosen on the even {claim.pairs.rpartition('.')[2]}s: {'; '.join(chosen)}.")
    if figure:
        lines.append(f"![What the runs of {claim.name} say, part by part]({figure})")
    if verdict.stand == "undecided" and (claim.open or not any(part.n for part in verdict.parts.values())):
        lines.append(f"**What it would take.** {claim.open or 'Its runs have not been made.'}")
    lines.append(f"Again: `alphagrad claims --run {claim.name}`." + ("" if origin is None else f" {source(origin)}"))
    return "\n\n".join(lines)


def source(origin: Origin) -> str:
    """Where the numbers come from, in a sentence."""
    versions = ", ".join(f"{package} {version}" for package, version in origin.versions.items())
    return f"{origin.runs:,} runs, {origin.measured}, commit `{origin.commit[:10]}`; {versions}."


def draw(verdict: Verdict, file: Path) -> None:
    """A row for each part: every pair's difference or every run's value, the mean in its interval, what was asked."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    told = [part for part in verdict.parts.values() if part.values]
    with mpl.rc_context({"svg.hashsalt": "claims", "svg.fonttype": "none", "font.size": 9}):
        figure, rows = plt.subplots(
            len(told), 1, figsize=(8, 0.3 + 1.15 * len(told)), squeeze=False, layout="constrained"
        )
        for axes, part in zip(rows[:, 0], told, strict=True):
            _row(axes, part)
        figure.savefig(file, metadata={"Date": None})
        plt.close(figure)


def _row(axes: Any, part: Decided) -> None:
    color, rule = COLORS[part.stand], part.part
    values = [value for value in part.values if math.isfinite(value)]
    lost = len(part.values) - len(values)
    axes.plot(values, [0.4] * len(values), "|", color="#666666", markersize=9)
    if part.interval is not None:
        axes.plot(part.interval, [-0.3, -0.3], "-|", color=color, markersize=8)
        axes.plot(part.effect, -0.3, "o", color=color)
    if rule.bound:
        edges = [edge for edge in (rule.at_least, rule.at_most) if edge is not None]
    else:
        axes.axvline(0, color="#888888", linewidth=0.8)
        edges = [rule.least * (1 if rule.direction == "above" else -1)] if rule.least else []
    for edge in edges:
        axes.axvline(edge, color="#000000", linestyle=":")
    axes.set_ylim(-1, 1)
    axes.set_yticks([])
    than = "" if isinstance(rule.than, dict) or not rule.than else f" from {rule.than:g}"
    what = "runs" if rule.bound else f"differences{than}, and their mean with its 95 % interval"
    asked = "; dotted: what the rule asks" if edges else ""
    axes.set_xlabel(f"{len(values)} {what}{f'; {lost} runs have no value' if lost else ''}{asked}")
    axes.set_title(unformatted(f"{part.stand}: {rule.says}"), loc="left", fontsize=9, color=color, wrap=True)
