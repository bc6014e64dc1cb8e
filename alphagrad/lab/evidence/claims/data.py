"""A claim's evidence: a row for each run, gathered from a store, kept as a small file, and read back."""

from __future__ import annotations

import json
import shlex
import zlib
from collections.abc import Mapping, Set
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from alphagrad.common.errors import ConfigError
from alphagrad.common.files import atomic, text_of, write_whole
from alphagrad.common.words import squeezed
from alphagrad.lab.evidence.claims.ledger import SEED, Claim
from alphagrad.lab.evidence.frames import METRIC, SETTING, frame
from alphagrad.lab.evidence.results import Results
from alphagrad.lab.evidence.statistics.curves import MEASURES, OF, Curve

if TYPE_CHECKING:
    from pandas import DataFrame

NAMES = ("status", "reason")
ENDED = ("finished", "failed")
"""Runs that say something; others are to go on."""
COMMIT, STARTED, VERSION, STUDY = "commit", "started", "version.", "study"
"""Where a gathered run comes from; evidence has it of all runs together."""
PACKAGES = ("torch", "numpy", "gymnasium", "mujoco", "transformers", "alphagrad")
"""Whose versions evidence has, of those that its runs noted."""


@dataclass(frozen=True)
class Origin:
    """Where evidence comes from."""

    commands: tuple[str, ...]
    commit: str
    """Of the runs, separated by commas."""
    versions: dict[str, str]
    runs: Annotated[int, Field(ge=1)]
    measured: str
    """On which day, as 2026-11-26, or from which to which."""
    planned: Annotated[int, Field(ge=0)] = 0
    """The runs of all the commands; 0: as many as there are."""
    rows: Annotated[int, Field(ge=0)] = 0
    """Of the table, where one is not one run; 0: as many as there are runs."""

    @property
    def whole(self) -> bool:
        """Whether every run is made."""
        return self.runs >= self.planned


def gathered(
    claim: Claim, uri: str, experiment: str, studies: Mapping[str, Set[str]]
) -> tuple[DataFrame, dict[str, int], int]:
    """The runs of a claim's studies: the settings that vary among them, and the measures that its parts name.

    Also, how many jobs of each study were run, and how many other runs bear its name: their configuration is not what
    the claim asks for now. A job that several studies have is one row, its newest run.

    Args:
        claim: whose runs.
        uri: of the store.
        experiment: in which they are.
        studies: name → keys of its jobs. Others of the experiment are none of the claim's.

    Raises:
        ConfigError: the experiment is not there, or a run has not ended.
    """
    import pandas as pd

    results = Results(uri, experiment)
    plain = [name for name in claim.measures() if OF not in name]
    drawn = [name.split(OF, 1) for name in claim.measures() if OF in name]
    tables, others = [], 0
    for parent in results.studies():
        study, tags = parent.info.run_id, parent.data.tags
        if parent.info.run_name not in studies:
            continue
        runs = frame(study, uri=uri)
        if runs.empty:
            continue
        own = runs["job"].isin(studies[parent.info.run_name])
        others += int((~own).sum())
        runs = runs[own].drop_duplicates("job", keep="last")
        if runs.empty:
            continue
        table = runs[[SEED, *NAMES, COMMIT, STARTED]].copy()
        for name in PACKAGES:
            table[VERSION + name] = tags.get(VERSION + name, "")
        table[STUDY] = parent.info.run_name
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
        return pd.DataFrame(), {}, others
    whole = pd.concat(tables)
    made = {name: table.index.nunique() for name, table in whole.groupby(STUDY)}
    whole = whole[~whole.index.duplicated()].reset_index(drop=True)
    if open_runs := int((~whole["status"].isin(ENDED)).sum()):
        told = f"{open_runs} of {len(whole)} runs have not ended"
        raise ConfigError(f"{claim.name}: {told}; alphagrad claims --run {claim.name} goes on with them")
    asked = [*claim.measures(), *(setting for part in claim.parts.values() for setting in part.settings())]
    kept = {SEED, claim.pairs, *NAMES, COMMIT, STARTED, *(VERSION + name for name in PACKAGES), *asked}
    varied = {name for name in whole if whole[name].nunique() > 1 and "/" not in name and OF not in name} - {STUDY}
    return whole[[column for column in whole.columns if column in kept | varied]], made, others


