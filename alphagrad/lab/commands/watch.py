"""`alphagrad watch`: a run's policy at work, as a video file."""

from __future__ import annotations

from alphagrad.common.words import say
from alphagrad.lab.commands.arguments import add_store_options, parser, whole


def main(argv: list[str]) -> None:
    """`alphagrad watch`."""
    description = "Renders a run's last policy to a video file, without exploration noise and without a screen."
    p = parser("watch", description, "alphagrad watch 3f2a --episodes 3 --out cheetah.gif")
    p.add_argument("what", metavar="RUN_ID|FOLDER", help="a run id or its beginning, or a run's folder")
    p.add_argument("--out", metavar="FILE", help="mp4, webm or gif (default: watch.mp4 in the run's folder)")
    p.add_argument("--episodes", type=whole, default=1, help="one after the other (default %(default)s)")
    p.add_argument("--seed", type=whole, default=0, help="of the first episode (default %(default)s)")
    p.add_argument("--best", action="store_true", help="the best evaluated policy instead of the last")
    p.add_argument("--artifact", action="store_true", help="also log the video to the run, under videos/")
    add_store_options(p, experiment=False)
    args = p.parse_args(argv)
    from pathlib import Path

    from alphagrad.lab.inspection.video import watch as render

    out = Path(args.out) if args.out else None
    seen = render(args.what, args.uri, args.output_root, out, args.episodes, args.seed, args.best, args.artifact)
    returns = ", ".join(f"{value:.1f}" for value in seen.returns)
    say(f"{seen.file}: {seen.checkpoint.name}, episodic return {returns}")
