"""The optimizer's signals through time, and what a run costs."""

from __future__ import annotations

import numpy as np

from alphagrad.common.words import size
from alphagrad.harness import metrics
from alphagrad.lab.evidence.figures import line
from alphagrad.lab.evidence.page.blocks import Cell, Picture, Section, Table, Text, number
from alphagrad.lab.evidence.page.drawing import axes_of, below, label, svg
from alphagrad.lab.evidence.page.subject import SIGNALS, Subject, signals_of
from alphagrad.lab.evidence.statistics.curves import lined_up

LOGARITHMIC = ("norm", "ratio", "kurtosis")
"""In a quantity's name: it spans decades."""


def signals(subject: Subject) -> Section | None:
    """A figure for each quantity: the mean over tensors and runs, in a band from the least tensor to the largest."""
    by_quantity: dict[str, list[str]] = {}
    for metric, quantity in signals_of(subject).items():
        by_quantity.setdefault(quantity, []).append(metric)
    pictures = [one for quantity, names in by_quantity.items() if (one := _picture(subject, quantity, names))]
    if not pictures:
        return None
    told = (
        "What the optimizer did to the tensors that were measured. A line is the mean over tensors and finished runs; "
        "its band reaches from the tensor with the least mean to that with the largest. The data has every tensor."
        + (f" The best {SIGNALS} configurations are drawn." if len(subject.ranked()) > SIGNALS else "")
    )
    return Section("Signals of the optimizer", [Text(told), *pictures])


def _picture(subject: Subject, quantity: str, names: list[str]) -> Picture | None:
    figure, axes = axes_of()
    rows: list[list[Cell]] = []
    for place, group in subject.shown(SIGNALS):
        own = [(name, curves) for name in names if (curves := subject.histories(group, name))]
        if not own:
            continue
        means = []
        for name, curves in own:
            steps, values = lined_up(curves, 100)
            means.append((steps, values.mean(0)))
            rows += [[group.label, name, float(x), float(y)] for x, y in zip(*means[-1], strict=True)]
        steps, tensors = lined_up(means, 100)
        line(axes, label(group.label), steps, tensors.min(0), tensors.mean(0), tensors.max(0), place)
    if not rows or len({row[2] for row in rows}) < 2:
        return None
    if any(word in quantity for word in LOGARITHMIC) and all(float(row[3] or 0) > 0 for row in rows):
        axes.set_yscale("log")
    title = metrics.OF_TENSORS.get(quantity, quantity)
    axes.set(xlabel="step", ylabel=label(title))
    below(axes)
    command = subject.command(f"--figure signal/{quantity} --plot {quantity}.svg")
    headings = ["configuration", "metric", "step", "mean"]
    return Picture(f"signal/{quantity}", f"{quantity}: {title}", svg(figure), headings, rows, command)


def cost(subject: Subject) -> Section | None:
    """Steps a second and the time of each configuration, with what else its runs have logged of the kind."""
    timed = sorted(
        {name for run in subject.runs for name in run.metrics if name.startswith(("time/", "system/", "cost/"))}
    )
    rest = [name for name in timed if name != metrics.STEPS_PER_SECOND and "network" not in name]
    rows = []
    for group in subject.groups:
        rates = group.values(metrics.STEPS_PER_SECOND)
        seconds = [run.seconds for run in group.finished() if run.seconds is not None]
        numbers = [number(_mean(rates)), number(_mean(seconds)), *[_cost(name, group.values(name)) for name in rest]]
        rows.append([group.label, *numbers])
    if not any(cell != "–" for row in rows for cell in row[1:]):
        return None
    told = (
        "Means over finished runs. Seconds are from a run's start to its end, evaluations included. Runs of a stack "
        "train together: seconds and peak memory of each are the stack's. The peak is that of the whole process, or of "
        "the GPU. Runs with MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=true log the machine's load, too."
    )
    return Section("Cost", [Text(told), Table(["configuration", "steps/s", "seconds", *rest], rows)])


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _cost(name: str, values: list[float]) -> str:
    return size(_mean(values) or 0.0) if name.endswith("_bytes") and values else number(_mean(values))
