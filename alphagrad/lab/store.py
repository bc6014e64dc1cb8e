"""The MLflow store in use: where it is, whether it answers, and a client for it."""

from __future__ import annotations

import logging
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

from filelock import FileLock

from alphagrad.lab.errors import ConfigError

# Before anything imports mlflow: its telemetry goes out on import.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
# A server that does not answer is retried by our writer, which training does not wait for; MLflow's own
# retries would hold a run for many minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # of a list of jobs, in one blink

ANSWER_SECONDS = 5.0
SQLITE_HEADER = b"SQLite format 3\0"
# any number that other users of the database do not lock: "alpha" in hexadecimal
ADVISORY_KEY = 0x616C706861
# so that the UI shows training runs instead of traces of language models
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}


def store_uri(uri: str | None, output_root: str | Path) -> str:
    """The store's address: ``uri``, else $MLFLOW_TRACKING_URI, else the file mlflow.db in ``output_root``."""
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI")
    if uri:
        return uri
    return f"sqlite:///{Path(output_root).expanduser().resolve() / 'mlflow.db'}"


def sqlite_file(uri: str) -> Path | None:
    """The file behind a SQLite address, None for another kind of store."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def check_store(uri: str) -> None:
    """Raises :class:`ConfigError` unless the store can be used; fast, where MLflow would retry for minutes."""
    scheme = urlsplit(uri).scheme
    if scheme in ("http", "https"):
        health = f"{uri.rstrip('/')}/health"
        try:
            with urllib.request.urlopen(health, timeout=ANSWER_SECONDS) as answer:  # noqa: S310
                if answer.status == 200:
                    return
                reason = f"answered {answer.status}"
        except (urllib.error.URLError, OSError, ValueError) as error:
            reason = str(getattr(error, "reason", error))
        raise ConfigError(
            f"tracking.uri={uri}: no MLflow server answers there ({reason}); start one with `alphagrad ui`, "
            "or leave tracking.uri empty to use a local file"
        )
    file = sqlite_file(uri)
    if file is not None:
        check_writable("tracking.uri", uri, file.parent)
        if file.is_dir() or (file.is_file() and file.stat().st_size and file.open("rb").read(16) != SQLITE_HEADER):
            raise ConfigError(f"tracking.uri={uri}: {file} is not an SQLite database; give another file")
    elif scheme.partition("+")[0] in ("postgresql", "mysql", "mssql"):
        check_database(uri)
    else:
        raise ConfigError(
            f"tracking.uri={uri}: must be an http(s):// MLflow server or a sqlite:///, postgresql:// or "
            "mysql:// database"
        )


def check_places(uri: str | None, output_root: str) -> None:
    """Raises :class:`ConfigError` unless a run can write to its store and ``output_root``, which is created then."""
    store = store_uri(uri, output_root)
    local = sqlite_file(store) is not None
    if not local:  # before anything is created
        check_store(store)
    check_writable("output_root", output_root, Path(output_root).expanduser())
    if local:
        check_store(store)


def check_database(uri: str) -> None:
    """Raises :class:`ConfigError` unless the database lets us in."""
    from sqlalchemy import create_engine

    try:
        with create_engine(uri).connect():
            return
    except Exception as error:  # a missing driver, a bad address or whatever the driver raises
        reason = str(error).splitlines()[0]
        raise ConfigError(f"tracking.uri={uri}: the database cannot be opened ({reason})") from error


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


def open_store(uri: str):  # type: ignore[no-untyped-def]
    """An ``mlflow.MlflowClient`` of the store, which is created if it does not exist.

    The first call on a fresh database builds its tables; two processes doing so at once corrupt a SQLite
    file and fail on PostgreSQL, so they take turns.
    """
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # its tables are no news
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # errors are ours to tell, without traceback
    if uri.startswith(("http://", "https://")):
        return MlflowClient(tracking_uri=uri)
    with _alone(uri):
        file = sqlite_file(uri)
        if file is not None and not (file.is_file() and file.stat().st_size):
            _build(file)
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
        return client


def open_existing(uri: str):  # type: ignore[no-untyped-def]
    """The client of a store that is there; :class:`ConfigError` if it is not, and nothing is created."""
    file = sqlite_file(uri)
    if file is not None and not file.exists():
        raise ConfigError(f"tracking.uri={uri}: there is no such store yet; `alphagrad run` makes one")
    check_store(uri)
    return open_store(uri)


def _build(file: Path) -> None:
    """A new SQLite store: whole or not at all, since MLflow cannot go on with tables that a killed process left."""
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    unfinished = file.with_name(f"{file.name}.new")
    for left in (unfinished, unfinished.with_name(f"{unfinished.name}-journal")):
        left.unlink(missing_ok=True)
    SqlAlchemyStore(f"sqlite:///{unfinished}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH).engine.dispose()
    unfinished.replace(file)


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """No other process is in here with the same SQLite file or PostgreSQL database."""
    file = sqlite_file(uri)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            yield
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


def artifact_root(artifacts: str | None, uri: str, output_root: str | Path) -> str | None:
    """Where files of new experiments go: ``artifacts``, a folder or an address such as s3://bucket/path.

    Without it, beside a SQLite store and in ``output_root`` for another database; a server decides for itself.
    """
    file = sqlite_file(uri)
    if artifacts is not None:
        return artifacts if "://" in artifacts else Path(artifacts).expanduser().resolve().as_uri()
    if uri.startswith(("http://", "https://")):
        return None
    return ((file.parent if file else Path(output_root).expanduser().resolve()) / "artifacts").as_uri()


def experiment_id(client, name: str, artifacts: str | None) -> str:  # type: ignore[no-untyped-def]
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
