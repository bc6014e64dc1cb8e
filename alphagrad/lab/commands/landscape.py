"""`alphagrad landscape`: the loss around the weights of runs, and how sharp it is there."""

from __future__ import annotations

import argparse

from alphagrad.common.words import say
from alphagrad.lab.commands.arguments import add_store_options, parser, whole


def main(argv: list[str]) -> None:
    """`alphagrad landscape`."""
    args = _arguments().parse_args(argv)
    from alphagrad.lab.inspection.survey import Wanted, survey

    wanted = Wanted(
        args.to,
        args.dims,
        args.directions,
        args.points,
        args.span,
        args.seed,
        args.examples,
        args.eigenvalues,
        args.rho,
    )
    for line in survey(args.what, args.uri, args.output_root, wanted):
        say(line)


def _arguments() -> argparse.ArgumentParser:
    description = (
        "Draws the training loss on fixed examples around the weights of runs, which share directions and axes, and "
        "says how sharp it is there. The numbers are in an .npz file beside the picture."
    )
    p = parser("landscape", description, "alphagrad landscape 3f2a 81bc --directions pca --to landscape.svg")
    p.add_argument("what", nargs="+", metavar="RUN", help="a run id or its beginning, or a run's folder")
    p.add_argument("--to", metavar="FILE", help="png, svg or pdf (default: landscape.png in the first run's folder)")
    p.add_argument("--dims", type=int, choices=(1, 2), default=2, help="a line or a plane (default %(default)s)")
    p.add_argument(
        "--directions",
        choices=("random", "pca"),
        default="random",
        help="random: filter-normalised; pca: the principal components of the paths, of runs that were trained with "
        "checkpoint.trajectory_every (default %(default)s)",
    )
    p.add_argument("--points", type=whole, metavar="N", help="along each axis (default: 51 of a line, 21 of a plane)")
    p.add_argument(
        "--span",
        type=float,
        metavar="X",
        help="half the length of an axis: random: in norms of the filters (default 1); pca: a distance between weights "
        "(default: what holds the paths)",
    )
    p.add_argument("--seed", type=whole, default=0, help="of the random directions (default %(default)s)")
    p.add_argument(
        "--examples", type=whole, default=512, metavar="N", help="training examples of the loss (default %(default)s)"
    )
    p.add_argument(
        "--eigenvalues", type=whole, default=1, metavar="N", help="the Hessian's largest; 0: none (default %(default)s)"
    )
    p.add_argument(
        "--rho",
        type=float,
        default=0.05,
        help="radius of the ball whose worst loss is sought; 0: none (default %(default)s)",
    )
    add_store_options(p, experiment=False)
    return p
