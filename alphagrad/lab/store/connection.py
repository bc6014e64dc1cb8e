"""The MLflow store in use: where it is, whether it answers, and a client for it."""

from __future__ import annotations

import logging
import os
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from filelock import FileLock, Timeout

from alphagrad.common.errors import ConfigError, StorageLost
from alphagrad.common.files import check_lock
from alphagrad.lab.store.address import NONE, hide, is_server, masked, sqlite_file, store_uri
from alphagrad.lab.store.artifacts import artifact_folder, check_artifacts
from alphagrad.lab.store.patience import Patience, PatientClient

# Before anything imports mlflow: its telemetry goes out on import.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
# A server that does not answer is retried by our writer, which training does not wait for; MLflow's own
# retries would hold a run for many minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # of a list of jobs, in one blink

ANSWER_SECONDS = 5.0
READ_SECONDS = 20.0
"""How long a store that is only looked at is tried."""
TABLES = {"experiments", "runs", "metrics"}
"""Some of MLflow's."""
# any number that other users of the database do not lock: "alpha" in hexadecimal
ADVISORY_KEY = 0x616C706861
# so that the UI shows training runs instead of traces of language models
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}


def check_address(uri: str) -> None:
    """Raises :class:`ConfigError` for an address that can be no store, or a file that is another's; touches nothing.

    Of SQLite only an absent path, an empty file and a database of MLflow's are ever written.
    """
    file = sqlite_file(uri)
    from sqlalchemy.engine import make_url

    shown = f"tracking.uri={masked(uri)}"
    if file is None:
        if not is_server(uri) and urlsplit(uri).scheme.partition("+")[0] not in ("postgresql", "mysql", "mssql"):
            raise ConfigError(
                f"{shown}: must be an http(s):// MLflow server, a sqlite:///, postgresql:// or mysql:// database, or "
                f"{NONE} for no tracking"
            )
        return
    if "?" in uri or not uri.isprintable():
        raise ConfigError(f"{shown}: an SQLite file's path cannot hold a ?, or what is not printed; give another")
    if "%" in uri and make_url(uri).database != str(file):
        raise ConfigError(f"{shown}: an SQLite file's path cannot hold a % before two digits; give another")
    if file.name in ("", ":memory:") or not file.is_absolute():
        raise ConfigError(f"{shown}: names no file; give sqlite:///FILE, or {NONE} for no tracking")
    try:
        if not file.exists() and not file.is_symlink():
            return
        regular = file.is_file()
        if regular and file.stat().st_size == 0:
            return
        if not regular:
            raise ConfigError(f"{shown}: {file} is no regular file; give another, or {NONE} for no tracking")
    except OSError as error:
        raise ConfigError(f"{shown}: cannot be read ({error.strerror})") from error
    # never opened otherwise: closing a file drops the locks that the process, SQLite included, has on it
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=0.1)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.OperationalError:
        return  # locked, say: it is waited for when it is used
    except sqlite3.DatabaseError as error:
        told = f"{file} is not an SQLite database ({error})"
        raise ConfigError(f"{shown}: {told}; give another file, or {NONE} for no tracking") from error
    if tables and not tables >= TABLES:
        raise ConfigError(f"{shown}: {file} is a database of another program; give another file")


def check_store(uri: str) -> None:
    """Raises :class:`ConfigError` unless the store can be used; fast, where MLflow would retry for minutes."""
    if uri == NONE:
        return
    check_address(uri)
    file = sqlite_file(uri)
    if file is not None:
        check_writable("tracking.uri", uri, file.parent)
    elif not is_server(uri):
        check_database(uri)
    else:
        health = f"{uri.rstrip('/')}/health"
        try:
            with urllib.request.urlopen(health, timeout=ANSWER_SECONDS) as answer:  # noqa: S310
                if answer.status == 200:
                    return
                reason = f"answered {answer.status}"
        except (urllib.error.URLError, OSError, ValueError) as error:
            reason = str(getattr(error, "reason", error))
        raise ConfigError(
            f"tracking.uri={masked(uri)}: no MLflow server answers there ({hide(reason)}); start one with "
            "`alphagrad ui`, or leave tracking.uri out to use a local file"
        )


def check_places(uri: str | None, output_root: str, artifacts: str | None = None) -> None:
    """Raises :class:`ConfigError` unless a run can write to its store, its files' place and ``output_root``.

    Folders are created then.
    """
    store = store_uri(uri, output_root)
    if store != NONE:
        check_address(store)
        check_artifacts(artifacts, store)
    local = sqlite_file(store) is not None
    if not local:  # before anything is created
        check_store(store)
    check_writable("output_root", output_root, Path(output_root).expanduser())
    if local:
        check_store(store)
    folder = artifact_folder(artifacts)
    if folder is not None and store != NONE:
        check_writable("tracking.artifacts", str(artifacts), folder)


