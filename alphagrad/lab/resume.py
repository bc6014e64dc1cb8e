"""`alphagrad resume`: goes on with a run, the stack it belongs to, or a study."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from alphagrad.lab import processes
from alphagrad.lab.address import store_uri
from alphagrad.lab.errors import ConfigError
from alphagrad.lab.folder import CONFIG, folders_of, run_id_of, stack_of, tidy
from alphagrad.lab.records import FOLDER, PRUNED, REASON, is_over, recorded
from alphagrad.lab.store import open_existing
from alphagrad.lab.study import ARGUMENTS, find_run


def resume(what: str, uri: str | None, output_root: str, launch: Callable[[Sequence[str], Path], None]) -> None:
    """Goes on with what a folder or run id names.

    Args:
        what: a run's or study's folder, or its run id or the beginning of it.
        uri: the store to look a run id up in; None for the default.
        output_root: the folder of the default store.
        launch: starts ``alphagrad run`` with arguments, for a study's folder.

    Raises:
        ConfigError: there is nothing to go on with, or another process is at it.
    """
    from alphagrad.lab.following import lead

    lead(lambda: _resume(folder_named(what, store_uri(uri, output_root)), launch))


def _resume(folder: Path, launch: Callable[[Sequence[str], Path], None]) -> None:
    if (folder / ARGUMENTS).exists():
        processes.alone("alphagrad resume of a study")
        noted = json.loads((folder / ARGUMENTS).read_text())
        if not Path(noted["cwd"]).is_dir():
            raise ConfigError(f"{folder}: the study was started in {noted['cwd']}, which is not there; start it again")
        os.chdir(noted["cwd"])
        launch(noted["arguments"], folder)
    elif (folder / CONFIG).exists():
        _resume_stack(folder)
    else:
        raise ConfigError(f"{folder}: is not the folder of a run or study")


def folder_named(what: str, uri: str) -> Path:
    """The folder that a path names, or a run id (or its beginning) in the store ``uri``."""
    folder = Path(what) if Path(what).is_dir() else _folder_of(what, uri)
    return folder.expanduser().resolve()


def _folder_of(run_id: str, uri: str) -> Path:
    run = find_run(open_existing(uri), run_id)
    if FOLDER not in run.data.tags:
        raise ConfigError(f"{run_id}: the store does not say where it was written")
    folder = Path(run.data.tags[FOLDER])
    if not folder.is_dir():
        raise ConfigError(f"{run_id}: its folder {folder} is not on this machine")
    if run_id_of(folder) not in (None, run.info.run_id):
        raise ConfigError(f"{run_id}: its folder {folder} now belongs to run {run_id_of(folder)}, which took its place")
    return folder


def _resume_stack(folder: Path) -> None:
    from alphagrad.lab import metrics
    from alphagrad.lab.apart import run_apart
    from alphagrad.lab.interrupted import plain_config
    from alphagrad.lab.logfiles import warn_on_stderr
    from alphagrad.lab.runner import Assignment

    home, members = stack_of(folder)
    config = plain_config(folder)
    run_id = run_id_of(folder)
    if run_id is not None:
        uri = store_uri(config["tracking"]["uri"], config["output_root"])
        client = open_existing(uri)
        runs = [recorded(client, member.run_id) for member in members]
        if runs and all(r and is_over(r.info.status, r.data.tags.get(REASON, "")) for r in runs):
            tidy({*folders_of(home, members)})  # its process was killed at its very end: it holds nobody any more
            home, members = folder, []
        run = recorded(client, run_id)
        if run is None:
            raise ConfigError(
                f"{folder}: its run {run_id} is not in the store {uri}; put the store back, or start the run anew"
            )
        reason = run.data.tags.get(REASON, "")
        if run.info.status == "FINISHED" or reason.startswith(PRUNED):
            print(f"{folder}: is finished, nothing is left to do" if not reason else f"{folder}: was {reason}")
            return
    folders = folders_of(home, members) or [folder]
    titles = [member.title for member in members] or [str(config["optimizer"]["name"])]
    assignments = [Assignment(plain_config(f), t, str(f), True) for f, t in zip(folders, titles, strict=True)]
    warn_on_stderr()
    outcomes = run_apart(assignments)
    for own, outcome in zip(folders, outcomes, strict=True):
        told = f"failed, {outcome.failure}" if outcome.failure else metrics.headline(outcome.metrics)
        print(f"{own}: {told}")
    failed = sum(outcome.failure is not None for outcome in outcomes)
    if failed:
        raise RuntimeError(f"{failed} of {len(outcomes)} runs of the stack failed")
