"""`alphagrad ls`: what there is to choose from."""

from __future__ import annotations

import textwrap

from alphagrad.common.words import plain
from alphagrad.lab.commands.arguments import parser


def main(argv: list[str]) -> None:
    """`alphagrad ls`."""
    description = "Recipes, variants, baselines, studies and more, a line each; yours in $ALPHAGRAD_CONF too."
    p = parser("ls", description, "alphagrad ls experiment")
    p.add_argument("group", nargs="?", help="only these: recipe, optimizer, data, model, problem or experiment")
    args = p.parse_args(argv)
    from alphagrad.lab.config.catalogue import render
    from alphagrad.lab.evidence.tables import width

    for line in render(args.group).splitlines():
        hanging = " " * (len(line) - len(line.lstrip()) + 2)
        wrapped = textwrap.wrap(plain(line), width(), subsequent_indent=hanging, break_on_hyphens=False) or [""]
        print("\n".join(wrapped))