def _measured(study: str, uri: str, measure: str, metric: str) -> dict[str, float]:
    """Run → what is measured of its curve."""
    try:
        found = frame(study, curves=[metric], uri=uri)
    except ConfigError:  # no run has it
        return {}
    curves: dict[str, Curve] = {}
    for run, rows in found.groupby("run_id"):
        known = rows[rows[metric].notna()]
        curves[str(run)] = known["step"].to_numpy(), known[metric].to_numpy(float)
    return {run: MEASURES[measure](curve) for run, curve in curves.items() if len(curve[1])}


def commands(claim: Claim) -> tuple[str, ...]:
    """What makes a claim's runs."""
    words = tuple(f"alphagrad run -m {shlex.join(study)}" for study in claim.studies)
    return (*words, claim.script) if claim.script else words


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


def read(folder: Path, claim: Claim, older: bool = False) -> tuple[DataFrame | None, Origin | None]:
    """A claim's evidence; None where there is none yet.

    Args:
        folder: where it is kept.
        claim: whose.
        older: whether that of other commands than the claim has now is read, too.

    Raises:
        ConfigError: a file is damaged, or not of the runs that the claim has now.
    """
    data, beside = files_of(folder, claim.name)
    if not data.exists() and not beside.exists():
        return None, None
    table, origin = _table(data, claim), _origin(beside)
    if (told := origin.rows or origin.runs) != len(table):
        raise ConfigError(f"{data}: has {len(table)} rows, and {beside.name} says {told}; one is damaged")
    if origin.commands != commands(claim) and not older:
        raise ConfigError(f"{beside}: its commands are not those of conf/claim/{claim.name}.yaml; make its runs anew")
    return table, origin


def as_kept(table: DataFrame) -> DataFrame:
    """A table as it is read back once it is kept: a store has settings as text, a file of them has numbers."""
    return _parsed(StringIO(table.to_csv(index=False)))


def _parsed(source: Path | StringIO) -> DataFrame:
    import pandas as pd

    return pd.read_csv(source, keep_default_na=False, na_values=[""])  # None is a value of a setting


def _table(file: Path, claim: Claim) -> DataFrame:
    import pandas as pd

    try:
        if file.exists() and not file.is_file():  # to read a pipe would wait for ever
            raise ConfigError(f"{file}: is no regular file")
        table = _parsed(file)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise ConfigError(f"{file}: is damaged ({squeezed(error, 200)})") from error
    if claim.pairs not in table:
        raise ConfigError(f"{file}: has no column {claim.pairs}")
    if claim.studies and not ("status" in table and table["status"].isin(ENDED).all()):
        raise ConfigError(f"{file}: is damaged, the status of a run has to be {' or '.join(ENDED)}")
    if not isinstance(table.index, pd.RangeIndex):
        raise ConfigError(f"{file}: is damaged, its rows are longer than its heading")
    for column in (claim.pairs, *claim.measures()):
        if column in table and not pd.api.types.is_numeric_dtype(table[column]):
            raise ConfigError(f"{file}: is damaged, not all of {column} are numbers")
    if not ((table[claim.pairs] >= 0) & (table[claim.pairs] % 1 == 0)).all():
        raise ConfigError(f"{file}: is damaged, not all of {claim.pairs} are whole numbers ≥ 0")
    settings = [column for column in table if column not in (*claim.measures(), *NAMES)]
    if twice := int(table.duplicated(settings).sum()):
        raise ConfigError(f"{file}: is damaged, it has {twice} of {len(table)} runs twice")
    return table


def _origin(file: Path) -> Origin:
    try:
        return TypeAdapter(Origin).validate_json(text_of(file))
    except (FileNotFoundError, ValidationError) as error:
        raise ConfigError(f"{file}: is damaged or missing ({squeezed(error, 200)})") from error
