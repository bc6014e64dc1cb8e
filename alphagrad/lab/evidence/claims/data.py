"""A claim's evidence: a row for each run, gathered from a store, kept as a small file, and read back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alphagrad.common.errors import ConfigError
from alphagrad.common.files import atomic, write_whole
from alphagrad.lab.evidence.claims.ledger import SEED, Claim
from alphagrad.lab.evidence.frames import METRIC, SETTING, frame
from alphagrad.lab.evidence.results import Results
from alphagrad.lab.evidence.statistics.curves import Curve, area, detrended_variance, drawdown

if TYPE_CHECKING:
    from pandas import DataFrame

OF = " of "
MEASURES = {
    "drawdown": lambda curve: drawdown(curve[1]),
    "rise": lambda curve: drawdown(curve[1], "min"),
    "area": area,
    "peak": lambda curve: float(curve[1].max()),
    "roughness": lambda curve: float(np.log10(max(detrended_variance(curve[1]), 1e-300))),
}
"""What is measured of a curve: ``drawdown of eval/return``."""
NAMES = ("status", "reason")
ENDED = ("finished", "failed")
"""Runs that say something; others are to go on."""
COMMIT = "commit"


@dataclass(frozen=True)
class Origin:
    """Where evidence comes from."""

    commands: tuple[str, ...]
    commit: str
    versions: dict[str, str]
    runs: int
    measured: str
    """On which day, as 2026-11-26."""


def gathered(claim: Claim, uri: str, experiment: str) -> DataFrame:
    """The runs of a claim's studies: the settings that vary among them, and the measures that its parts name.

    Raises:
        ConfigError: the experiment is not there, or a run has not ended.
    """
    import pandas as pd

    results = Results(uri, experiment)
    plain = [name for name in claim.measures() if OF not in name]
    drawn = [name.split(OF, 1) for name in claim.measures() if OF in name]
    tables = []
    for parent in results.studies():
        study = parent.info.run_id
        runs = frame(study, uri=uri)
        if runs.empty:
            continue
        runs = runs.drop_duplicates("job", keep="last")
        table = runs[[SEED, *NAMES, COMMIT]].copy()
        for name in runs.columns:
            if name.startswith(SETTING):
                table[name.removeprefix(SETTING)] = runs[name]
        for name in plain:
            table[name] = runs.get(METRIC + name, np.nan)
        for measure, metric in drawn:
            table[f"{measure}{OF}{metric}"] = runs["run_id"].map(_measured(study, uri, measure, metric))
        table.index = runs["job"]
        tables.append(table)
    if not tables:
        return pd.DataFrame()
    whole = pd.concat(tables)
    whole = whole[~whole.index.duplicated()].reset_index(drop=True)  # of one job the newest counts
    if open_runs := int((~whole["status"].isin(ENDED)).sum()):
        told = f"{open_runs} of {len(whole)} runs have not ended"
        raise ConfigError(f"{claim.name}: {told}; alphagrad claims --run {claim.name} goes on with them")
    used = {setting for part in claim.parts.values() for cell in (part.first, part.than) for setting in _names(cell)}
    kept = {
        SEED,
        claim.pairs,
        *NAMES,
        COMMIT,
        *claim.measures(),
        *used,
        *(setting for part in claim.parts.values() for setting in part.best),
    }
    return whole[[column for column in whole.columns if column in kept]]


def _measured(study: str, uri: str, measure: str, metric: str) -> dict[str, float]:
    """Run → what is measured of its curve."""
    if measure not in MEASURES:
        raise ConfigError(f"{measure}{OF}{metric}: no such measure; there are {', '.join(MEASURES)}")
    try:
        found = frame(study, curves=[metric], uri=uri)
    except ConfigError:  # no run has it
        return {}
    curves: dict[str, Curve] = {}
    for run, rows in found.groupby("run_id"):
        known = rows[rows[metric].notna()]
        curves[str(run)] = known["step"].to_numpy(), known[metric].to_numpy(float)
    return {run: MEASURES[measure](curve) for run, curve in curves.items() if len(curve[1])}


def _names(cell: object) -> Sequence[str]:
    return list(cell) if isinstance(cell, dict) else []


def files_of(folder: Path, name: str) -> tuple[Path, Path]:
    """The table of a claim's runs, and where it comes from."""
    return folder / f"{name}.csv.gz", folder / f"{name}.json"


def keep(folder: Path, claim: Claim, table: DataFrame, origin: Origin) -> None:
    """Writes a claim's evidence; each file whole or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    data, beside = files_of(folder, claim.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic(data) as unfinished:
            # without a name and a time within, equal tables are equal files
            table.to_csv(unfinished, index=False, compression={"method": "gzip", "mtime": 1})
        write_whole(beside, json.dumps(asdict(origin), indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise ConfigError(f"{data}: cannot be written ({error.strerror or error})") from error


def read(folder: Path, claim: Claim) -> tuple[DataFrame | None, Origin | None]:
    """A claim's evidence; None where there is none yet.

    Raises:
        ConfigError: a file is damaged.
    """
    import pandas as pd

    data, beside = files_of(folder, claim.name)
    if not data.exists():
        return None, None
    try:
        table = pd.read_csv(data, keep_default_na=False, na_values=[""])  # None is a value of a setting
        origin = Origin(**json.loads(beside.read_text(encoding="utf-8"))) if beside.exists() else None
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise ConfigError(f"{data}: is damaged ({error})") from error
    if claim.pairs not in table:
        raise ConfigError(f"{data}: has no column {claim.pairs}")
    return table, origin
