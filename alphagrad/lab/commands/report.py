"""`alphagrad report`: tables, figures and pages of studies, from the store alone."""

from __future__ import annotations

import argparse

from alphagrad.common.errors import ConfigError
from alphagrad.common.files import check_target
from alphagrad.common.words import listed, say
from alphagrad.lab.commands.arguments import add_store_options, parser


def main(argv: list[str]) -> None:
    """`alphagrad report`."""
    args = _arguments(argv)
    from pathlib import Path

    from alphagrad.lab.evidence.page import rendering
    from alphagrad.lab.evidence.page.making import page_of
    from alphagrad.lab.evidence.report import study_table
    from alphagrad.lab.evidence.results import Results
    from alphagrad.lab.evidence.tables import say_wrapped, show
    from alphagrad.lab.store.address import store_uri

    pages = [(f"--{name}", getattr(rendering, name), getattr(args, name)) for name in ("html", "markdown")]
    for option, file in [*((option, file) for option, _, file in pages), ("--plot", args.plot)]:
        if file is not None:
            check_target(option, Path(file))
    results = Results(store_uri(args.uri, args.output_root), args.experiment)
    parents = [results.named(study) for study in dict.fromkeys(args.study or [None])]
    for parent in parents:
        study = results.comparison(parent)
        say_wrapped(study.title)
        show(study_table(study))
    if args.plot and not args.figure:
        _plot(results, parents, args)
    if args.html is None and args.markdown is None and not args.figure:
        return
    page = page_of(results, [parent for parent in parents if parent is not None], args.target)
    if args.figure:
        _figure(page.pictures(), args)
    for option, written, file in pages:
        if file is not None:
            rendering.write(page, Path(file), option, written)
            say(f"the report is in {file}")


def _arguments(argv: list[str]) -> argparse.Namespace:
    description = "Tables with intervals of studies, and figures and pages of them, from the store alone."
    p = parser("report", description, "alphagrad report --html report.html")
    p.add_argument("study", nargs="*", help="ids of studies or runs, or their beginnings; default: the newest study")
    p.add_argument("--html", metavar="FILE", help="write all there is to see as one page that needs no network")
    p.add_argument("--markdown", metavar="FILE", help="the same in Markdown")
    p.add_argument("--target", type=float, help="value of what runs are judged by: when was it reached?")
    p.add_argument("--plot", metavar="FILE", help="draw the metric over the steps (png, pdf, svg)")
    p.add_argument("--metric", help="what to draw (default: what the runs are judged by)")
    p.add_argument("--figure", metavar="NAME", help="with --plot FILE.svg: this figure of the page instead")
    p.add_argument("--log", action="store_true", help="the metric's axis is logarithmic")
    add_store_options(p)
    args = p.parse_args(argv)
    if args.figure and not (args.plot and args.plot.endswith(".svg")):
        raise ConfigError(f"--figure={args.figure}: needs --plot FILE.svg, the file to draw it in")
    return args


def _plot(results: object, parents: list, args: argparse.Namespace) -> None:
    """A metric over the steps."""
    from pathlib import Path

    from alphagrad.lab.evidence.figures import plot
    from alphagrad.lab.evidence.results import Comparison, Results

    assert isinstance(results, Results)
    studies = [results.comparison(parent) for parent in parents]
    title = "; ".join(study.title for study in studies)
    study = Comparison(title, [group for one in studies for group in one.groups])
    metric = args.metric or study.objective()
    plot(results, study, metric, Path(args.plot), args.log)
    say(f"{metric} drawn in {args.plot}")


def _figure(pictures: dict, args: argparse.Namespace) -> None:
    """One of the page's."""
    from pathlib import Path

    from alphagrad.common.files import atomic

    if args.figure not in pictures:
        raise ConfigError(f"--figure={args.figure}: there is no such figure; there are {listed(pictures)}")
    try:
        with atomic(Path(args.plot)) as file:
            file.write_bytes(pictures[args.figure].svg)
    except OSError as error:
        raise ConfigError(f"--plot={args.plot}: cannot be written ({error.strerror or error})") from error
    say(f"{args.figure} drawn in {args.plot}")
