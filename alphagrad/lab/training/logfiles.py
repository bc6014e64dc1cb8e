"""Where the laboratory's own words go: a log file in each run's folder, warnings also to the terminal."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from alphagrad.common.warned import is_new
from alphagrad.common.words import plain, write_anything
from alphagrad.lab.store.patience import Patience

LOG = logging.getLogger("alphagrad")
LOG_FILE = "alphagrad.log"
FORMAT = "%(asctime)s %(levelname)s %(message)s"


class PlainLines(logging.Formatter):
    """Log lines, and tracebacks below them, without what a terminal would obey."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return plain(super().format(record), lines=True)


class Once(logging.Filter):
    """Lets what a library warns of through once a command; our own words always."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is shown."""
        ours = record.name.partition(".")[0] == LOG.name
        return ours or record.levelno != logging.WARNING or is_new(f"{record.name} {record.getMessage()}")


class LogFile(logging.FileHandler):
    """A log file that a full disk silences: the run itself says that the disk is full, in one line and not in pages."""

    def __init__(self, filename: str | Path, mode: str = "a", encoding: str = "utf-8", delay: bool = False) -> None:
        super().__init__(filename, mode, encoding, delay)

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        """Closes the file; what the disk does not take is lost, and hides no error of the run's."""
        with suppress(OSError):
            super().close()


@contextmanager
def log_files(folders: Sequence[str], retry_seconds: float = 0.0) -> Iterator[None]:
    """A log file in each of the jobs' folders, as Hydra makes one for jobs that it runs itself.

    Raises:
        StorageLost: the disk did not take them for ``retry_seconds``.
    """

    def made(folder: str) -> LogFile:
        Path(folder).mkdir(parents=True, exist_ok=True)
        return LogFile(Path(folder) / LOG_FILE)

    handlers = [Patience(folder, retry_seconds).persist(partial(made, folder)) for folder in folders]
    for handler in handlers:
        handler.setFormatter(PlainLines(FORMAT))
    level = LOG.level
    LOG.setLevel(logging.INFO)
    for handler in handlers:
        LOG.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            LOG.removeHandler(handler)
            handler.close()
        LOG.setLevel(level)


def warn_on_stderr() -> None:
    """Shows warnings on the terminal, unless somebody has said how; the rest is for the log files."""
    write_anything()  # a worker's streams are its own
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.addFilter(Once())
    handler.setFormatter(PlainLines(FORMAT))
    logging.basicConfig(handlers=[handler])
