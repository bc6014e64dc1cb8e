"""What people read of the claims: a table in the terminal, and a page with a figure for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from alphagrad.common.errors import ConfigError
from alphagrad.common.files import write_by, write_whole
from alphagrad.common.words import cell, squeezed
from alphagrad.lab.evidence.claims.data import Origin
from alphagrad.lab.evidence.claims.ledger import Part
from alphagrad.lab.evidence.claims.marks import filled, page_of
from alphagrad.lab.evidence.claims.verdict import Decided, Verdict
from alphagrad.lab.evidence.figures import unformatted
from alphagrad.lab.evidence.tables import table as new_table

if TYPE_CHECKING:
    from pandas import DataFrame

    Evidence = tuple[DataFrame | None, Origin | None]

ROW, AXES = 1.2, 0.45
"""Heights in inches: a part's row in the figure, and its axes, without title and labels."""
COLORS = {"supported": "#0072B2", "refuted": "#D55E00", "undecided": "#000000"}
"""Of the figure; its words say the verdict, too."""


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """A row for each part of each claim."""
    shown = new_table(
        "verdict", "claim, and its parts", "effect", "n", folded=("claim, and its parts", "effect"), right=("n",)
    )
    for verdict in verdicts:
        shown.add_row(str(verdict.stand), cell(f"{verdict.claim.name} {verdict.claim.title}"), "", "")
        for part in verdict.parts.values():
            mean, bounds, n = effect(part)
            shown.add_row(f"  {part.stand}", cell(part.part.says), cell(f"{mean} {bounds}".removesuffix(" –")), n)
    return shown


def effect(part: Decided) -> tuple[str, str, str]:
    """Effect, interval and number in words; *19 of 20* where runs are missing."""
    if not part.n:
        return "–", "–", "0"
    bounds = "–" if part.interval is None else f"[{number(part.interval[0])}, {number(part.interval[1])}]"
    return number(part.effect), bounds, str(part.n) if part.n >= part.wanted else f"{part.n} of {part.wanted}"


def number(value: float) -> str:
    """In four digits."""
    if math.isnan(value):
        return "–"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.4g}"


def asked(part: Part) -> str:
    """What the rule asks of the effect: *≥ 500*."""
    if part.direction == "equal":
        return f"{number(part.offset)} ± {number(part.within)}"
    if part.at_least is not None and part.at_most is not None:
        return f"{number(part.at_least)} to {number(part.at_most)}"
    if part.bound:
        return f"≥ {number(part.at_least)}" if part.at_least is not None else f"≤ {number(part.at_most or 0.0)}"
    edge = part.offset + (part.least - part.within) * (1 if part.direction == "above" else -1)
    sign = ("≥" if part.least else ">") if part.direction == "above" else ("≤" if part.least else "<")
    return f"{sign} {number(edge)}"


def write_page(verdicts: Sequence[Verdict], evidence: Sequence[Evidence], file: Path) -> None:
    """Writes the page, and its figures beside it in ``images/claims``.

    Between the lines ``<!-- verdicts -->`` and ``<!-- end of verdicts -->`` it has the table of verdicts; so with
    ``claims`` the tables and figures of each. The rest of a page that is there stays.

    Raises:
        ConfigError: one cannot be written, or the page's marks are not in pairs.
    """
    page = page_of(file, [verdict.claim.name for verdict in verdicts])
    try:
        figures = {
            verdict.claim.name: path.relative_to(file.parent).as_posix()
            for verdict, path in zip(verdicts, write_figures(verdicts, file.parent / "images" / "claims"), strict=True)
            if path is not None
        }
        sections = [
            section(verdict, table, origin, figures.get(verdict.claim.name, ""))
            for verdict, (table, origin) in zip(verdicts, evidence, strict=True)
        ]
        blocks = {"verdicts": overview(verdicts), "claims": "\n\n".join(sections)}
        write_whole(file.resolve(), filled(page, blocks))
    except OSError as error:
        raise ConfigError(f"--page={file}: cannot be written ({squeezed(error, 200)})") from error


def write_figures(verdicts: Sequence[Verdict], folder: Path) -> list[Path | None]:
    """Draws each claim to ``C1.svg`` and so on in a folder; None for one that has no runs."""
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path | None] = []
    for verdict in verdicts:
        file = folder / f"{verdict.claim.name}.svg"
        drawn = any(part.values for part in verdict.parts.values())
        if drawn:
            write_by(file, partial(draw, verdict))
        files.append(file if drawn else None)
    return files


