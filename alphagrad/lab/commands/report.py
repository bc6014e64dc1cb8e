"""`alphagrad report`: a study's table and plots, from the store alone."""

from __future__ import annotations

from alphagrad.common.words import say
from alphagrad.lab.commands.arguments import add_store_options, parser


def main(argv: list[str]) -> None:
    """`alphagrad report`."""
    p = parser("report", "A study's table with intervals, from the store alone.", "alphagrad report --plot curves.png")
    p.add_argument("study", nargs="?", help="a study's or run's id or its beginning; default: the newest study")
    p.add_argument("--plot", metavar="FILE", help="also draw the metric over the steps (png, pdf, svg)")
    p.add_argument("--metric", help="what to draw (default: what the runs are judged by)")
    p.add_argument("--log", action="store_true", help="the metric's axis is logarithmic")
    add_store_options(p)
    args = p.parse_args(argv)
    from pathlib import Path

    from alphagrad.lab.evidence.figures import plot
    from alphagrad.lab.evidence.report import study_table
    from alphagrad.lab.evidence.results import Results
    from alphagrad.lab.evidence.tables import say_wrapped, show
    from alphagrad.lab.store.address import store_uri

    results = Results(store_uri(args.uri, args.output_root), args.experiment)
    study = results.study(args.study)
    say_wrapped(study.title)
    show(study_table(study))
    if args.plot:
        metric = args.metric or study.objective()
        plot(results, study, metric, Path(args.plot), args.log)
        say(f"{metric} drawn in {args.plot}")
