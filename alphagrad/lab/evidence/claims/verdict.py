"""Decides a claim by its rule from a table of runs; knows numbers, and nothing of stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from alphagrad.common.errors import ConfigError
from alphagrad.common.words import listed
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
    """Mean difference, first minus than; of a bound the value that comes nearest to breaking it, or breaks it most."""
    interval: tuple[float, float] | None = None
    """At 95 %."""
    n: int = 0
    """Pairs of runs, or runs."""
    wanted: int = 0
    """So many pairs the claim asks for; 0 of a bound."""
    chosen: str = ""
    """The best values of settings, where they were chosen."""
    more: int | None = None
    """Seeds that would settle it, as the differences spread here; None if no number is known."""
    values: tuple[float, ...] = ()
    """What ``effect`` is made of: each pair's difference, or each run's value."""


@dataclass(frozen=True)
class Verdict:
    """A claim, decided."""

    claim: Claim
    stand: Stand
    parts: Mapping[str, Decided]


def decide(claim: Claim, table: DataFrame | None, whole: bool = True) -> Verdict:
    """The verdict by the claim's own rule.

    Pairs are those that the claim declares, ``range(seeds)``; others do not count, and where one is missing a
    comparison is *undecided*. It is *supported* when its 95 % interval lies wholly on the claimed side of 0 (or of what
    it may miss, ``within``) and the mean is at least ``least``; *refuted* when the whole interval falls short of that;
    *undecided* otherwise. That two are equal is supported when the interval lies within ±``within``, and refuted when
    it lies outside. A bound is supported when every run keeps it and all are made, refuted when one does not.
    Where no run of either side finished a comparison is undecided.

    The claim is supported when as many parts are as it ``needs`` (all, unless it says a number), and refuted when so
    many are refuted that this can no longer be. One that has to be ``unopposed`` is undecided while some parts are
    supported and others refuted.

    Args:
        claim: with its rule.
        table: a row for each run: settings, ``seed`` and measures; None where nothing was run.
        whole: whether all runs are made.

    Raises:
        ConfigError: all are made, and a part names a measure or runs that none of them is.
    """
    if table is None or not len(table):
        parts = {name: Decided(part, Stand.UNDECIDED) for name, part in claim.parts.items()}
    else:
        if whole:
            _check_named(claim, table)
        declared = table[table[claim.pairs].between(0, claim.seeds - 1)]
        parts = {name: _decided(claim, part, declared, whole) for name, part in claim.parts.items()}
    stands = [part.stand for part in parts.values()]
    yes, no = stands.count(Stand.SUPPORTED), stands.count(Stand.REFUTED)
    needed = claim.needs or len(parts)
    if claim.unopposed and yes and no:
        return Verdict(claim, Stand.UNDECIDED, parts)
    if yes >= needed:
        return Verdict(claim, Stand.SUPPORTED, parts)
    return Verdict(claim, Stand.REFUTED if no > len(parts) - needed else Stand.UNDECIDED, parts)


def _check_named(claim: Claim, table: DataFrame) -> None:
    """A misspelt name would be decided by silence: a measure that no run has counts as the worst everywhere."""
    finished = table[_finished(table)]
    for key, part in claim.parts.items():
        for measure in (part.measure, *((claim.objective,) if part.best else ())):
            if len(finished) and (measure not in finished or finished[measure].isna().all()):
                raise ConfigError(f"{claim.name}: {key}: no run that finished has {measure}")
        for cell in (part.first, part.than):
            if isinstance(cell, dict) and not len(_rows(table, cell)):
                wanted = ", ".join(f"{setting}={value}" for setting, value in cell.items())
                raise ConfigError(f"{claim.name}: {key}: no run has {wanted}")
        if odd := [setting for setting in part.best if setting not in table]:
            raise ConfigError(f"{claim.name}: {key}: no run has {listed(odd)}, whose best value is asked for")


def _decided(claim: Claim, part: Part, table: DataFrame, whole: bool) -> Decided:
    if part.measure not in table:
        return Decided(part, Stand.UNDECIDED)
    if part.bound:
        return _bounded(claim, part, _rows(table, part.first), whole)
    first, one = _side(claim, part, table, part.first)
    if isinstance(part.than, dict):
        second, other = _side(claim, part, table, part.than)
    else:
        second, other = dict.fromkeys(first, float(part.than or 0.0)), ""
    chosen = "; ".join(dict.fromkeys(filter(None, (one, other))))
    wanted = len(_judging(claim, part))
    gaps = {seed: first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())}
    if not gaps:
        return Decided(part, Stand.UNDECIDED, wanted=wanted, chosen=chosen)
    values = list(gaps.values())
    mean, bounds = float(np.mean(values)), interval(values)
    lost = not _finished(_rows(table, part.first)).any()
    lost = lost and isinstance(part.than, dict) and not _finished(_rows(table, part.than)).any()
    stand = Stand.UNDECIDED if len(gaps) < wanted or lost else _stand(part, mean, bounds)
    found = difference(gaps, dict.fromkeys(gaps, 0.0))
    more = _more(part, mean, found.deviation, len(values))
    return Decided(part, stand, mean, bounds, len(values), wanted, chosen, more, tuple(values))


def _more(part: Part, mean: float, deviation: float, there: int) -> int | None:
    """Seeds with which what matters is seen; where so many are there, with which the mean is told from it."""
    more = seeds_needed(part.least or part.within or abs(mean), deviation)
    if more is None or more > there:
        return more
    own = mean - part.offset
    if part.direction == "equal":
        gap = abs(own) - part.within
    else:
        gap = (own if part.direction == "above" else -own) - (part.least or -part.within)
    more = seeds_needed(gap, deviation)
    return more if more is not None and more > there else None


def _judging(claim: Claim, part: Part) -> range:
    """The pairs that are compared: all, or the odd ones where the even ones choose."""
    return range(1, claim.seeds, 2) if part.best else range(claim.seeds)


def _stand(part: Part, mean: float, bounds: tuple[float, float] | None) -> Stand:
    if bounds is None:
        return Stand.UNDECIDED
    mean, bounds = mean - part.offset, (bounds[0] - part.offset, bounds[1] - part.offset)
    if part.direction == "equal":
        low, high = bounds
        if -part.within <= low and high <= part.within:
            return Stand.SUPPORTED
        return Stand.REFUTED if high < -part.within or part.within < low else Stand.UNDECIDED
    sign = 1.0 if part.direction == "above" else -1.0
    low, high = (bound + part.within for bound in sorted(sign * bound for bound in bounds))
    if low > 0 and sign * mean + part.within >= part.least:
        return Stand.SUPPORTED
    return Stand.REFUTED if high < part.least else Stand.UNDECIDED


def _bounded(claim: Claim, part: Part, rows: DataFrame, whole: bool) -> Decided:
    """A run that did not finish, or lacks the measure, keeps no bound; while a pair is missing none is kept by all."""
    if not len(rows):
        return Decided(part, Stand.UNDECIDED)
    values = np.where(_finished(rows), rows[part.measure].to_numpy(float), np.nan)
    low = -np.inf if part.at_least is None else part.at_least
    high = np.inf if part.at_most is None else part.at_most
    spared = np.minimum(values - low, high - values)
    kept, whole = spared >= 0, whole and rows[claim.pairs].nunique() == claim.seeds
    nearest = float("nan") if np.isnan(values).any() else float(values[np.argmin(spared)])
    stand = Stand.REFUTED if not kept.all() else Stand.SUPPORTED if whole else Stand.UNDECIDED
    return Decided(part, stand, nearest, None, len(values), values=tuple(map(float, values)))


def _side(claim: Claim, part: Part, table: DataFrame, cell: Cell) -> tuple[dict[int, float], str]:
    """Seed → the measure of one side; and the values of settings that were chosen for it."""
    rows = _rows(table, cell)
    worst = {measure: _worst(claim, measure, table) for measure in (part.measure, claim.objective)}
    judging = rows[rows[claim.pairs].isin(_judging(claim, part))]
    if not part.best:
        return _values(claim, part.measure, judging, worst, part.log), ""
    if not set(part.best) <= set(rows):
        return {}, ""
    even = rows[rows[claim.pairs] % 2 == 0]
    sign = 1.0 if claim.better == "max" else -1.0
    options = []
    for setting in part.best:
        there, tried = sorted(rows[setting].unique(), key=str), claim.tried(cell, setting)
        if not tried <= set(map(told, there)):
            return {}, ""  # not all are run yet
        options.append([value for value in there if not tried or told(value) in tried])
    best: tuple[float, Cell] | None = None
    for values in product(*options):
        own: Cell = dict(zip(part.best, values, strict=True))
        scores = _values(claim, claim.objective, _rows(even, own), worst, False)
        if not scores:
            continue
        if scores.keys() != set(range(0, claim.seeds, 2)):
            return {}, ""
        score = sign * float(np.mean(list(scores.values())))
        if best is None or score > best[0]:
            best = score, own
    if best is None:
        return {}, ""
    chosen = ", ".join(f"{setting}={value}" for setting, value in best[1].items() if told(value) not in NO_VALUE)
    who = " ".join(str(value) if name.endswith(".name") else f"{name}={value}" for name, value in cell.items())
    return _values(claim, part.measure, _rows(judging, best[1]), worst, part.log), f"{who}: {chosen}"


NO_VALUE = ("nan", "None", "")
"""Of a setting that one side's runs do not have."""


def _worst(claim: Claim, measure: str, table: DataFrame) -> float:
    """What a run counts as that has no value: the claim's worst, or that of the finished runs where it is worse still.

    Worse is on that side of the finished runs' median on which the claim's worst lies.
    """
    named = claim.worst.get(measure, np.nan)
    if measure not in table or np.isnan(named):
        return named
    values = table[measure].astype(float).to_numpy()[_finished(table)]
    values = values[np.isfinite(values)]
    if not len(values):
        return named
    return float(max(named, values.max()) if named >= np.median(values) else min(named, values.min()))


def _values(claim: Claim, measure: str, rows: DataFrame, worst: Mapping[str, float], log: bool) -> dict[int, float]:
    """Seed → mean of a measure over its runs; those that have none count as the worst.

    A negative value has no logarithm, so where ``log`` it counts as the worst that the claim names.
    """
    if measure not in rows:
        return {}
    counts = np.isfinite(rows[measure].astype(float)) & _finished(rows)
    values = rows[measure].where(counts, worst[measure])
    if log:
        values = values.astype(float)
        values = np.log10(values.where(values >= 0, claim.worst[measure]).clip(lower=1e-300))
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
