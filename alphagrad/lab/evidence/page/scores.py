"""How good each configuration is: final numbers, learning curves, profiles, what the curves amount to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from alphagrad.harness import metrics
from alphagrad.lab.evidence.figures import band, count, frame, line
from alphagrad.lab.evidence.page.blocks import Block, Cell, Picture, Section, Table, Text, number
from alphagrad.lab.evidence.page.drawing import axes_of, below, label, svg
from alphagrad.lab.evidence.page.subject import DRAWN, Subject, diverged
from alphagrad.lab.evidence.report import SAYS, mean_and_interval
from alphagrad.lab.evidence.statistics.aggregates import profile
from alphagrad.lab.evidence.statistics.curves import Curve, area, detrended_variance, drawdown, reached

ENOUGH = 5
"""Seeds."""
POINTS = 150
"""Of a curve in a figure, at most."""


def caveat(subject: Subject) -> list[Block]:
    """What few seeds do not show."""
    counts = [len(group.finished()) for group in subject.groups]
    if max(counts, default=0) == 0:
        return [Text("No run is finished, so there are no results yet.", warns=True)]
    if max(counts) == 1:
        return [Text("Every configuration has one seed. One seed shows nothing about the variance between seeds: "
                     "there is no interval and no test, and a difference may be chance.", warns=True)]  # fmt: skip
    few = sum(number < ENOUGH for number in counts)
    if few:
        told = f"{few} of {len(counts)} configurations have fewer than {ENOUGH} finished runs. "
        return [Text(f"{told}Of two or three there is no honest interval: the least and the largest value are told. "
                     "That of four is wide.", warns=True)]  # fmt: skip
    return []


def final(subject: Subject) -> Section:
    """The headline metrics of each configuration."""
    present = subject.present()
    rows, best = [], set()
    for place, group in enumerate(subject.groups):
        numbers = [mean_and_interval(group.values(metric), subject.digits[metric]) for metric in present]
        rows.append([group.label, f"{len(group.finished())}/{len(group.runs)}", *numbers])
        best |= {(place, n + 2) for n, metric in enumerate(present) if subject.best(metric) is group}
    blocks = caveat(subject)
    if not present:
        blocks.append(Text("No finished run has a headline metric."))
    told = (
        f"{SAYS[:1].upper()}{SAYS[1:]}. ★ marks the best mean of a column, of configurations of which no run diverged."
    )
    blocks += [Text(told), Table(["configuration", "finished", *present], rows, best=frozenset(best))]
    return Section("Final results", blocks)


def learning(subject: Subject) -> Section:
    """A figure for each headline metric that has a curve."""
    pictures = [one for metric in subject.digits if (one := curve_picture(subject, metric))]
    left = len(subject.ranked()) - DRAWN
    more = f" The best {DRAWN} of {left + DRAWN} configurations are drawn." if left > 0 else ""
    told = (
        "A line is the mean over seeds. Its band is the 95 % interval of the mean, from four seeds on, else from the "
        "least to the largest value. Both are worked out at the steps that were measured; n counts the runs. A band "
        "that is much wider than what was measured is cut off at the edge; the data has it whole." + more
    )
    if not pictures:
        return Section("Learning curves", [Text("No headline metric was logged at more than one step.")])
    return Section("Learning curves", [Text(told), *pictures])


def curve_picture(subject: Subject, metric: str) -> Picture | None:
    """A metric over the steps; None where no finished run has it at two steps."""
    figure, axes = axes_of()
    rows: list[list[Cell]] = []
    drawn: list[Curve] = []
    for place, group in subject.shown():
        curves = subject.histories(group, metric)
        if not curves or max(len(steps) for steps, _ in curves) < 2:
            continue
        drawn += curves
        steps, low, mean, high = band(_thinned(curves), POINTS)
        line(axes, label(f"{group.label} ({count(curves)})"), steps, low, mean, high, place)
        rows += [[group.label, len(curves), *map(float, point)] for point in zip(steps, mean, low, high, strict=True)]
    if not rows:
        return None
    frame(axes, drawn)
    axes.set(xlabel="step", ylabel=label(metrics.title(metric)))
    below(axes)
    headings = ["configuration", "n", "step", "mean", "low", "high"]
    command = subject.command(f"--metric {metric} --plot {metric.replace('/', '_')}.svg")
    return Picture(f"curve/{metric}", f"{metric}: {metrics.title(metric)}", svg(figure), headings, rows, command)


def _thinned(curves: Sequence[Curve]) -> list[Curve]:
    """Every so many of the points where curves are long, the last among them; all are measured ones."""
    most = max(len(steps) for steps, _ in curves)
    each = -(-most // POINTS)
    return [(steps[::-1][::each][::-1], values[::-1][::each][::-1]) for steps, values in curves]


def profiles(subject: Subject) -> Section | None:
    """The share of runs that are at least so good; one that diverged is worse than all."""
    known = [(place, group, list(subject.outcomes(group).values())) for place, group in subject.shown()]
    finite = np.array([value for _, _, values in known for value in values if math.isfinite(value)])
    if not len(finite) or max(len(values) for *_, values in known) < 2:
        return None
    sign = 1 if subject.better == "max" else -1
    edge = (finite.max() - finite.min()) * 0.03 or 1.0
    levels = np.linspace(finite.min() - edge, finite.max() + edge, 201)
    figure, axes = axes_of()
    rows: list[list[Cell]] = []
    for place, group, values in known:
        share = profile(sign * np.array(values)[:, None], sign * levels)
        line(axes, label(f"{group.label} (n={len(values)})"), levels, share, share, share, place)
        rows += [[group.label, float(level), float(part)] for level, part in zip(levels, share, strict=True)]
    axes.set(
        xlabel=label(metrics.title(subject.objective)), ylabel="share of runs at least as good", ylim=(-0.03, 1.03)
    )
    if subject.better == "min":
        axes.invert_xaxis()
    below(axes)
    title = f"Performance profiles of {subject.objective}"
    command = subject.command("--figure profile --plot profile.svg")
    told = (
        "The share of a configuration's runs beyond each value (Agarwal et al. 2021). A curve above another is better."
    )
    picture = Picture("profile", title, svg(figure), ["configuration", subject.objective, "share"], rows, command)
    return Section("Performance profiles", [Text(told), picture])


def along(subject: Subject, target: float | None = None) -> Section | None:
    """What the curves of the objective amount to: area, steps to a target, stability."""
    curves = {id(group): subject.histories(group, subject.objective) for group in subject.groups}
    if not any(len(steps) > 1 for own in curves.values() for steps, _ in own):
        return None
    means = [mean for group in subject.groups if math.isfinite(mean := subject.score(group))]
    if target is None and not means:
        return None
    goal = target if target is not None else float(np.median(means))
    digits = subject.digits[subject.objective]
    headings = ["configuration", "reached", "steps to target", "seconds", "area", "drawdown", "variance", "diverged"]
    rows = []
    for group in subject.groups:
        own = curves[id(group)]
        lost = diverged(group)
        steps = [reached(curve, goal, subject.better) for curve in own] + [math.inf] * lost
        rates = [run.metrics.get(metrics.STEPS_PER_SECOND, math.nan) for run in group.finished()][: len(steps)]
        middle = float(np.median(steps)) if steps else math.nan
        rate = float(np.nanmean(rates)) if rates and not all(map(math.isnan, rates)) else math.nan
        rows.append(
            [
                group.label,
                f"{sum(map(math.isfinite, steps))}/{len(steps)}",
                "missed" if math.isinf(middle) else number(middle),
                "missed" if math.isinf(middle) else number(middle / rate),
                _over(own, area, digits),
                _over(own, lambda curve: drawdown(curve[1], subject.better), digits),
                _over(own, lambda curve: detrended_variance(curve[1]), None),
                f"{lost}/{len(group.runs)}",
            ]
        )
    how = "as asked" if target is not None else "the median of the configurations' final means; --target VALUE sets it"
    told = (
        f"Of {subject.objective}. The target is {number(goal)} ({how}); told: the median over seeds of the first step "
        "there, where a miss is infinite and a run that diverged a miss, and these steps over the steps a second. Runs "
        "of a stack share their time: compare the seconds of runs that trained alone, or in stacks as large. Area: the "
        "mean height of the curve. Drawdown: its largest fall from the best so far. Variance: about its trend, from "
        "second differences. The last three are means over the finished runs; diverged runs are counted beside them."
    )
    return Section("Speed and stability", [Text(told), Table(headings, rows)])


def _over(curves: Sequence[Curve], of: Callable[[Curve], float], digits: int | None) -> str:
    return number(float(np.mean([of(curve) for curve in curves])) if curves else None, digits)
