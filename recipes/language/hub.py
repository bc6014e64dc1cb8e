"""Data sets and models of the Hugging Face hub: what is on this machine first, the network only where allowed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

TIMEOUT = 5.0
"""Seconds that the hub has to answer before it counts as not reachable."""


@contextmanager
def offline() -> Iterator[None]:
    """The hub's libraries as under ``HF_HUB_OFFLINE=1``: they look at this machine alone, without retries."""
    import datasets
    from huggingface_hub import constants

    places: list[tuple[Any, str]] = [(datasets.config, "HF_HUB_OFFLINE"), (constants, "HF_HUB_OFFLINE")]
    before = [getattr(module, name) for module, name in places]
    bars = datasets.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        for module, name in places:
            setattr(module, name, True)
        yield
    finally:
        for (module, name), value in zip(places, before, strict=True):
            setattr(module, name, value)
        if bars:
            datasets.enable_progress_bars()


class Mismatch(Exception):
    """What was loaded is not what it should be; says in what."""


def load_split(repo: str, config: str | None, split: str, download: bool) -> Any:
    """A split of a hub data set as ``datasets.Dataset``.

    Raises:
        ValueError: it is neither on this machine nor to be had.
    """
    import datasets

    def load() -> Any:
        return datasets.load_dataset(repo, config, split=split)

    return _had(f"data.repo={repo}", repo, "dataset", download, load)


def pretrained(path: str, download: bool, load: Callable[[str], Any]) -> Any:
    """What ``load`` makes of a local folder or of a model of the hub.

    Raises:
        ValueError: it is neither on this machine nor to be had, or ``load`` cannot read it.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        if folder.is_absolute() or path.startswith("."):
            raise ValueError(f"model.path={path}: no such folder")
        return _had(f"model.path={path}", path, "model", download, lambda: load(path))
    _check_no_code(path, folder)
    try:
        return load(str(folder))
    except Mismatch as error:
        raise ValueError(f"model.path={path}: {error}") from error
    except Exception as error:  # whatever a library raises on a damaged folder
        raise ValueError(f"model.path={path}: cannot be loaded ({_told(error)})") from error


def _check_no_code(path: str, folder: Path) -> None:
    """Raises ``ValueError`` for a model that brings code of its own, which is never run."""
    for name in ("config.json", "tokenizer_config.json"):
        try:
            held = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue  # loading it says what is wrong with it
        if isinstance(held, dict) and held.get("auto_map"):
            raise ValueError(f"model.path={path}: {name} names code of its own (auto_map), which is not run")


def _had(setting: str, repo: str, kind: Literal["dataset", "model"], download: bool, load: Callable[[], Any]) -> Any:
    """``load()`` from this machine, else from the hub."""
    try:
        with offline():
            return load()
    except Mismatch as error:
        raise ValueError(f"{setting}: {error}") from error
    except Exception as absent:  # the libraries raise many things for what is not there
        why = _unreachable(repo, kind)
        if not download or why is not None:
            missing = f"{why if download else 'download=false'}; {_told(absent)}"
            raise ValueError(
                f"{setting}: is not on this machine and was not fetched from the hub ({missing})"
            ) from absent
    print(f"alphagrad: {kind} {repo} is not on this machine: downloading it from the Hugging Face hub", file=sys.stderr)
    try:
        return load()
    except Mismatch as error:
        raise ValueError(f"{setting}: {error}") from error
    except Exception as error:
        raise ValueError(f"{setting}: cannot be loaded ({_told(error)})") from error


def _unreachable(repo: str, kind: Literal["dataset", "model"]) -> str | None:
    """Why the hub does not give a repository, asked once; None if it does."""
    from huggingface_hub import HfApi

    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set"
    try:
        HfApi().repo_info(repo, repo_type=kind, timeout=TIMEOUT)
    except Exception as error:
        return f"no answer from the hub: {_told(error)}"
    return None


def _told(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return "it brings code of its own, which is not run" if "trust_remote_code" in text else text[:200]
