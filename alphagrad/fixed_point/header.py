"""The C header: the template with its table and the numbers that are asked for."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from importlib.resources import files

from alphagrad import __version__
from alphagrad.fixed_point.number import Number
from alphagrad.fixed_point.update import TANH

C = """
auto break case char const continue default do double else enum extern float for goto if inline int long register
restrict return short signed sizeof static struct switch typedef union unsigned void volatile while
alignas alignof asm bool constexpr false nullptr static_assert thread_local true typeof typeof_unqual
main NULL errno linux unix i386
"""
"""Words of C99, of later C, and what a program or a compiler has by itself."""
CPP = """
and and_eq bitand bitor catch char8_t char16_t char32_t class co_await co_return co_yield compl concept const_cast
consteval constinit decltype delete dynamic_cast explicit export friend mutable namespace new noexcept not not_eq
operator or or_eq private protected public reinterpret_cast requires static_cast template this throw try typeid typename
using virtual wchar_t xor xor_eq
"""
TAKEN = frozenset((C + CPP).split())
"""Names that a constant cannot have, for the header may be part of a program in C++ too."""
STDINT = (
    r"u?int\w*_t|U?INT(PTR|MAX|(_LEAST|_FAST)?\d+)?_(MAX|MIN|C|WIDTH)|"
    r"(PTRDIFF|SIG_ATOMIC|SIZE|WCHAR|WINT)_(MAX|MIN|WIDTH)"
)
"""What ``stdint.h`` defines, or may."""


def header(numbers: Mapping[str, float] | None = None) -> str:
    """The text of the header.

    Args:
        numbers: name → value ≥ 0, such as a learning rate: constants of the type ``alphagrad_number``.

    Raises:
        ValueError: a name is none of C's, is a word of C, or is one of the header's own; a value is negative or not
            finite.
    """
    constants = []
    for name, value in (numbers or {}).items():
        if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or name.lower().startswith("alphagrad"):
            raise ValueError(
                f"{name}: must be a name in C that does not begin with alphagrad: a letter, then letters, digits and _"
            )
        if name in TAKEN or re.fullmatch(STDINT, name):
            raise ValueError(f"{name}: is a word of C, or of its headers; choose another name")
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
