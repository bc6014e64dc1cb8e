"""`alphagrad complete`: answers the completion scripts, a word a line; not for people."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from io import StringIO
from itertools import islice
from pathlib import Path

from alphagrad.common.words import is_plain
from alphagrad.lab.commands import NAMES

TAKE_SETTINGS = ("run", "alpha", "tune")
TAKE_RUNS = ("resume", "watch", "status", "report", "export", "instruments", "landscape", "export-model")
TAKE_FOLDERS = ("resume", "watch", "landscape", "export-model")
SHORT = 8
"""Digits of a run id, as other commands show it."""
MOST_RUNS = 5000
"""Folders looked at."""


def main(argv: list[str]) -> None:
    """Prints words for $COMP_LINE."""
    point = os.environ.get("COMP_POINT", "")
    line = os.environ.get("COMP_LINE", "")[: int(point) or None if re.fullmatch(r"[0-9]{1,9}", point) else None]
    for word in dict.fromkeys(candidates(line.split(" "))):
        if is_plain(word):
            print(word)


def candidates(words: Sequence[str]) -> Iterator[str]:
    """What the last of the words may become."""
    last = words[-1]
    if len(words) <= 2:
        yield from (command for command in NAMES if command.startswith(last))
    elif words[1] in TAKE_SETTINGS:
        yield from settings(words)
    elif words[1] in TAKE_RUNS:
        yield from ids(words)
        if words[1] in TAKE_FOLDERS:
            yield from folders(last)
    elif words[1] == "claims":
        from alphagrad.lab.evidence.claims.ledger import names

        yield from (claim for claim in names() if claim.startswith(last))
    elif words[1] == "completion":
        yield from (shell for shell in ("bash", "zsh") if shell.startswith(last))


def settings(words: Sequence[str]) -> Iterator[str]:
    """Settings, groups and their options; of several values, which commas part, the last."""
    from alphagrad.lab.commands.run import run

    key, equals, value = words[-1].partition("=")
    before, comma, last = value.rpartition(",")
    # Hydra completes settings, but knows nothing of the subcommand, nor of several values
    line = " ".join([words[0], *words[2:-1], f"{key}{equals}{last}"])
    os.environ["COMP_LINE"], os.environ["COMP_POINT"] = line, str(len(line))
    with redirect_stdout(StringIO()) as told:
        run(["-sc", "query=bash"])
    chosen = before.split(",") if comma else []
    for word in told.getvalue().split():
        option = word.rpartition("=")[2] if equals else word.rpartition("/")[2]
        if not option.startswith("_") and option not in chosen:
            yield f"{key}={before}{comma}{option}" if equals else word


def ids(words: Sequence[str]) -> Iterator[str]:
    """Ids of the runs and studies in the output folder that the line names, studies first."""
    from alphagrad.lab.records.folder import RUN_ID
    from alphagrad.lab.records.study import ARGUMENTS

    root, last = Path("outputs"), words[-1]
    for place, word in enumerate(words[:-1]):
        name, equals, value = word.partition("=")
        if name in ("--output-root", "output_root"):
            root = Path(value if equals else words[place + 1]).expanduser()
    singles = []
    for file in islice(root.rglob(RUN_ID), MOST_RUNS):
        try:
            run_id = file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            continue
        if not run_id.startswith(last):
            continue
        word = run_id[: max(SHORT, len(last) if len(last) <= SHORT else len(run_id))]
        if not (file.parent / ARGUMENTS).exists():
            singles.append(word)
        elif words[1] not in ("watch", "landscape", "export-model"):
            yield word
    yield from singles


def folders(start: str) -> Iterator[str]:
    """Folders whose path begins so."""
    head, slash, name = start.rpartition("/")
    above = Path(head or slash or ".").expanduser()
    try:
        found = sorted(path.name for path in above.iterdir() if path.is_dir())
    except OSError:
        return
    for folder in found:
        if folder.startswith(name) and (name or not folder.startswith(".")):
            yield f"{head}{slash}{folder}/"
