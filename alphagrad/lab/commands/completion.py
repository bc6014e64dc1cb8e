"""`alphagrad completion`: a script for the shell, which asks `alphagrad complete`."""

from __future__ import annotations

from alphagrad.lab.commands.arguments import parser

# bash breaks words at = and :, so what stands before the last break is taken off
BASH = """\
_alphagrad() {
    local line=${COMP_LINE:0:COMP_POINT} word
    local typed=${line##* }
    local before=${typed%"$2"}
    [[ $2 == [=:] ]] && before=$typed
    COMPREPLY=()
    while IFS= read -r word; do
        COMPREPLY+=("${word#"$before"}")
    done < <(COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" alphagrad complete 2>/dev/null)
    [[ ${COMPREPLY[0]} == *[=/.] ]] && compopt -o nospace
    return 0
}
complete -F _alphagrad alphagrad
"""
ZSH = """\
_alphagrad() {
    local line="${(j: :)words[1,CURRENT-1]} $PREFIX"
    local -a found open
    found=(${(f)"$(COMP_LINE="$line" COMP_POINT=${#line} alphagrad complete 2>/dev/null)"})
    open=(${(M)found:#*[=/.]})
    found=(${found:#*[=/.]})
    (( $#open )) && compadd -Q -S '' -a open
    (( $#found )) && compadd -Q -a found
    return 0
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -u }
compdef _alphagrad alphagrad
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH}


def main(argv: list[str]) -> None:
    """`alphagrad completion`."""
    p = parser("completion", "Prints a script for your shell.", 'eval "$(alphagrad completion bash)"')
    p.add_argument("shell", choices=list(SCRIPTS))
    print(SCRIPTS[p.parse_args(argv).shell], end="")
