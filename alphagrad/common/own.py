"""The user's own folder, $ALPHAGRAD_CONF: configuration of the same groups, and beside it the modules that it names."""

from __future__ import annotations

import importlib
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from alphagrad.common.errors import ConfigError
from alphagrad.common.files import is_folder
from alphagrad.common.words import cut

VARIABLE = "ALPHAGRAD_CONF"


def user_conf() -> Path | None:
    """The folder $ALPHAGRAD_CONF, if set; :class:`ConfigError` if it is not a folder."""
    value = os.environ.get(VARIABLE)
    if not value:
        return None
    folder = Path(value).expanduser().resolve()
    if not is_folder(folder):
        raise ConfigError(f"{VARIABLE}={cut(value)}: no such folder")
    return folder


def importable(folder: str | os.PathLike[str] | None) -> None:
    """Lets Python find the modules in a folder, here and in the processes of this machine that are started.

    What is installed comes first: a file of the user's cannot take the place of a module that others import.
    """
    if folder and str(folder) not in sys.path:
        sys.path.append(str(folder))
        importlib.invalidate_caches()


def own_modules() -> set[str]:
    """The modules and packages that lie in the user's folder, and that Python finds there."""
    return {name for name, place in _files().items() if not _elsewhere(name, place)}


def hidden(name: str) -> str:
    """What Python finds by the name of a module of the user's, if that is another; else nothing."""
    place = _files().get(name)
    return _elsewhere(name, place) if place is not None else ""


def _elsewhere(name: str, mine: Path) -> str:
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):  # what is loaded by that name does not say where it is from
        return "another module"
    if spec is None:
        return "nothing"
    found = [spec.origin] if spec.has_location and spec.origin else [*(spec.submodule_search_locations or ())]
    here = any(Path(place).resolve().is_relative_to(mine) for place in found)
    return "" if here else (found[0] if found else "the interpreter's own")


def _files() -> dict[str, Path]:
    """Name → file or folder of what can be imported from the user's folder."""
    folder = user_conf()
    if folder is None:
        return {}
    found = {file.stem: file for file in folder.glob("*.py")}
    found |= {place.name: place for place in folder.iterdir() if place.is_dir() and any(place.glob("*.py"))}
    return {name: place.resolve() for name, place in found.items() if name.isidentifier()}
