"""Which value of a setting is best and how wide its valley is: curves over one setting, maps over two."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice

import numpy as np

from alphagrad.harness import metrics
from alphagrad.lab.evidence.figures import COLORS, MARKERS, STYLES
from alphagrad.lab.evidence.page.blocks import Block, Cell, Picture, Section, Table, Text, number
from alphagrad.lab.evidence.page.drawing import axes_of, below, label, svg
from alphagrad.lab.evidence.page.origin import PLACES
from alphagrad.lab.evidence.page.subject import Subject
from alphagrad.lab.evidence.results import Group
from alphagrad.lab.evidence.statistics.intervals import interval

VALLEY = 0.1
"""Share of the best mean within which a value counts as about as good."""
FAMILIES, MAPS, TICKS = 8, 6, 12
"""Lines in a figure, maps in a report, and values told along an axis, at most."""


@dataclass(frozen=True)
class Family:
    """Configurations that differ in one number alone, by it."""

    setting: str
    label: str
    members: list[tuple[float, Group]]

    def best(self, subject: Subject) -> tuple[float, float]:
        """The value with the best mean, and this mean; where runs diverged it counts as none."""
        means = [(value, subject.score(group)) for value, group in self.members]
        known = [pair for pair in means if math.isfinite(pair[1])]
        if not known:
            return math.nan, math.nan
        return (max if subject.better == "max" else min)(known, key=lambda pair: pair[1])

    def valley(self, subject: Subject) -> list[float]:
        """The values around the best, without a gap, whose means are within a tenth of the best mean of it."""
        best, top = self.best(subject)
        if math.isnan(best):
            return []
        edge = top - VALLEY * abs(top) if subject.better == "max" else top + VALLEY * abs(top)
        good = [_at_least(subject.score(group), edge, subject.better) for _, group in self.members]
        place = [value for value, _ in self.members].index(best)
        low = high = place
        while low > 0 and good[low - 1]:
            low -= 1
        while high + 1 < len(good) and good[high + 1]:
            high += 1
        return [value for value, _ in self.members[low : high + 1]]


def _at_least(mean: float, edge: float, better: str) -> bool:
    return mean >= edge if better == "max" else mean <= edge


def numbers_of(subject: Subject) -> dict[str, dict[int, float]]:
    """Setting → number that each group (by its place) has of it, for those of which there are several."""
    found: dict[str, dict[int, float]] = {}
    for name in sorted({name for run in subject.runs for name in run.settings}):
        if name.startswith(PLACES):
            continue
        values = {}
        for place, group in enumerate(subject.groups):
            given = _number(group.runs[0].settings.get(name, ""))
            if given is not None:
                values[place] = given
        if len(set(values.values())) > 1:
            found[name] = values
    return found


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def families(subject: Subject, setting: str, values: dict[int, float]) -> list[Family]:
    """The groups that differ in a setting alone, together; none of single ones."""
    apart: dict[tuple[tuple[str, str], ...], list[tuple[float, Group]]] = {}
    for place, value in values.items():
        group = subject.groups[place]
        settings = group.runs[0].settings
        rest = {k: v for k, v in settings.items() if k != setting and not k.startswith(PLACES)}
        key = (("", group.label.partition(":")[0] if ":" in group.label else ""), *sorted(rest.items()))
        apart.setdefault(key, []).append((value, group))
    members = [sorted(own, key=lambda one: one[0]) for own in apart.values() if len({v for v, _ in own}) > 1]
    return [Family(setting, _shared_label([group.label for _, group in own]), own) for own in members]


def _shared_label(labels: Sequence[str]) -> str:
    """The words that all have."""
    common = set.intersection(*[set(one.split()) for one in labels])
    return " ".join(word for word in labels[0].split() if word in common) or "all"


def sensitivity(subject: Subject) -> Section | None:
    """The section; None where no number was varied."""
    if not any(group.values(subject.objective) for group in subject.groups):
        return None
    numbers = numbers_of(subject)
    by_setting = {name: own for name, values in numbers.items() if (own := families(subject, name, values))}
    if not by_setting:
        return None
    blocks: list[Block] = [
        Text(
            f"Means of {subject.objective} over seeds. The valley: the values around the best one whose means are "
            f"within {VALLEY:.0%} of the best mean. Only values that were tried count. A valley that ends where the "
            "values end may go on beyond them."
        )
    ]
    rows = [row for own in by_setting.values() for family in own if (row := _row(subject, family))]
    headings = ["setting", "configurations", "best", "mean there", "valley", "decades", "tried", "diverged at"]
    blocks.append(Table(headings, rows, words=2))
    blocks += [curve(subject, setting, own) for setting, own in by_setting.items()]
    maps = (found for one, other in combinations(by_setting, 2) for found in grids(subject, one, other, numbers))
    return Section("Sensitivity", [*blocks, *islice(maps, MAPS)])  # of many no more are drawn than are shown


def _row(subject: Subject, family: Family) -> list[str]:
    best, top = family.best(subject)
    valley, tried = family.valley(subject), [value for value, _ in family.members]
    if not valley:
        between, decades = "–", "–"
    else:
        open_low, open_high = valley[0] == tried[0], valley[-1] == tried[-1]
        ends = f"{valley[0]:g}" if valley[0] == valley[-1] else f"{valley[0]:g} to {valley[-1]:g}"
        between = f"{'≤ ' if open_low else ''}{ends}{' or more' if open_high else ''}"
        decades = number(math.log10(valley[-1] / valley[0]), 2) if valley[0] > 0 else "–"
    bad = [value for value, group in family.members if any(run.life.standing == "diverged" for run in group.runs)]
    digits = subject.digits[subject.objective]
    told = f"{tried[0]:g} to {tried[-1]:g} ({len(set(tried))})"
    where = ", ".join(f"{value:g}" for value in bad) or "none"
    return [family.setting, family.label, number(best), number(top, digits), between, decades, told, where]


def curve(subject: Subject, setting: str, own: Sequence[Family]) -> Picture:
    """The mean over a setting, a line for each family, the valley of each drawn thick, the best value ringed."""
    figure, axes = axes_of()
    rows: list[list[Cell]] = []
    positive = all(value > 0 for family in own for value, _ in family.members)
    for place, family in enumerate(own):
        color, marker = COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)]
        values = np.array([value for value, _ in family.members])
        means = np.array([subject.mean(group) for _, group in family.members])
        bounds = np.array([_bounds(group.values(subject.objective)) for _, group in family.members])
        rows += [
            [setting, family.label, float(value), float(mean), float(low), float(high), len(group.finished())]
            for value, mean, (low, high), (_, group) in zip(values, means, bounds, family.members, strict=True)
        ]
        if place >= FAMILIES:
            continue
        spread = np.nan_to_num(np.abs(bounds.T - means), nan=0.0, posinf=0.0)
        style = {"color": color, "marker": marker, "linestyle": STYLES[place % len(STYLES)]}
        axes.errorbar(values, means, yerr=spread, capsize=3, label=label(family.label), **style)
        inside = np.isin(values, family.valley(subject))
        axes.plot(values[inside], means[inside], color=color, linewidth=7, alpha=0.3, solid_capstyle="round")
        best, top = family.best(subject)
        axes.plot([best], [top], "o", markersize=13, markerfacecolor="none", markeredgecolor="black")
    tried = sorted({value for family in own for value, _ in family.members})
    if positive and tried[-1] / tried[0] > 5:
        axes.set_xscale("log")
    if len(tried) <= TICKS:
        axes.set_xticks(tried, [f"{value:g}" for value in tried], minor=False)
        axes.minorticks_off()
    axes.set(xlabel=label(setting), ylabel=label(metrics.title(subject.objective)))
    below(axes)
    headings = ["setting", "of", "value", "mean", "low", "high", "n"]
    title = f"{subject.objective} over {setting}; ringed: the best, thick: within {VALLEY:.0%} of it"
    command = subject.command(f"--figure over/{setting} --plot sensitivity.svg")
    return Picture(f"over/{setting}", title, svg(figure), headings, rows, command)


def _bounds(values: list[float]) -> tuple[float, float]:
    if not values:
        return math.nan, math.nan
    return interval(values) or (min(values), max(values))


def grids(subject: Subject, one: str, other: str, numbers: dict[str, dict[int, float]]) -> Iterator[Picture]:
    """Maps of the mean over two settings, one for each set of groups that differ in these two alone."""
    apart: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for place in numbers[one].keys() & numbers[other].keys():
        settings = subject.groups[place].runs[0].settings
        rest = {k: v for k, v in settings.items() if k not in (one, other) and not k.startswith(PLACES)}
        apart.setdefault(tuple(sorted(rest.items())), []).append(place)
    for number_, places in enumerate(apart.values()):
        across = sorted({numbers[one][place] for place in places})
        up = sorted({numbers[other][place] for place in places})
        if len(across) > 1 and len(up) > 1 and len(places) > 3:
            means = np.full((len(up), len(across)), np.nan)
            for place in places:
                cell = up.index(numbers[other][place]), across.index(numbers[one][place])
                means[cell] = subject.score(subject.groups[place])
            of = _shared_label([subject.groups[place].label for place in places])
            yield _map(subject, (one, across), (other, up), means, f"{of}", number_)


def _map(
    subject: Subject,
    across: tuple[str, list[float]],
    up: tuple[str, list[float]],
    means: np.ndarray,
    of: str,
    place: int,
) -> Picture:
    figure, axes = axes_of((8.0, 1.8 + 0.5 * len(up[1])))
    axes.grid(visible=False)
    axes.set_facecolor("#ffffff")
    finite = np.where(np.isfinite(means), means, np.nan)
    bright = finite if subject.better == "max" else -finite
    axes.imshow(bright, cmap="cividis", aspect="auto", origin="lower")
    known = bright[~np.isnan(bright)]
    middle = (known.min() + known.max()) / 2 if len(known) else 0.0
    best = np.nanargmax(bright) if len(known) else -1
    for row, column in np.ndindex(means.shape):
        value = finite[row, column]
        text = "–" if np.isnan(value) else number(float(value), subject.digits[subject.objective])
        star = " ★" if row * means.shape[1] + column == best else ""
        dark = not np.isnan(value) and bright[row, column] < middle
        axes.text(column, row, text + star, ha="center", va="center", color="white" if dark else "black")
    axes.set_xticks(range(len(across[1])), [f"{value:g}" for value in across[1]])
    axes.set_yticks(range(len(up[1])), [f"{value:g}" for value in up[1]])
    axes.set(xlabel=label(across[0]), ylabel=label(up[0]))
    rows: list[list[Cell]] = [
        [across[1][column], up[1][row], float(means[row, column])] for row, column in np.ndindex(means.shape)
    ]
    name = f"map/{across[0]}/{up[0]}" + (f"/{place}" if place else "")
    title = (
        f"{subject.objective} over {across[0]} and {up[0]} of {of} (★ the best; –: a run diverged, or none is finished)"
    )
    command = subject.command(f"--figure {name} --plot map.svg")
    return Picture(name, title, svg(figure), [across[0], up[0], subject.objective], rows, command)
