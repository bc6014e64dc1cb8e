"""`alphagrad resume`: goes on with a run, the stack it belongs to, or a study."""

from __future__ import annotations

from alphagrad.lab.commands.arguments import add_store_options, parser


def main(argv: list[str]) -> None:
    """`alphagrad resume`."""
    description = "Goes on with a run, the stack it is a member of, or a study, from its last checkpoint."
    p = parser(
        "resume", description, "alphagrad resume outputs/dqn_cartpole/adam/seed0-1a2b3c4d/20260101-120000-000000"
    )
    p.add_argument("what", metavar="RUN_ID|FOLDER", help="a run id or its beginning, or the folder of a run or study")
    add_store_options(p, experiment=False)
    p.add_argument("--new-store", action="store_true", help="the run's store is lost: go on in another (--uri)")
    args = p.parse_args(argv)
    from alphagrad.lab.commands.run import run as launch
    from alphagrad.lab.config.compose import register
    from alphagrad.lab.launching.resume import resume as go_on

    register()
    go_on(args.what, args.uri, args.output_root, launch, args.new_store)
