"""`alphagrad ls`: what there is to choose from."""

from __future__ import annotations

from alphagrad.common.words import plain
from alphagrad.lab.commands.arguments import parser


def main(argv: list[str]) -> None:
    """`alphagrad ls`."""
    parser("ls", "Recipes, variants and baselines, a line each; yours in $ALPHAGRAD_CONF too.").parse_args(argv)
    from alphagrad.lab.config.catalogue import render

    print(plain(render(), lines=True))
