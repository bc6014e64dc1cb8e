"""`alphagrad instruments`: which tensors of a study went beyond a bound, and when."""

from __future__ import annotations

from alphagrad.lab.commands.arguments import add_store_options, parser

BOUND = 0.25
"""What S(α) should stay below, by the paper's example of a band."""


def main(argv: list[str]) -> None:
    """`alphagrad instruments`."""
    description = (
        "Shows when each tensor went beyond a bound of what the instruments measured, the earliest first: "
        "of S(α) when a run saturates, and in which layer."
    )
    p = parser("instruments", description, "alphagrad instruments 3f2a --above 0.1")
    p.add_argument("study", nargs="?", help="a study's or run's id or its beginning; default: the newest study")
    p.add_argument("--quantity", default="saturation", help="what was measured of tensors (default %(default)s)")
    p.add_argument("--above", type=float, default=BOUND, metavar="BOUND", help="the bound (default %(default)s)")
    add_store_options(p)
    args = p.parse_args(argv)
    from itertools import groupby

    from alphagrad.common.words import cell, say
    from alphagrad.lab.evidence.signals import crossings
    from alphagrad.lab.evidence.tables import show, table

    where = {"uri": args.uri, "output_root": args.output_root, "experiment": args.experiment}
    found = crossings(args.study, args.quantity, args.above, **where)
    numbers = ("runs", "beyond", "first at step", "largest", "of step", "last")
    for configuration, own in groupby(found, key=lambda c: c.cell):
        caption = f"beyond: in so many runs {args.quantity} was above {args.above:g}"
        shown = table("tensor", *numbers, right=numbers, caption=caption)
        for c in own:
            first = "never" if c.first is None else f"{c.first:,}"
            told = (str(c.runs), str(c.beyond), first, f"{c.largest:.3g}", f"{c.at:,}", f"{c.last:.3g}")
            shown.add_row(cell(c.tensor), *told)
        say(configuration)
        show(shown)
