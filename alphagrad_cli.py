"""The command line: finds the subcommand and tells its errors. Imports nothing heavy; a command does when it works."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from alphagrad import __version__
from alphagrad.common import ranks
from alphagrad.common.errors import ConfigError, JobFailed
from alphagrad.common.interrupts import no_exit
from alphagrad.common.own import VARIABLE, importable
from alphagrad.common.warned import once
from alphagrad.common.words import LONGEST_LINE, cut, say, squeezed, write_anything
from alphagrad.lab import commands
from alphagrad.lab.commands.arguments import everywhere

ALONE = ("completion",)
"""Commands that need no other package, and so work beside the optimizer alone."""


TRAINING = ("run", "tune", "resume")
SHOWING = frozenset(("-h", "--help", "--hydra-help", "-c", "--cfg", "-i", "--info", "-sc", "--shell-completion"))
"""Flags with which these train nothing."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns 0, 1 for a failed run, 2 for a wrong setting, 130 or 143 when interrupted."""
    write_anything()
    argv = list(sys.argv[1:] if arguments is None else arguments)
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    traceback = "--traceback" in argv
    try:
        argv, traceback, allowed = everywhere(argv)
        if not argv or argv[0] in ("-h", "--help", "help"):
            print(commands.HELP, end="")
            return 0
        if argv[0] == "--version":
            if argv[1:]:
                raise ConfigError(f"--version: takes no more words, such as {cut(argv[1])}")
            print(f"alphagrad {__version__}")
            return 0
        if argv[0] not in (*commands.NAMES, *commands.HIDDEN):
            raise ConfigError(f"{cut(argv[0])}: no such command; there are {', '.join(commands.NAMES)}")
        if argv[0] not in ALONE and (lacking := not_installed()):
            remedy = "`pip install alphagrad`, without --no-deps, installs what is missing"
            raise ConfigError(f"{argv[0]}: needs {', '.join(lacking)}; {remedy}")
        check_one_checkout()
        if argv[0] not in commands.PARALLEL:
            ranks.alone(f"alphagrad {argv[0]}")
        if argv[0] in TRAINING and sys.stderr.isatty() and not SHOWING & {word.partition("=")[0] for word in argv}:
            say("alphagrad: composing", err=True)  # what is imported takes seconds
        command = import_module(f"{commands.__name__}.{argv[0].replace('-', '_')}").main
        if folder := os.environ.get(VARIABLE):
            importable(os.path.realpath(os.path.expanduser(folder)))
        with ExitStack() as held, no_exit(), once():
            if allowed:
                from alphagrad.lab.config.targets import allowing

                held.enter_context(allowing(allowed))
            return command(argv[1:]) or 0
    except KeyboardInterrupt as stop:
        if not stop.args and os.environ.get("RANK", "0") == "0":
            print("alphagrad: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if traceback:
            raise
        return explain(error)


def script() -> int:
    """:func:`main` as a program of its own."""
    if "WORLD_SIZE" not in os.environ:
        return main()
    try:
        status = main()
    except SystemExit as left:
        status = int(left.code or 0)
    # torch keeps the connection's threads after it is closed; one that wakes while the interpreter is taken
    # apart now and then aborts the process, and torchrun then ends the others. Everything is closed by now.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def explain(error: Exception) -> int:
    """Says an error in a line for each thing that is wrong; returns the exit status."""
    from alphagrad.lab.store.address import hide

    if isinstance(error, ConfigError):
        for line in hide(str(error)).split("\n"):
            say(f"alphagrad: {cut(line, LONGEST_LINE)}", err=True)
        return 2
    rank = os.environ.get("RANK", "0")
    who = "alphagrad" if rank == "0" else f"alphagrad, process {rank}"
    told = "" if isinstance(error, JobFailed) else f"{type(error).__name__}: "
    say(f"{who}: {told}{hide(squeezed(error))} (--traceback shows where)", err=True)
    return 1


def check_one_checkout() -> None:
    """Raises :class:`ConfigError` where the code is of one checkout and its configuration or recipes of another.

    Python finds them so where a checkout's code runs in an environment that another checkout is installed into.
    """
    code = Path(commands.__file__).resolve().parents[2]
    for part in ("conf", "recipes"):
        spec = find_spec(f"alphagrad.{part}")
        places = [Path(place).resolve() for place in (spec and spec.submodule_search_locations) or ()]
        own = {(code / part).resolve(), (code.parent / part).resolve()}
        if places and not own & set(places):
            raise ConfigError(
                f"{code.parent}: its {part}/ is not the one that is found, {places[0]}; this environment is of another "
                "checkout, so install this one into an environment of its own"
            )


def not_installed() -> list[str]:
    """What alphagrad's own metadata asks for and is not here, as after ``pip install --no-deps``; extras left out."""
    from importlib.metadata import PackageNotFoundError, distribution, requires

    def lacks(package: str) -> bool:
        try:
            distribution(package)
        except PackageNotFoundError:
            return True
        return False

    try:
        lines = requires("alphagrad") or []
    except PackageNotFoundError:  # started from a checkout that is not installed
        return []
    names = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines if "extra ==" not in line]
    return [name for name in names if lacks(name)]


if __name__ == "__main__":
    sys.exit(script())
