"""Commands in processes of their own that start at once: forked from one that has imported everything."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from warm import context


def start(*words: str, cwd: Path | None = None, said: Path | None = None) -> BaseProcess:
    """``alphagrad WORDS``, in the environment of the moment and a session of its own.

    Args:
        words: the command line.
        cwd: where it runs.
        said: a file for its stderr.
    """
    process = context().Process(target=_command, args=(words, cwd, said))
    process.start()
    return process


class Command:
    """A command that goes on, with what :class:`subprocess.Popen` tells of one; as :func:`start` takes it."""

    def __init__(self, *words: str, cwd: Path, said: Path) -> None:
        self._process, self._said = start(*words, cwd=cwd, said=said), said
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> None:
        self._process.join(timeout)
        assert self.poll() is not None, "it does not end"

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Once it has ended, its output, which is not kept, and its errors."""
        self.wait(timeout)
        return "", self._said.read_text()


def finish(*words: str, status: int = 0) -> None:
    """The command, run to its end, which must have this status."""
    process = start(*words)
    process.join(120)
    assert process.exitcode == status, words


def _command(words: Sequence[str], cwd: Path | None, said: Path | None) -> None:
    import alphagrad_cli

    os.setsid()
    if cwd is not None:
        os.chdir(cwd)
    if said is not None:
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
    sys.exit(alphagrad_cli.main(list(words)))
