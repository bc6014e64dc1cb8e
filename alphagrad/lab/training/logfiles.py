"""Where the laboratory's own words go: a log file in each run's folder, warnings also to the terminal."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from alphagrad.common.words import plain

LOG = logging.getLogger("alphagrad")
LOG_FILE = "alphagrad.log"
FORMAT = "%(asctime)s %(levelname)s %(message)s"


class PlainLines(logging.Formatter):
    """Log lines, and tracebacks below them, without what a terminal would obey."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return plain(super().format(record), lines=True)


class LogFile(logging.FileHandler):
    """A log file that a full disk silences: the run itself says that the disk is full, in one line and not in pages."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


@contextmanager
def log_files(folders: Sequence[str]) -> Iterator[None]:
    """A log file in each of the jobs' folders, as Hydra makes one for jobs that it runs itself."""
    handlers = []
    for folder in folders:
        Path(folder).mkdir(parents=True, exist_ok=True)
        handlers.append(LogFile(Path(folder) / LOG_FILE))
        handlers[-1].setFormatter(PlainLines(FORMAT))
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
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(PlainLines(FORMAT))
    logging.basicConfig(handlers=[handler])
