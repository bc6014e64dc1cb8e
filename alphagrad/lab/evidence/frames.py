"""A study as tidy tables: a row for each run, or for each step of each run; pandas frames and files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alphagrad.common.errors import ConfigError
from alphagrad.common.files import atomic, check_target
from alphagrad.common.words import listed
from alphagrad.lab.evidence.results import Results
from alphagrad.lab.records.lifecycle import life_of, seconds_of
from alphagrad.lab.records.search import CELL, CONFIGURATION, FOLDER, JOB_KEY, PARENT, RECIPE, SEED, VARIANT
from alphagrad.lab.records.study import KIND
from alphagrad.lab.store.address import store_uri
from alphagrad.lab.store.curves import as_logged
from alphagrad.lab.store.curves import curves as read

if TYPE_CHECKING:
    from pandas import DataFrame

SETTING, METRIC = "params.", "metrics."
"""Before the names of columns, as ``mlflow.search_runs`` has it."""
WRITERS = {".csv": "to_csv", ".parquet": "to_parquet"}


def frame(
    study: str | None = None,
    *,
    curves: bool | Sequence[str] = False,
    uri: str | None = None,
    output_root: str | Path = "outputs",
    experiment: str | None = None,
) -> DataFrame:
    """The runs of a study as a pandas frame.

    Args:
        study: the id of a study or run, or its beginning; None for the newest study, or all runs where there is none.
        curves: False: a row for each run, with its settings and the last value of each metric. True, or the names of
            metrics: a row for each run and step at which one of them was measured, NaN for the others.
        uri: the store; None for ``$MLFLOW_TRACKING_URI``, else the file in ``output_root``.
        output_root: of the runs.
        experiment: where the study is looked for; None: everywhere.

    Raises:
        ConfigError: there is no such store, study or metric.
    """
    results = Results(store_uri(uri, output_root), experiment)
    asked = results.named(study)
    single = asked is not None and KIND not in asked.data.tags
    runs = [asked] if single else [run for run in results.runs(asked)[::-1] if SEED in run.data.tags]
    return _of_steps(results, runs, curves) if curves else _of_runs(runs)


def _of_runs(runs: Sequence[Any]) -> DataFrame:
    import pandas as pd

    rows = []
    for run in runs:
        info, data, life = run.info, run.data, life_of(run)
        row = _names(run) | {
            "status": life.status.lower(),
            "reason": life.reason,
            "started": pd.Timestamp(info.start_time, unit="ms", tz="UTC"),
            "seconds": seconds_of(run),
            "folder": data.tags.get(FOLDER, ""),
            "commit": data.tags.get("mlflow.source.git.commit", ""),
            "job": data.tags.get(JOB_KEY, info.run_id),
        }
        row |= {SETTING + name: value for name, value in sorted(data.params.items())}
        row |= {METRIC + name: as_logged(value) for name, value in sorted(data.metrics.items())}
        rows.append(row)
    return pd.DataFrame(rows)


def _of_steps(results: Results, runs: Sequence[Any], curves: bool | Sequence[str]) -> DataFrame:
    import pandas as pd

    known = sorted({name for run in runs for name in run.data.metrics})
    names = known if curves is True else list(curves or ())
    for name in names:
        if name not in known:
            raise ConfigError(f"--curves={name}: no run has this metric; there are {listed(known)}")
    found = read(results.client, [run.info.run_id for run in runs], names)
    parts = []
    for run in runs:
        own = {name: found[run.info.run_id, name] for name in names if (run.info.run_id, name) in found}
        series = [pd.Series(values, steps, name=name) for name, (steps, values) in own.items()]
        if series:
            newest = [one[~one.index.duplicated("last")] for one in series]
            steps = pd.concat(newest, axis=1, sort=True).rename_axis("step").reset_index()
            parts.append(steps.assign(**_names(run))[[*_names(run), "step", *own]])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _names(run: Any) -> dict[str, Any]:
    """What tells a run from others."""
    tags = run.data.tags
    told = {tag: tags.get(tag, "") for tag in (RECIPE, VARIANT, CELL, CONFIGURATION)}
    return {"study": tags.get(PARENT, ""), "run_id": run.info.run_id} | told | {SEED: int(tags.get(SEED, -1))}


def checked(file: Path) -> Path:
    """The file, if a frame can be written to it; :class:`ConfigError` otherwise."""
    if file.suffix not in WRITERS:
        raise ConfigError(f"--to={file}: has to end with one of {listed(WRITERS)}")
    check_target("--to", file)
    return file


def write(table: DataFrame, file: Path) -> None:
    """Writes a frame whole or not at all, as its file's name says: ``.parquet`` or ``.csv``.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        with atomic(checked(file)) as unfinished:
            getattr(table, WRITERS[file.suffix])(unfinished, index=False)
    except OSError as error:
        raise ConfigError(f"--to={file}: cannot be written ({error.strerror or error})") from error
