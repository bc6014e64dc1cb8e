"""A run, the stack it belongs to, or a study, gone on with."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from alphagrad.common import ranks
from alphagrad.common.errors import ConfigError, Terminated
from alphagrad.common.files import is_folder, text_of
from alphagrad.common.own import VARIABLE, user_conf
from alphagrad.common.words import cut, is_plain, say, squeezed
from alphagrad.lab.config.build import build
from alphagrad.lab.launching.apart import run_apart
from alphagrad.lab.records.folder import CONFIG, STATES, Member, folders_of, run_id_of, stack_of, tidy
from alphagrad.lab.records.lifecycle import Life, life_of
from alphagrad.lab.records.search import FOLDER, find_run, recorded
from alphagrad.lab.records.study import ARGUMENTS
from alphagrad.lab.store.address import NONE, kept_uri, masked, sqlite_file, store_uri
from alphagrad.lab.store.connection import check_store, open_existing, open_store
from alphagrad.lab.training.begun import naming, plain_config
from alphagrad.lab.training.job import Assignment
from alphagrad.lab.training.log import CHECKPOINT
from alphagrad.lab.training.logfiles import warn_on_stderr
from alphagrad.lab.training.torchrun import Leader, lead


def resume(
    what: str,
    uri: str | None,
    output_root: str,
    launch: Callable[[Sequence[str], Path], None],
    new_store: bool = False,
) -> None:
    """Goes on with what a folder or run id names.

    Args:
        what: a run's or study's folder, or its run id or the beginning of it.
        uri: the store to look a run id up in, or the new one; None for the default.
        output_root: the folder of the default store.
        launch: starts ``alphagrad run`` with arguments, for a study's folder.
        new_store: goes on with a run whose store is lost in another, at ``uri`` or where the lost one was.

    Raises:
        ConfigError: there is nothing to go on with, or another process is at it.
    """

    if new_store and not is_folder(what):
        raise ConfigError(f"{what}: is no folder; with --new-store the run's folder is what is left of it")
    if uri is not None:
        kept_uri(uri, output_root)  # its password, if it has one, is known from now on

    def go_on(leader: Leader) -> None:
        folder = Path(what) if is_folder(what) else folder_named(what, store_uri(uri, output_root))
        _resume(folder.expanduser().resolve(), launch, leader, uri, new_store)

    lead(go_on)


def _resume(
    folder: Path,
    launch: Callable[[Sequence[str], Path], None],
    leader: Leader,
    uri: str | None = None,
    new_store: bool = False,
) -> None:
    if (folder / ARGUMENTS).exists():
        ranks.alone("alphagrad resume of a study")
        if new_store:
            raise ConfigError(f"{folder}: is a study's; --new-store goes on with single runs, whose folders are in it")
        _check_study(folder)
        arguments, cwd = _noted(folder / ARGUMENTS)
        if not cwd.is_dir():
            raise ConfigError(f"{folder}: the study was started in {cwd}, which is not there; start it again")
        own = user_conf()
        if own is not None:  # the user's, and not a folder of that name where the study was started
            os.environ[VARIABLE] = str(own)
        os.chdir(cwd)
        launch(arguments, folder)
    elif (folder / CONFIG).exists():
        _resume_stack(folder, leader, uri, new_store)
    else:
        raise ConfigError(f"{folder}: is not the folder of a run or study, it has no {CONFIG} or {ARGUMENTS}")


def _check_study(folder: Path) -> None:
    """:class:`ConfigError` if the store that a study's runs are in does not know the study: it was lost."""

    run_id, begun = run_id_of(folder), next(folder.rglob(CONFIG), None)
    if run_id is None or begun is None:
        return
    config = plain_config(begun.parent)
    uri = store_uri(config["tracking"]["uri"], config["output_root"])
    if uri != NONE and recorded(_client(uri, begun.parent), run_id, warn=False) is None:
        raise ConfigError(
            f"{folder}: its study {run_id} is not in the store {masked(uri)}; put the store back, or go on with its "
            f"runs one by one, `alphagrad resume {begun.parent} --new-store`"
        )