def overview(verdicts: Sequence[Verdict]) -> str:
    """All verdicts in a table of Markdown."""
    rows = [f"| [{v.claim.name}](#{v.claim.name.lower()}) | {v.claim.title} | **{v.stand}** |" for v in verdicts]
    return "\n".join(["| | claim | verdict |", "|---|---|---|", *rows])


def section(verdict: Verdict, table: DataFrame | None, origin: Origin | None, figure: str) -> str:
    """One claim: what is said, its verdict part by part, the figure, and how to repeat it."""
    claim = verdict.claim
    lines = [f"## {claim.name}", f"**{verdict.stand.capitalize()}.** {claim.says} (paper, {claim.section})"]
    rows = ["| part | verdict | effect | 95 % interval | n | asked |", "|---|---|---:|---:|---:|---:|"]
    for part in verdict.parts.values():
        rows.append(f"| {part.part.says} | {part.stand} | {' | '.join(effect(part))} | {asked(part.part)} |")
    lines.append("\n".join(rows))
    if any(part.part.log for part in verdict.parts.values()):
        lines.append("Effects of parts that compare log₁₀ are powers of ten.")
    sides = [side for part in verdict.parts.values() for side in part.chosen.split("; ") if side]
    if chosen := list(dict.fromkeys(sides)):
        lines.append(f"Best settings, chosen on the even {_pairs(verdict)}s: {'; '.join(chosen)}.")
    if figure:
        lines.append(f"![What the runs of {claim.name} say, part by part]({figure})")
    if told := missing(verdict):
        lines.append(f"**What it would take.** {' '.join(told)}")
    lines.append(f"Again: `{claim.again}`." + ("" if origin is None else f" {source(origin, table)}"))
    return "\n\n".join(lines)


def missing(verdict: Verdict) -> list[str]:
    """What would settle the parts that are undecided."""
    parts = [part for part in verdict.parts.values() if part.stand == "undecided"]
    if not parts:
        return []
    told = [verdict.claim.open] if verdict.claim.open else []
    for part in parts:
        if part.more is not None and part.n >= part.wanted:
            told.append(f"About {part.more:,} compared {_pairs(verdict)}s would tell whether {part.part.says}.")
    return told or ["Runs that are not made yet."]


def _pairs(verdict: Verdict) -> str:
    return verdict.claim.pairs.rpartition(".")[2]


def source(origin: Origin, table: DataFrame | None) -> str:
    """Where the numbers come from, in a sentence."""
    versions = ", ".join(f"{package} {version}" for package, version in origin.versions.items())
    commits = ", ".join(
        f"`{commit[:10]}{'-dirty' * commit.endswith('-dirty')}`" for commit in origin.commit.split(", ")
    )
    runs = f"{origin.runs:,} runs" if origin.whole else f"{origin.runs:,} of {origin.planned:,} runs"
    lost = 0 if table is None or "status" not in table else int((table["status"] != "finished").sum())
    failed = f", of which {lost} failed" if lost else ""
    return f"{runs}{failed}, {origin.measured}, commit {commits}; {versions}."


def draw(verdict: Verdict, file: Path) -> None:
    """A row for each part: every pair's difference or every run's value, the mean in its interval, what was asked."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    told = [part for part in verdict.parts.values() if part.values]
    with mpl.rc_context({"svg.hashsalt": "claims", "svg.fonttype": "none", "font.size": 9}):
        height = ROW * len(told)
        # all rows are alike, so their places are known: a layout that is searched for takes as long as the drawing
        places = {
            "top": 1 - 0.3 / height,
            "bottom": 0.45 / height,
            "hspace": ROW / AXES - 1,
            "left": 0.03,
            "right": 0.97,
        }
        figure, rows = plt.subplots(len(told), 1, figsize=(8, height), squeeze=False, gridspec_kw=places)
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
        axes.axvline(rule.offset, color="#888888", linewidth=0.8)
        signs = {"above": (1,), "below": (-1,), "equal": (-1, 1)}[rule.direction]
        edges = [rule.offset + sign * (rule.least - rule.within) for sign in signs if rule.least != rule.within]
    for edge in edges:
        axes.axvline(edge, color="#000000", linestyle=":")
    axes.set_ylim(-1, 1)
    axes.set_yticks([])
    than = "" if isinstance(rule.than, dict) or not rule.than else f" from {rule.than:g}"
    what = "runs" if rule.bound else f"differences{than}, and their mean with its 95 % interval"
    asked = "; dotted: what the rule asks" if edges else ""
    axes.set_xlabel(f"{len(values)} {what}{f'; {lost} runs have no value' if lost else ''}{asked}")
    axes.set_title(unformatted(f"{part.stand}: {rule.says}"), loc="left", fontsize=9, color=color, wrap=True)
