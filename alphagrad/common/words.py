"""Words from outside, shown safely: names, reasons and values may hold anything, and a terminal obeys some of it."""

from __future__ import annotations

import codecs
import io
import math
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

LONGEST = 200
"""Characters of a value that a message shows."""
LONGEST_LINE = 4000
"""Characters of a message."""
UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")
# what moves the cursor, colours, renames the window, hides or reorders text, or cannot be encoded
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]"
)


def plain(text: object, lines: bool = False) -> str:
    """The text with control characters written out, such as ``\\x1b``; newlines and tabs too, unless ``lines``."""

    def written(found: re.Match[str]) -> str:
        character = found[0]
        return character if lines and character in "\n\t" else repr(character)[1:-1]

    return _UNSAFE.sub(written, str(text))


def is_plain(text: str) -> bool:
    """Whether :func:`plain` leaves the text as it is."""
    return _UNSAFE.search(text) is None


def cut(text: object, longest: int = LONGEST) -> str:
    """The text, or its beginning and its length."""
    whole = str(text)
    if len(whole) <= longest:
        return whole
    return f"{whole[: max(longest - 30, 1)]}… ({len(whole):,} characters)"


def shown(value: object) -> str:
    """A value as a message shows it: its ``repr``, not too long."""
    try:
        return cut(repr(value))
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return f"a {type(value).__name__} that is too long to be shown"


def size(number: float) -> str:
    """Bytes as a person reads them."""
    power = min(int(math.log10(max(number, 1)) / 3), len(UNITS) - 1)
    return f"{number / 1000**power:.3g} {UNITS[power]}"


def listed(names: object, longest: int = 1000) -> str:
    """Names, separated by commas; of very many the first."""
    return cut(", ".join(map(str, names)), longest)  # type: ignore[call-overload]


def squeezed(text: object, longest: int = LONGEST_LINE) -> str:
    """The text in one line, not too long."""
    try:
        told = str(text)
    except Exception:  # a user's exception whose own text fails
        told = ""
    return cut(" ".join(told.split()), longest)


_ASCII = {
    **{"α": "alpha", "β": "beta", "γ": "gamma", "ε": "eps", "η": "eta", "θ": "theta", "κ": "kappa", "λ": "lambda"},
    **{
        "ρ": "rho",
        "τ": "tau",
        "Δ": "Delta",
        "×": "x",
        "·": "*",
        "√": "sqrt ",
        "‖": "|",
        "₂": "2",
        "ĝ": "g",
        "∞": "inf",
    },
    **{
        "−": "-",
        "–": "-",
        "—": "-",
        "…": "...",
        "→": "->",
        "≥": ">=",
        "≤": "<=",
        "±": "+-",
        "’": "'",
        "“": '"',
        "”": '"',
    },
    **{"─": "-", "━": "-", "│": "|", "╸": "-", "╺": "-", "ö": "oe", "é": "e", "∈": "in", "²": "2", "№": "no."},
}
"""How a terminal that knows ASCII alone is told what our messages hold."""


def _readable(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that a stream cannot write."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    told = "".join(
        _ASCII.get(c) or c.encode("ascii", "backslashreplace").decode() for c in error.object[error.start : error.end]
    )
    return told, error.end


codecs.register_error("alphagrad.readable", _readable)


def write_anything() -> None:
    """Lets this process's output hold characters that its terminal or file cannot write: others stand for them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="alphagrad.readable")


def say(text: object, err: bool = False) -> None:
    """Prints a line for a person to read."""
    print(plain(text), file=sys.stderr if err else sys.stdout, flush=True)


def cell(text: object) -> Text:
    """The text for a table of rich, which would otherwise take ``[...]`` in it for markup."""
    from rich.text import Text

    # as the stream will write it, so that columns stay below one another
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return Text(plain(text).encode(encoding, "alphagrad.readable").decode(encoding))
