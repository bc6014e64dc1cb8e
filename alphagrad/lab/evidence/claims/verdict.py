"""Decides a claim by its rule from a table of runs; knows numbers, and nothing of stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from alphagrad.lab.evidence.claims.ledger import Cell, Claim, Part, told
from alphagrad.lab.evidence.statistics.comparisons import difference, seeds_needed
from alphagrad.lab.evidence.statistics.intervals import interval

if TYPE_CHECKING:
    from pandas import DataFrame


class Stand(StrEnum):
    """What the runs say of a claim or a part of it."""

    SUPPORTED = "supported"
    REFUTED = "refuted"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Decided:
    """A part, decided."""

    part: Part
    stand: Stand
    effect: float = float("nan")
    """Mean difference, first minus than, with what it may miss; of a bound the value farthest out."""
    interval: tuple[float, float] | None = None
    """At 95 %."""
    n: int = 0
    """Pairs of runs, or runs."""
    chosen: str = ""
    """The best values of settings, where they were chosen."""
    more: int | None = None
    """Seeds with which ``least`` would be seen, as the differences spread here."""
    values: tuple[float, ...] = ()
    """What ``effect`` is made of: each pair's difference, or each run's value."""


@dataclass(frozen=True)
class Verdict:
    """A claim, decided."""

    claim: Claim
    stand: Stand
    parts: Mapping[str, Decided]


def decide(claim: Claim, table: DataFrame | None) -> Verdict:
    """The verdict by the claim's own rule.

    A comparison is *supported* when its 95 % interval lies wholly on the claimed side of 0 and the mean is at least
    ``least``; *refuted* when the whole interval falls short of ``least`` (of 0, where ``least`` is 0); *undecided*
    otherwise, and where a best value is asked for and not every value has runs. A bound is supported when every run
    keeps it. The claim is supported when as many parts are as it ``needs`` (all, unless it says a number) and none is
    refuted. It is refuted when so many are refuted and none is supported, or, where it needs all, when one is.

    Args:
        claim: with its rule.
        table: a row for each run: settings, ``seed`` and measures; None where nothing was run.
    """
    parts = {
        name: Decided(part, Stand.UNDECIDED) if table is None or not len(table) else _decided(claim, part, table)
        for name, part in claim.parts.items()
    }
    stands = [part.stand for part in parts.values()]
    yes, no = stands.count(Stand.SUPPORTED), stands.count(Stand.REFUTED)
    needed = claim.needs or len(parts)
    if yes >= needed and not no:
        stand = Stand.SUPPORTED
    elif (no and claim.needs is None) or (claim.needs is not None and no >= needed and not yes):
        stand = Stand.REFUTED
    else:
        stand = Stand.UNDECIDED
    return Verdict(claim, stand, parts)


def _decided(claim: Claim, part: Part, table: DataFrame) -> Decided:
    if part.bound:
        return _bounded(part, _rows(table, part.first))
    first, one = _side(claim, part, table, part.first)
    if isinstance(part.than, dict):
        second, other = _side(claim, part, table, part.than)
    else:
        second, other = dict.fromkeys(first, float(part.than or 0.0)), ""
    chosen = "; ".join(dict.fromkeys(filter(None, (one, other))))
    spared = part.within if part.direction == "above" else -part.within
    gaps = {seed: first[seed] - second[seed] + spared for seed in first.keys() & second.keys()}
    if not gaps:
        return Decided(part, Stand.UNDECIDED, chosen=chosen)
    values = list(gaps.values())
    mean, bounds = float(np.mean(values)), interval(values)
    found = difference(gaps, dict.fromkeys(gaps, 0.0))
    more = seeds_needed(part.least or abs(mean), found.deviation)
    return Decided(part, _stand(part, mean, bounds), mean, bounds, len(values), chosen, more, tuple(values))


def _stand(part: Part, mean: float, bounds: tuple[float, float] | None) -> Stand:
    if bounds is None:
        return Stand.UNDECIDED
    sign = 1.0 if part.direction == "above" else -1.0
    low, high = sorted(sign * bound for bound in bounds)
    if low > 0 and sign * mean >= part.least:
        return Stand.SUPPORTED
    return Stand.REFUTED if high < part.least else Stand.UNDECIDED


def _bounded(part: Part, rows: DataFrame) -> Decided:
    """A run that did not finish, or lacks the measure, keeps no bound."""
    if not len(rows):
        return Decided(part, Stand.UNDECIDED)
    values = rows[part.measure].to_numpy(float) if part.measure in rows else np.full(len(rows), np.nan)
    low = -np.inf if part.at_least is None else part.at_least
    high = np.inf if part.at_most is None else part.at_most
    values = np.where(_finished(rows), values, np.nan)
    kept = (values >= low) & (values <= high)
    if np.isnan(values).any():
        farthest = float("nan")
    elif part.at_most is not None:
        farthest = float(values.max())
    else:
        farthest = float(values.min())
    stand = Stand.SUPPORTED if kept.all() else Stand.REFUTED
    return Decided(part, stand, farthest, None, len(values), values=tuple(map(float, values)))


def _side(claim: Claim, part: Part, table: DataFrame, cell: Cell) -> tuple[dict[int, float], str]:
    """Seed → the measure of one side; and the values of settings that were chosen for it."""
    rows = _rows(table, cell)
    if not part.best:
        return _values(claim, part.measure, rows, part.log), ""
    even, odd = rows[rows[claim.pairs] % 2 == 0], rows[rows[claim.pairs] % 2 == 1]
    sign = 1.0 if claim.better == "max" else -1.0
    options = [sorted(rows[setting].unique(), key=str) for setting in part.best]
    for setting, there in zip(part.best, options, strict=True):
        if not claim.tried(cell, setting) <= set(map(told, there)):
            return {}, ""  # not all are run yet
    best: tuple[float, Cell] | None = None
    for values in product(*options):
        tried: Cell = dict(zip(part.best, values, strict=True))
        scores = list(_values(claim, claim.objective, _rows(even, tried), False).values())
        score = sign * float(np.mean(scores)) if scores else -np.inf
        if best is None or score > best[0]:
            best = score, tried
    if best is None:
        return {}, ""
    chosen = ", ".join(f"{setting}={value}" for setting, value in best[1].items())
    who = " ".join(str(value) for value in cell.values())
    return _values(claim, part.measure, _rows(odd, best[1]), part.log), f"{who}: {chosen}"


def _values(claim: Claim, measure: str, rows: DataFrame, log: bool) -> dict[int, float]:
    """Seed → mean of a measure over its runs; those that have none count as the claim's worst."""
    if measure not in rows:
        return {}
    counts = np.isfinite(rows[measure].astype(float)) & _finished(rows)
    values = rows[measure].where(counts, claim.worst.get(measure, np.nan))
    if log:
        values = np.log10(values.astype(float).clip(lower=1e-300))
    means = values.groupby(rows[claim.pairs]).agg(lambda own: own.mean(skipna=False))
    return {int(seed): float(value) for seed, value in means.items()}


def _finished(rows: DataFrame) -> np.ndarray:
    """Which runs did; all, of a table that knows no status."""
    return rows["status"].to_numpy() == "finished" if "status" in rows else np.ones(len(rows), dtype=bool)


def _rows(table: DataFrame, cell: Cell) -> DataFrame:
    kept = np.ones(len(table), dtype=bool)
    for setting, value in cell.items():
        if setting not in table:
            return table[:0]
        kept &= np.array([told(own) == told(value) for own in table[setting]], dtype=bool)
    return table[kept]