def check_database(uri: str) -> None:
    """Raises :class:`ConfigError` unless the database lets us in."""
    from sqlalchemy import create_engine

    try:
        with create_engine(uri).connect():
            return
    except Exception as error:  # a missing driver, a bad address or whatever the driver raises
        reason = hide(str(error).splitlines()[0])
        raise ConfigError(f"tracking.uri={masked(uri)}: the database cannot be opened ({reason})") from error


def check_writable(setting: str, value: str, folder: Path) -> None:
    """Creates ``folder`` if need be; :class:`ConfigError` naming the setting if it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".alphagrad-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"{setting}={value}: cannot write there ({error.strerror}: {error.filename}); "
            "give a folder that can be created and written to"
        ) from error


_opened: dict[str, int] = {}
"""The inode of each SQLite file that this process has opened."""


def open_store(uri: str, patience: Patience | None = None) -> Any:
    """An ``mlflow.MlflowClient`` of the store, which is created if it does not exist.

    Each of its calls is tried again while the store fails, for as long as the ``patience`` lasts.

    The first call on a fresh database builds its tables; two processes doing so at once corrupt a SQLite
    file and fail on PostgreSQL, so they take turns.

    Raises:
        ConfigError: the address is that of no store.
        StorageLost: it failed for too long.
    """
    from mlflow import MlflowClient

    check_address(uri)
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # its tables are no news
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # errors are ours to tell, without traceback
    patience = patience or Patience.with_store(uri, READ_SECONDS)

    def connect() -> Any:
        with _alone(uri, patience):
            file = sqlite_file(uri)
            if file is not None and not (file.is_file() and file.stat().st_size):
                _build(file.resolve())
            if file is not None and _opened.get(uri) != (inode := file.stat().st_ino):
                _reconnect(uri)
                _opened[uri] = inode
            client = MlflowClient(tracking_uri=uri)
            client.search_experiments(max_results=1)
            return client

    again = partial(_reconnect, uri)
    connected = MlflowClient(tracking_uri=uri) if is_server(uri) else patience.persist(connect, failed=again)
    return PatientClient(connected, patience, again)


def _reconnect(uri: str) -> None:
    """Closes the connections that are kept open: those to a file that another has replaced would see the old one."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    engine = getattr(SqlAlchemyStore, "_engine_map", {}).get(uri)
    if engine is not None:
        engine.dispose()


def open_existing(uri: str) -> Any:
    """The client of a store that is there; :class:`ConfigError` if it is not, and nothing is created."""
    if uri == NONE:
        raise ConfigError(
            f"tracking.uri={NONE}: runs without tracking are in no store; their folders hold all there is"
        )
    file = sqlite_file(uri)
    if file is not None and not (file.exists() and (file.stat().st_size or not file.is_file())):
        raise ConfigError(
            f"tracking.uri={uri}: there is no such store yet; `alphagrad run` makes one, unless with tracking=none"
        )
    check_store(uri)
    return open_store(uri)


def _build(file: Path) -> None:
    """A new SQLite store: whole or not at all, since MLflow cannot go on with tables that a killed process left."""
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    unfinished = file.with_name(f"{file.name}.new")
    parts = [unfinished, *(unfinished.with_name(f"{unfinished.name}-{kind}") for kind in ("journal", "wal", "shm"))]
    for left in parts:
        left.unlink(missing_ok=True)
    uri = f"sqlite:///{unfinished}"
    try:
        SqlAlchemyStore(uri, DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)
        _reconnect(uri)
        unfinished.replace(file)
    finally:
        _reconnect(uri)  # or the next attempt would go on with the file that is removed now
        for left in parts:
            left.unlink(missing_ok=True)


@contextmanager
def _alone(uri: str, patience: Patience) -> Iterator[None]:
    """No other process is in here with the same SQLite file or PostgreSQL database."""
    file = sqlite_file(uri)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        check_lock(file.with_name(f"{file.name}.lock"))
        lock = FileLock(f"{file}.lock", timeout=patience.seconds)
        try:
            lock.acquire()
        except Timeout as error:
            raise StorageLost(f"tracking.uri={uri}: another process has been opening it for too long") from error
        try:
            yield
        finally:
            lock.release()
    elif uri.startswith("postgresql"):
        from sqlalchemy import create_engine, text

        engine = create_engine(uri)
        try:
            with engine.connect() as connection:  # the lock ends with the connection
                connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY_KEY})
                yield
        finally:
            engine.dispose()
    else:
        yield


def experiment_id(client: Any, name: str, artifacts: str | None) -> str:
    """The experiment of this name, created if need be, with its files under ``artifacts``."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        location = f"{artifacts.rstrip('/')}/{quote(name)}" if artifacts else None
        try:
            return str(client.create_experiment(name, artifact_location=location, tags=EXPERIMENT_TAGS))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another process was first
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise ConfigError(f"tracking.experiment={name}: was deleted; restore it or choose another name")
    return str(found.experiment_id)
