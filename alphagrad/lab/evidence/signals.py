"""What the instruments saw in the runs of a study: which tensors went beyond a bound, and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alphagrad.common.errors import ConfigError
from alphagrad.common.words import listed
from alphagrad.harness.metrics import OF_TENSORS
from alphagrad.lab.evidence.frames import METRIC, frame
from alphagrad.lab.records.search import CELL

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Crossing:
    """One tensor in the runs of one configuration."""

    cell: str
    tensor: str
    runs: int
    """In which it was measured."""
    beyond: int
    """In how many of them it went beyond the bound."""
    first: int | None
    """The earliest step, of all runs, at which it was beyond; None if it never was."""
    largest: float
    at: int
    """The step of the largest value."""
    last: float
    """The mean over runs of the last value."""


def crossings(
    study: str | None,
    quantity: str,
    bound: float,
    *,
    uri: str | None = None,
    output_root: str | Path = "outputs",
    experiment: str | None = None,
) -> list[Crossing]:
    """When each tensor of each configuration went beyond a bound, the earliest first.

    Args:
        study: the id of a study or run, or its beginning; None for the newest study, or all runs where there is none.
        quantity: what is measured of single tensors, such as ``saturation``.
        bound: what it is beyond where it is larger.
        uri: the store, as of :func:`alphagrad.lab.evidence.frames.frame`; the rest, too.
        output_root: of the runs.
        experiment: where the study is looked for.

    Raises:
        ConfigError: there is no such study, or none of its runs measured this.
    """
    if quantity not in OF_TENSORS:
        raise ConfigError(f"--quantity={quantity}: is not measured of tensors; these are: {listed(sorted(OF_TENSORS))}")
    where = {"uri": uri, "output_root": output_root, "experiment": experiment}
    before = f"{METRIC}{quantity}/"
    names = [c.removeprefix(METRIC) for c in frame(study, **where).columns if c.startswith(before)]  # type: ignore[arg-type]
    if not names:
        raise ConfigError(
            f"--quantity={quantity}: no run has measured it; instruments=full measures everything, "
            "and what needs α is of AlphaGrad's variants alone"
        )
    found = list(_crossings(frame(study, curves=names, **where), quantity, bound))  # type: ignore[arg-type]
    return sorted(found, key=lambda c: (c.cell, c.first is None, c.first or 0, -c.largest))


def _crossings(curves: DataFrame, quantity: str, bound: float) -> Iterator[Crossing]:
    metrics = [column for column in curves.columns if column.startswith(f"{quantity}/")]
    for cell, own in curves.groupby(CELL, sort=False):
        for metric in metrics:
            told = own[["run_id", "step", metric]].dropna()
            if told.empty:
                continue
            over = told[told[metric] > bound]
            peak = told[metric].idxmax()
            yield Crossing(
                str(cell),
                metric.partition("/")[2],
                told["run_id"].nunique(),
                over["run_id"].nunique(),
                None if over.empty else int(over["step"].min()),
                float(told[metric][peak]),
                int(told["step"][peak]),
                float(told.groupby("run_id")[metric].last().mean()),
            )
