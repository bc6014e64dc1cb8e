"""What all commands do with their words: flags that hold everywhere, and errors in one line. Imports nothing heavy."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from alphagrad.common.errors import ConfigError, Terminated
from alphagrad.common.words import cut, is_plain, plain, squeezed

ALLOW = "--allow-target"
STORE_WORDS = {"output_root": "--output-root", "tracking.uri": "--uri", "tracking.experiment": "--experiment"}
"""Settings of ``alphagrad run`` that other commands take as flags."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are a line, that takes the settings which say where the store is."""

    def error(self, message: str) -> NoReturn:
        """Raises :class:`ConfigError`."""
        flag = re.search(r"unrecognized arguments: --?(\w[\w.]*)", message)
        if flag and any(action.metavar == "SETTING=VALUE" for action in self._actions):
            message += f"; settings have no dashes: {flag[1]}=VALUE"
        raise ConfigError(f"{squeezed(message, 500)}; `{self.prog} --help` says what there is")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Raises :class:`Terminated`, once help has been shown."""
        raise Terminated(status)

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """As argparse does, with ``output_root=x`` for ``--output-root x`` where there is no such setting."""
        takes_settings = any(action.metavar == "SETTING=VALUE" for action in self._actions)
        words = list(args or ())
        if not takes_settings:
            words = [word for given in words for word in self._as_flag(given)]
        return super().parse_known_args(words, namespace)

    def _as_flag(self, word: str) -> list[str]:
        key, equals, value = word.partition("=")
        flag = STORE_WORDS.get(key)
        flags = [option for action in self._actions for option in action.option_strings]
        if equals and flag in flags:
            return [f"{flag}={value}"]
        if equals and not word.startswith("-") and all(part.isidentifier() for part in key.split(".")):
            may = [name for name, option in STORE_WORDS.items() if option in flags]
            raise ConfigError(f"{cut(word)}: `{self.prog}` takes of a run's settings {', '.join(may) or 'none'}")
        return [word]


def parser(command: str, description: str, example: str = "") -> Parser:
    """An argument parser whose help ends with an example."""
    epilog = f"example: {example}" if example else None
    return Parser(f"alphagrad {command}", description=description, epilog=epilog)


def add_store_options(p: argparse.ArgumentParser, experiment: bool = True) -> None:
    """The options that say which store and experiment."""
    p.add_argument("--uri", help="MLflow store (default: $MLFLOW_TRACKING_URI, else OUTPUT_ROOT/mlflow.db)")
    p.add_argument("--output-root", default="outputs", help="default %(default)s")
    if experiment:
        p.add_argument("--experiment", help="MLflow experiment (default: all there are)")


def whole(text: str) -> int:
    """A whole number, also as 1e3; raises what argparse expects for another one."""
    for kind in (int, float):
        with suppress(ValueError):
            number = kind(text)
            if number == number // 1:
                return int(number)
    raise argparse.ArgumentTypeError(f"{cut(text)!r} is no whole number")


def everywhere(argv: Sequence[str]) -> tuple[list[str], bool, list[str]]:
    """The words without the flags that any command takes; whether a traceback is asked for; the targets allowed.

    Raises:
        ConfigError: a word is no text, or a flag lacks its value.
    """
    words: list[str] = []
    allowed: list[str] = []
    rest = iter(argv)
    for word in rest:
        if not is_plain(word):
            raise ConfigError(f"{cut(plain(word))}: holds control characters; only text is allowed")
        if word == ALLOW or word.startswith(f"{ALLOW}="):
            prefix = word.partition("=")[2] if "=" in word else next(rest, "")
            if not prefix or prefix.startswith("-"):
                raise ConfigError(f"{ALLOW}: needs a module, or the dotted name of a class or function")
            allowed.append(prefix)
        elif word != "--traceback":
            words.append(at_home(word))
    return words, "--traceback" in argv, allowed


def at_home(argument: str) -> str:
    """``key=~/x`` with the home folder, which shells leave alone after a dotted key, and Hydra everywhere."""
    key, equals, value = argument.partition("=")
    return f"{key}={os.path.expanduser(value)}" if equals and value.startswith("~/") else argument
