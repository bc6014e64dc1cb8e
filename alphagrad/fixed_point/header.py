"""The C header: the template with its table and the numbers that are asked for."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from importlib.resources import files

from alphagrad import __version__
from alphagrad.fixed_point.number import Number
from alphagrad.fixed_point.update import TANH


def header(numbers: Mapping[str, float] | None = None) -> str:
    """The text of the header.

    Args:
        numbers: name → value ≥ 0, such as a learning rate: constants of the type ``alphagrad_number``.

    Raises:
        ValueError: a name is none of C's, or is one of the header's own; a value is negative or not finite.
    """
    constants = []
    for name, value in (numbers or {}).items():
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) or name.lower().startswith("alphagrad"):
            raise ValueError(f"{name}: must be a name in C that does not begin with alphagrad")
        number = Number.of(value, name)
        constants.append(
            f"static const alphagrad_number {name} = {{{number.mantissa}, {number.exponent}}}; /* {value!r} */\n"
        )
    parts = {
        "VERSION": __version__,
        "NUMBERS": "\n" + "".join(constants) if constants else "",
        "ENTRIES": str(len(TANH)),
        "TABLE": textwrap.fill(", ".join(map(str, TANH)), 116, initial_indent="    ", subsequent_indent="    "),
    }
    text = files(__package__).joinpath("template.h").read_text(encoding="utf-8")
    return re.sub(r"@([A-Z]+)@", lambda found: parts[found[1]], text)
