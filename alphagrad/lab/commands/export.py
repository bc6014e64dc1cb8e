"""`alphagrad export`: a study as a table in a file."""

from __future__ import annotations

from alphagrad.common.words import say
from alphagrad.lab.commands.arguments import add_store_options, parser


def main(argv: list[str]) -> None:
    """`alphagrad export`."""
    description = "Writes a study as a tidy table, a row for each run; with --curves a row for each step of each run."
    p = parser("export", description, "alphagrad export 3f2a --curves eval/return --to curves.csv")
    p.add_argument("study", nargs="?", help="a study's or run's id or its beginning; default: the newest study")
    p.add_argument("--to", metavar="FILE", required=True, help="FILE.parquet or FILE.csv")
    p.add_argument("--curves", nargs="*", metavar="METRIC", help="steps and values of these metrics, or of all")
    add_store_options(p)
    args = p.parse_args(argv)
    from pathlib import Path

    from alphagrad.lab.evidence.frames import checked, frame, write

    file = checked(Path(args.to))
    curves = args.curves is not None and (args.curves or True)
    table = frame(args.study, curves=curves, uri=args.uri, output_root=args.output_root, experiment=args.experiment)
    write(table, file)
    say(f"{len(table):,} rows of {len(table.columns)} columns are in {file}")
