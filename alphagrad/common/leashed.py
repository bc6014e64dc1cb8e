"""A program that ends with the one that started it, even if that is killed.

It is to be started as the leader of a session of its own, whose processes all end then.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from alphagrad.common.interrupts import end_with

CLOSING_SECONDS = 10
"""From SIGTERM to SIGKILL."""


def leashed(program: Sequence[str]) -> list[str]:
    """The command line that runs a program so, to be started from this process."""
    return [sys.executable, "-m", "alphagrad.common.leashed", str(os.getpid()), *program]


def main() -> int:
    """Runs the program of the command line; returns its exit status."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    with subprocess.Popen(program) as running:
        signal.signal(signal.SIGTERM, _end)
        end_with(lambda: os.getppid() == parent)
        return running.wait()


def _end(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(0, signal.SIGKILL))
    signal.alarm(CLOSING_SECONDS)
    os.killpg(0, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
