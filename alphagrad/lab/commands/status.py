"""`alphagrad status`: how far a study is."""

from __future__ import annotations

from alphagrad.common.words import say
from alphagrad.lab.commands.arguments import add_store_options, parser


def main(argv: list[str]) -> None:
    """`alphagrad status`."""
    p = parser(
        "status", "How far a study or run is: jobs finished, running, failed, not begun.", "alphagrad status 3f2a"
    )
    p.add_argument("study", nargs="?", help="a study's or run's id or its beginning; default: the newest")
    add_store_options(p)
    args = p.parse_args(argv)
    from alphagrad.lab.evidence.results import Results
    from alphagrad.lab.evidence.status import near, progress, show_jobs, summary
    from alphagrad.lab.evidence.tables import say_wrapped
    from alphagrad.lab.store.address import store_uri

    heading, states, under = progress(Results(store_uri(args.uri, args.output_root), args.experiment), args.study)
    for line in (heading, summary(states)):
        say_wrapped(line)
    say(f"in {near(under)}")  # a folder is in one line, however long, so that it can be copied
    show_jobs(states, under)
