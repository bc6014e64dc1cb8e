"""Whether one configuration is better than another, how sure that is, and how many seeds would show it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from alphagrad.lab.evidence.page.blocks import Block, Cell, Picture, Section, Table, Text, number
from alphagrad.lab.evidence.page.drawing import axes_of, label, svg
from alphagrad.lab.evidence.page.subject import Subject
from alphagrad.lab.evidence.results import Group
from alphagrad.lab.evidence.statistics.aggregates import improvement
from alphagrad.lab.evidence.statistics.comparisons import ALPHA, POWER, Difference, difference, holm, seeds_needed

ALL_PAIRS = 8
"""Configurations up to which each is compared with each; of more, each with the best."""
MOST_SEEDS = 1_000
SHARES = (0.01, 0.05, 0.1)
"""Of the best mean: differences to plan for."""


class Pair(NamedTuple):
    """Two configurations compared; the difference is the first minus the second."""

    first: Group
    second: Group
    found: Difference
    p: float
    """After Holm's correction over all pairs of the report's part."""
    better: float
    """Probability that a run of the first is better than one of the second."""


def compared(subject: Subject) -> list[Pair]:
    """All pairs, or each configuration with the best; over the seeds that both have, where there are two."""
    known = [(group, values) for group in subject.groups if (values := subject.outcomes(group))]
    if len(known) > ALL_PAIRS:
        best = subject.best() or known[0][0]
        first = next(one for one in known if one[0] is best)
        chosen = [(first, other) for other in known if other[0] is not best]
    else:
        chosen = list(combinations(known, 2))
    found = [(one, other, difference(one[1], other[1])) for one, other in chosen]
    ps = holm([test.p for *_, test in found])
    return [
        Pair(one[0], other[0], test, p, probability(one[1], other[1], subject.better))
        for (one, other, test), p in zip(found, ps, strict=True)
    ]


def probability(first: Mapping[int, float], second: Mapping[int, float], better: str) -> float:
    """That a run of the first is better than one of the second, by all pairs of runs; ties count half."""
    shared = sorted(first.keys() & second.keys())
    one, other = [
        np.array([values[seed] for seed in shared] if len(shared) > 1 else list(values.values()))
        for values in (first, second)
    ]
    sign = 1.0 if better == "max" else -1.0
    # as numbers that have a difference: two that diverged are equal
    ranks = np.unique(np.concatenate([one, other]), return_inverse=True)[1].reshape(-1)
    return improvement(sign * ranks[: len(one), None], sign * ranks[len(one) :, None])


def pairs(subject: Subject) -> Section | None:
    """The section; None with fewer than two configurations to compare."""
    found = compared(subject)
    if not found:
        return None
    digits = subject.digits[subject.objective]
    headings = [
        "first",
        "second",
        "difference",
        "95 % interval",
        "p (Holm)",
        "P(first better)",
        "seeds",
        "seeds needed",
    ]
    rows = []
    for pair in found:
        test, bounds = pair.found, pair.found.interval
        between = f"[{bounds[0]:.{digits}f}, {bounds[1]:.{digits}f}]" if bounds else "–"
        kind = f"{test.seeds} {'shared' if test.paired else 'each'}"
        needed = seeds_needed(test.mean, test.deviation) if test.paired and 0 < test.deviation < math.inf else None
        seeds = "–" if needed is None else f"> {MOST_SEEDS}" if needed > MOST_SEEDS else str(needed)
        numbers = [f"{test.mean:+.{digits}f}", between, number(pair.p), f"{pair.better:.2f}", kind, seeds]
        rows.append([pair.first.label, pair.second.label, *numbers])
    best = frozenset((place, 4) for place, pair in enumerate(found) if pair.p < ALPHA)
    count = sum(bool(subject.outcomes(group)) for group in subject.groups)
    scope = "all pairs" if count <= ALL_PAIRS else "each with the best, which was chosen by the same runs"
    told = (
        f"Of {subject.objective} ({subject.better} is better): first minus second, {scope}. Over the seeds both have "
        "it is Student's paired test, else Welch's; a run that diverged counts as infinitely bad, and then nothing is "
        f"tested. p is corrected by Holm for {sum(not math.isnan(pair.p) for pair in found)} tests; ★: below {ALPHA}. "
        f"Seeds needed: pairs of runs that show a difference of this size with {POWER:.0%} chance."
    )
    blocks: list[Block] = [Text(told), Table(headings, rows, words=2, best=best)]
    if all(math.isnan(pair.p) for pair in found):
        blocks.insert(0, Text("Nothing can be tested: that takes two finished runs of each configuration.", warns=True))
    if 2 < count <= ALL_PAIRS:
        blocks.append(matrix(subject, found))
    blocks += advice(subject, found)
    return Section("Pairwise comparison", blocks)


def matrix(subject: Subject, found: Sequence[Pair]) -> Picture:
    """The probability that the row is better than the column, as shades and numbers."""
    groups = [group for group in subject.groups if any(group is pair.first or group is pair.second for pair in found)]
    place = {id(group): number for number, group in enumerate(groups)}
    shares = np.full((len(groups), len(groups)), np.nan)
    sure = np.zeros_like(shares, dtype=bool)
    for pair in found:
        row, column = place[id(pair.first)], place[id(pair.second)]
        shares[row, column], shares[column, row] = pair.better, 1 - pair.better
        sure[row, column] = sure[column, row] = pair.p < ALPHA
    figure, axes = axes_of((8.0, 1.6 + 0.45 * len(groups)))
    axes.grid(visible=False)
    axes.imshow(shares, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for row, column in np.argwhere(~np.isnan(shares)):
        text = f"{shares[row, column]:.2f}{' ★' if sure[row, column] else ''}"
        color = "white" if shares[row, column] < 0.5 else "black"
        axes.text(column, row, text, ha="center", va="center", color=color)
    names = [f"{number + 1}: {label(group.label)}" for number, group in enumerate(groups)]
    axes.set_yticks(range(len(groups)), names, fontsize="small")
    axes.set_xticks(range(len(groups)), [str(number + 1) for number in range(len(groups))])
    rows: list[list[Cell]] = [[p.first.label, p.second.label, p.better, p.p, p.found.mean] for p in found]
    headings = ["first", "second", "probability first is better", "p (Holm)", "difference"]
    title = "Probability that a run of the row is better than one of the column (★: p < 0.05)"
    command = subject.command("--figure pairs --plot pairs.svg")
    return Picture("pairs", title, svg(figure), headings, rows, command)


def advice(subject: Subject, found: Sequence[Pair]) -> list[Block]:
    """How many seeds show differences of some sizes, by how much pairs of runs differ here."""
    spreads = [p.found.deviation for p in found if p.found.paired and p.found.deviation > 0]
    best = subject.best()
    if not spreads or best is None or subject.mean(best) == 0:
        return []
    middle, mean = float(np.median(spreads)), abs(subject.mean(best))
    told = [f"{share:.0%} of the best mean ({share * mean:.3g}): {_told(share * mean, middle)}" for share in SHARES]
    start = f"To plan a study: with the median spread of paired differences here ({middle:.3g}) a difference of"
    return [Text(f"{start} {'; '.join(told)}.")]


def _told(gap: float, deviation: float) -> str:
    needed = seeds_needed(gap, deviation)
    return f"more than {MOST_SEEDS} seeds" if needed is None or needed > MOST_SEEDS else f"{needed} seeds"
