"""Where an experiment's files go, and whether they can go there."""

from __future__ import annotations

import logging
import os
import socket
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from alphagrad.common.errors import ConfigError
from alphagrad.common.words import cut
from alphagrad.lab.store.address import is_server, masked, sqlite_file

LOG = logging.getLogger("alphagrad")
ANSWER_SECONDS = 5.0
PACKAGES = {
    "s3": "boto3",
    "r2": "boto3",
    "b2": "boto3",
    "gs": "google.cloud.storage",
    "wasbs": "azure.storage.blob",
    "abfss": "azure.storage.filedatalake",
    "hdfs": "pyarrow",
    "viewfs": "pyarrow",
    "sftp": "pysftp",
}
"""Kind of address → what MLflow writes there with."""
PORTS = {"ftp": 21, "sftp": 22, "http": 80, "https": 443}
"""Kinds of address behind which a server answers."""
SERVED = "mlflow-artifacts"
"""The kind that an MLflow server takes, and no other store."""


def artifact_root(artifacts: str | None, uri: str, output_root: str | Path) -> str | None:
    """Where files of new experiments go: ``artifacts``, a folder or an address such as s3://bucket/path.

    Without it, beside a SQLite store and in ``output_root`` for another database; a server decides for itself.
    """
    file = sqlite_file(uri)
    if artifacts is not None:
        return artifacts if _scheme(artifacts) else Path(artifacts).expanduser().resolve().as_uri()
    if is_server(uri):
        return None
    return ((file.parent if file else Path(output_root).expanduser().resolve()) / "artifacts").as_uri()


def artifact_folder(artifacts: str | None) -> Path | None:
    """The folder of this machine that ``artifacts`` names; None if it names none."""
    if artifacts is None or _scheme(artifacts) not in ("", "file"):
        return None
    return Path(unquote(urlsplit(artifacts).path) if _scheme(artifacts) else artifacts).expanduser()


def check_artifacts(artifacts: str | None, uri: str) -> None:
    """Raises :class:`ConfigError` for a place that files cannot go to; writes nothing.

    Args:
        artifacts: the place; None is the default one.
        uri: the store whose files they are.
    """
    if artifacts is None:
        return
    shown = f"tracking.artifacts={cut(masked(artifacts))}"
    folder = artifact_folder(artifacts)
    if folder is not None:
        above = next((part for part in (folder, *folder.parents) if _is_there(part)), Path("/"))
        if not above.is_dir():
            raise ConfigError(f"{shown}: {above} is no folder; give a folder that can be created and written to")
        if not os.access(above, os.W_OK | os.X_OK):
            raise ConfigError(f"{shown}: {above} cannot be written to; give a folder that can")
        return
    scheme = _scheme(artifacts)
    allowed = ("file", *PACKAGES, *PORTS, *([SERVED] if is_server(uri) else []))
    if scheme not in allowed:
        told = "is for stores behind an MLflow server" if scheme == SERVED else "MLflow cannot write to such an address"
        kinds = ", ".join(f"{kind}://" for kind in dict.fromkeys(allowed))
        raise ConfigError(f"{shown}: {told}; give a folder, or one of {kinds}")
    if set("?#") & set(artifacts):
        raise ConfigError(f"{shown}: an address of files cannot hold ? or #; give another")
    package = PACKAGES.get(scheme)
    if package is not None and not _is_installed(package):
        raise ConfigError(f"{shown}: MLflow needs the module {package} to write there; install it, or give a folder")
    if scheme in PORTS:
        try:
            place = urlsplit(artifacts)
            socket.create_connection((place.hostname or "", place.port or PORTS[scheme]), ANSWER_SECONDS).close()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{shown}: no server answers there ({error}); give another, or a folder") from error


def _scheme(artifacts: str) -> str:
    """What stands before ``://``; empty for a folder."""
    return artifacts.partition("://")[0].lower() if "://" in artifacts else ""


def _is_there(path: Path) -> bool:
    """Whether something has this name; what passes through a file, or is too long for one, has nothing."""
    try:
        return os.path.lexists(path)
    except ValueError:
        return False


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:  # nor is the package that holds it
        return False


def tell_other_place(client: Any, experiment: str, asked: str) -> None:
    """Says it where an experiment that is there keeps its files elsewhere than ``asked``."""
    found = str(client.get_experiment(experiment).artifact_location).rstrip("/")
    if found.rpartition("/")[0] != asked.rstrip("/"):
        _tell(found, asked)


@cache
def _tell(found: str, asked: str) -> None:
    """Once in a process, which may have many runs."""
    LOG.warning(
        "tracking.artifacts=%s is for new experiments; this one keeps its files in %s", masked(asked), masked(found)
    )