def _noted(file: Path) -> tuple[list[str], Path]:
    """What a study was started with, and where."""
    try:
        noted = json.loads(text_of(file))
        arguments, cwd = noted["arguments"], noted["cwd"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ConfigError(
            f"{file}: is damaged ({type(error).__name__}: {squeezed(error, 200)}); start the study again"
        ) from error
    listed = isinstance(arguments, list) and all(isinstance(word, str) for word in arguments)
    if not listed or not isinstance(cwd, str) or not cwd or not is_plain(cwd):
        raise ConfigError(f"{file}: is damaged, it must hold a list of words and a folder; start the study again")
    return arguments, Path(cwd)


def told(stop: KeyboardInterrupt | Terminated, folder: Path) -> KeyboardInterrupt | Terminated:
    """What to raise of a run or study that was interrupted, once a line says what goes on with it.

    Nothing is said of one that had not begun: there is nothing to go on with.
    """
    if not any((folder / name).exists() for name in (CONFIG, ARGUMENTS)):
        return stop
    states = sorted(stack_of(folder)[0].glob(STATES))
    at = f" at step {int(states[-1].stem.rpartition('-')[2]):,}" if states else ""
    say(f"alphagrad: stopped{at}; `alphagrad resume {folder}` goes on", err=True)
    return KeyboardInterrupt("told") if isinstance(stop, KeyboardInterrupt) else stop


def folder_named(what: str, uri: str) -> Path:
    """The folder that a path names, or a run id (or its beginning) in the store ``uri``."""
    folder = Path(what) if is_folder(what) else _folder_of(what, uri)
    return folder.expanduser().resolve()


def _folder_of(run_id: str, uri: str) -> Path:
    if not re.fullmatch(r"[0-9a-zA-Z_-]{1,64}", run_id):
        raise ConfigError(f"{cut(run_id)}: is neither a folder nor a run id")
    run = find_run(open_existing(uri), run_id)
    if FOLDER not in run.data.tags:
        raise ConfigError(f"{run_id}: the store does not say where it was written")
    folder = Path(run.data.tags[FOLDER])
    if not folder.is_dir():
        raise ConfigError(f"{run_id}: its folder {folder} is not on this machine")
    if run_id_of(folder) not in (None, run.info.run_id):
        raise ConfigError(f"{run_id}: its folder {folder} now belongs to run {run_id_of(folder)}, which took its place")
    return folder


def _resume_stack(folder: Path, leader: Leader, new_uri: str | None, new_store: bool) -> None:
    """Trains a run, and with it the others of its stack, from the last state; says so where nothing is left to do.

    Raises:
        ConfigError: the store and the folder do not allow it.
        RuntimeError: some of the runs failed.
    """
    home, members = stack_of(folder)
    config = plain_config(folder)
    uri = store_uri(new_uri if new_store and new_uri else config["tracking"]["uri"], config["output_root"])
    if (uri == NONE or new_store) and _is_finished(folder, home, new_store):
        print(f"{folder}: is finished, nothing is left to do")
        return
    if new_store:
        _check_new(uri, folder)
    elif uri != NONE and (run_id := run_id_of(folder)) is not None:
        client = _client(uri, folder)
        runs = [recorded(client, member.run_id, warn=False) for member in members]
        if runs and all(r and life_of(r).over for r in runs):
            tidy({*folders_of(home, members)})  # its process was killed at its very end: it holds nobody any more
            home, members = folder, []
        life = _life(client, uri, folder, run_id)
        if life.finished or life.pruned:
            say(f"{folder}: is finished, nothing is left to do" if life.finished else f"{folder}: was {life.reason}")
            return
    assignments = _assignments(folder, home, members, masked(uri) if new_store else None)
    warn_on_stderr()
    try:
        outcomes = run_apart(assignments, leader=leader)
    except (KeyboardInterrupt, Terminated) as stop:
        raise told(stop, folder) from None
    for assignment, outcome in zip(assignments, outcomes, strict=True):
        say(f"{assignment.folder}: {outcome.told}")
    failed = sum(outcome.failure is not None for outcome in outcomes)
    if failed:
        raise RuntimeError(f"{failed} of {len(outcomes)} runs of the stack failed")


def _is_finished(folder: Path, home: Path, new_store: bool) -> bool:
    """Whether a run ended, by its folder and its stack's alone, where no store is to be asked.

    Raises:
        ConfigError: a new store is given to a run that neither ended nor has a state.
    """
    if any(home.glob(STATES)):
        return False
    if (folder / CHECKPOINT).exists():
        return True
    if new_store:
        raise ConfigError(f"{folder}: holds no state to go on from; start the run anew")
    return False


def _check_new(uri: str, folder: Path) -> None:
    """:class:`ConfigError` where a store cannot be the new one of a run, or has the run already."""
    check_store(uri)
    if uri == NONE or _is_known(uri, run_id_of(folder)):
        raise ConfigError(f"{folder}: tracking.uri={masked(uri)} needs no --new-store; resume it without")


def _life(client: Any, uri: str, folder: Path, run_id: str) -> Life:
    """How the run of a folder stands; :class:`ConfigError` where the store does not have it."""
    run = recorded(client, run_id, warn=False)
    if run is None:
        raise ConfigError(
            f"{folder}: its run {run_id} is not in the store {masked(uri)}; put the store back, or go on in a "
            f"new one with `alphagrad resume {folder} --new-store`"
        )
    return life_of(run)


def _assignments(folder: Path, home: Path, members: Sequence[Member], new_uri: str | None) -> list[Assignment]:
    """What is to be trained: a stack's runs or, without members, the folder's; each is built once on trial."""
    folders = folders_of(home, members) or [folder]
    configs = [plain_config(place) for place in folders]
    titles = [member.title for member in members] or [str(configs[0]["optimizer"]["name"])]
    for place, own in zip(folders, configs, strict=True):
        if new_uri is not None:
            own["tracking"]["uri"] = new_uri
        with naming(place):
            build(OmegaConf.create(own))
    known = zip(configs, titles, folders, strict=True)
    return [Assignment(own, title, str(place), True, new_uri is not None) for own, title, place in known]


def _client(uri: str, folder: Path) -> Any:
    """That of the store of a run's folder."""
    try:
        return open_existing(uri)
    except ConfigError as error:
        if "no such store" not in str(error):
            raise
        raise ConfigError(
            f"{folder}: its store {masked(uri)} is not there; put it back, or go on in a new one with "
            f"`alphagrad resume {folder} --new-store`"
        ) from error


def _is_known(uri: str, run_id: str | None) -> bool:
    """Whether a store, which need not be there, has the run."""
    file = sqlite_file(uri)
    if run_id is None or (file is not None and not (file.exists() and file.stat().st_size)):
        return False
    return recorded(open_store(uri), run_id, warn=False) is not None
