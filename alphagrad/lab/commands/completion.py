"""`alphagrad completion`: a script for the shell, which asks `alphagrad complete`."""

from __future__ import annotations

from alphagrad.lab.commands.arguments import parser

COMPLETION = """\
_alphagrad() {
    local IFS=$'\\n'
    COMPREPLY=($(COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" alphagrad complete 2>/dev/null))
    [[ ${COMPREPLY[0]} == *= || ${COMPREPLY[0]} == */ || ${COMPREPLY[0]} == *. ]] && compopt -o nospace
    return 0
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -F _alphagrad alphagrad
"""


def main(argv: list[str]) -> None:
    """`alphagrad completion`."""
    p = parser("completion", "Prints a script for your shell.", 'eval "$(alphagrad completion bash)"')
    p.add_argument("shell", choices=["bash"])
    p.parse_args(argv)
    print(COMPLETION, end="")
