"""The command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

from alphagrad.common.errors import ConfigError
from alphagrad.common.interrupts import no_exit
from alphagrad.common.words import LONGEST_LINE, cut, plain, say, squeezed
from alphagrad.lab.commands.arguments import add_store_options, everywhere, parser
from alphagrad.lab.commands.shell import COMPLETION, HELP


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns 0, 1 for a failed run, 2 for a wrong setting, 130 or 143 when interrupted."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    traceback = "--traceback" in argv
    try:
        argv, traceback, allowed = everywhere(argv)
        if not argv or argv[0] in ("-h", "--help", "help"):
            print(HELP, end="")
            return 0
        command = COMMANDS.get(argv[0])
        if command is None:
            known = ", ".join(c for c in COMMANDS if c not in HIDDEN)
            raise ConfigError(f"{cut(argv[0])}: no such command; there are {known}")
        if argv[0] not in ALONE and (lacking := not_installed()):
            remedy = "`pip install alphagrad`, without --no-deps, installs what is missing"
            raise ConfigError(f"{argv[0]}: needs {', '.join(lacking)}; {remedy}")
        if argv[0] not in PARALLEL and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from alphagrad.common.torchrun import alone

            alone(f"alphagrad {argv[0]}")
        command = no_exit()(command)
        if not allowed:
            return command(argv[1:]) or 0
        from alphagrad.lab.config.targets import allowing

        with allowing(allowed):
            return command(argv[1:]) or 0
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":
            print("alphagrad: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if traceback:
            raise
        return explain(error)


def script() -> int:
    """:func:`main` as a program of its own."""
    if "WORLD_SIZE" not in os.environ:
        return main()
    try:
        status = main()
    except SystemExit as left:
        status = int(left.code or 0)
    # torch keeps the connection's threads after it is closed; one that wakes while the interpreter is taken
    # apart now and then aborts the process, and torchrun then ends the others. Everything is closed by now.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def explain(error: Exception) -> int:
    """Says an error in a line for each thing that is wrong; returns the exit status."""
    from alphagrad.common.errors import ConfigError, JobFailed
    from alphagrad.lab.store.address import hide

    if isinstance(error, ConfigError):
        for line in hide(str(error)).split("\n"):
            say(f"alphagrad: {cut(line, LONGEST_LINE)}", err=True)
        return 2
    rank = os.environ.get("RANK", "0")
    who = "alphagrad" if rank == "0" else f"alphagrad, process {rank}"
    told = "" if isinstance(error, JobFailed) else f"{type(error).__name__}: "
    say(f"{who}: {told}{hide(squeezed(error))} (--traceback shows where)", err=True)
    return 1


def not_installed() -> list[str]:
    """What alphagrad's own metadata asks for and is not here, as after ``pip install --no-deps``; extras left out."""
    from importlib.metadata import PackageNotFoundError, distribution, requires

    def lacks(package: str) -> bool:
        try:
            distribution(package)
        except PackageNotFoundError:
            return True
        return False

    try:
        lines = requires("alphagrad") or []
    except PackageNotFoundError:  # started from a checkout that is not installed
        return []
    names = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines if "extra ==" not in line]
    return [name for name in names if lacks(name)]


def show_version(argv: list[str]) -> None:
    """`alphagrad --version`."""
    from alphagrad import __version__

    print(f"alphagrad {__version__}")


def run(argv: list[str]) -> None:
    """`alphagrad run`."""
    from alphagrad.lab.launching.launch import run as launch

    launch(argv)


def tune(argv: list[str]) -> None:
    """`alphagrad tune`."""
    description = (
        "Searches each optimizer's settings in a space of one size (tune/OPTIMIZER.yaml) with one number of trials, in "
        "several independent studies; the median of the studies' best trials is what counts. The same words go on "
        "with a tuning that was interrupted, or raise its budget."
    )
    p = parser("tune", description, "alphagrad tune recipe=dqn_cartpole optimizer=adam,alphagrad --trials 10")
    p.add_argument("overrides", nargs="*", metavar="SETTING=VALUE", help="as for `alphagrad run -m`")
    p.add_argument("--trials", type=int, default=20, metavar="N", help="of each study (default %(default)s)")
    p.add_argument("--studies", type=int, default=5, metavar="N", help="of each optimizer (default %(default)s)")
    p.add_argument("--metric", default="eval/return", help="a run's last value counts (default %(default)s)")
    p.add_argument("--minimize", action="store_true", help="less is better")
    p.add_argument("--sampler", choices=("tpe", "random"), default="tpe", help="default %(default)s")
    p.add_argument("--no-pruning", action="store_true", help="train every trial to its end")
    args = p.parse_intermixed_args(argv)
    from rich.console import Console

    from alphagrad.lab.tuning.search import tune as search
    from alphagrad.lab.tuning.verdict import Plan, table

    plan = Plan(args.trials, args.studies, args.metric, args.minimize, args.sampler, not args.no_pruning)
    Console().print(table(search(args.overrides, plan), plan))


def ls(argv: list[str]) -> None:
    """`alphagrad ls`."""
    parser("ls", "Recipes, variants and baselines, a line each; yours in $ALPHAGRAD_CONF too.").parse_args(argv)
    from alphagrad.lab.config.catalogue import render

    print(plain(render(), lines=True))


def alpha(argv: list[str]) -> None:
    """`alphagrad alpha`."""
    description = "The α every tensor of a recipe's network gets under each rule, with d, fan-in and the total."
    p = parser("alpha", description, "alphagrad alpha recipe=dqn_cartpole optimizer=sqrt_dim alpha.k=3")
    p.add_argument("overrides", nargs="*", metavar="SETTING=VALUE", help="as for `alphagrad run`")
    overrides = p.parse_args(argv).overrides
    from rich.console import Console
    from rich.measure import Measurement

    from alphagrad.lab.commands.alpha_table import alpha_table
    from alphagrad.lab.config.compose import compose, hydra_initialized

    with hydra_initialized():
        tables = alpha_table(compose(overrides))
    console = Console()
    for table in tables:
        # a number cut short would be a wrong number: wider than the terminal if need be
        needed = Measurement.get(console, console.options.update(width=1000), table).maximum
        Console(width=max(console.width, needed)).print(table)


def report(argv: list[str]) -> None:
    """`alphagrad report`."""
    p = parser("report", "A study's table with intervals, from the store alone.", "alphagrad report --plot curves.png")
    p.add_argument("study", nargs="?", help="a study's run id or its beginning; default: the newest")
    p.add_argument("--plot", metavar="FILE", help="also draw the metric over the steps (png, pdf, svg)")
    p.add_argument("--metric", default="eval/return", help="what to draw (default %(default)s)")
    add_store_options(p)
    args = p.parse_args(argv)
    from pathlib import Path

    from rich.console import Console

    from alphagrad.lab.evidence.report import plot, table
    from alphagrad.lab.evidence.results import Results
    from alphagrad.lab.store.connection import store_uri

    results = Results(store_uri(args.uri, args.output_root), args.experiment)
    study = results.study(args.study)
    say(f"Study {study.title}")
    Console().print(table(study))
    if args.plot:
        plot(results, study, args.metric, Path(args.plot))
        say(f"{args.metric} drawn in {args.plot}")


def ui(argv: list[str]) -> int:
    """`alphagrad ui`."""
    p = parser("ui", "Starts MLflow's server on the store in use, on this machine only.", "alphagrad ui --port 5001")
    p.add_argument("--port", type=int, default=5000, help="default %(default)s")
    add_store_options(p)
    args = p.parse_args(argv)
    from alphagrad.common.interrupts import closing_runs_on_signals
    from alphagrad.lab.commands.ui import serve

    with closing_runs_on_signals():
        return serve(args.uri, args.output_root, args.experiment, args.port)


def resume(argv: list[str]) -> None:
    """`alphagrad resume`."""
    description = "Goes on with a run, the stack it is a member of, or a study, from its last checkpoint."
    p = parser(
        "resume", description, "alphagrad resume outputs/dqn_cartpole/adam/seed0-1a2b3c4d/20260101-120000-000000"
    )
    p.add_argument("what", metavar="RUN_ID|FOLDER", help="a run id or its beginning, or the folder of a run or study")
    add_store_options(p, experiment=False)
    p.add_argument("--new-store", action="store_true", help="the run's store is lost: go on in another (--uri)")
    args = p.parse_args(argv)
    from alphagrad.lab.commands.resume import resume as go_on
    from alphagrad.lab.config.compose import register
    from alphagrad.lab.launching.launch import run as launch

    register()
    go_on(args.what, args.uri, args.output_root, launch, args.new_store)


def status(argv: list[str]) -> None:
    """`alphagrad status`."""
    p = parser("status", "How far a study is: jobs finished, running, failed, missing.", "alphagrad status 3f2a")
    p.add_argument("study", nargs="?", help="a study's run id or its beginning; default: the newest")
    add_store_options(p)
    args = p.parse_args(argv)
    from alphagrad.lab.evidence.results import Results
    from alphagrad.lab.evidence.status import progress, show, summary
    from alphagrad.lab.store.connection import store_uri

    heading, states, under = progress(Results(store_uri(args.uri, args.output_root), args.experiment), args.study)
    for line in (heading, summary(states), f"in {under}"):
        say(line)
    show(states, under)


def watch(argv: list[str]) -> None:
    """`alphagrad watch`."""
    description = "Renders a run's last policy to a video file, without exploration noise and without a screen."
    p = parser("watch", description, "alphagrad watch 3f2a --episodes 3 --out cheetah.gif")
    p.add_argument("what", metavar="RUN_ID|FOLDER", help="a run id or its beginning, or a run's folder")
    p.add_argument("--out", metavar="FILE", help="mp4, webm or gif (default: watch.mp4 in the run's folder)")
    p.add_argument("--episodes", type=int, default=1, help="one after the other (default %(default)s)")
    p.add_argument("--seed", type=int, default=0, help="of the first episode (default %(default)s)")
    p.add_argument("--best", action="store_true", help="the best evaluated policy instead of the last")
    p.add_argument("--artifact", action="store_true", help="also log the video to the run, under videos/")
    add_store_options(p, experiment=False)
    args = p.parse_args(argv)
    from pathlib import Path

    from alphagrad.lab.commands.watch import watch as render

    out = Path(args.out) if args.out else None
    seen = render(args.what, args.uri, args.output_root, out, args.episodes, args.seed, args.best, args.artifact)
    returns = ", ".join(f"{value:.1f}" for value in seen.returns)
    say(f"{seen.file}: {seen.checkpoint.name}, episodic return {returns}")


def completion(argv: list[str]) -> None:
    """`alphagrad completion bash`."""
    p = parser("completion", "Prints a script for your shell.", 'eval "$(alphagrad completion bash)"')
    p.add_argument("shell", choices=["bash"])
    p.parse_args(argv)
    print(COMPLETION, end="")


def complete(argv: list[str]) -> None:
    """Answers the completion script."""
    from alphagrad.lab.commands.shell import complete as answer

    answer([c for c in COMMANDS if c not in HIDDEN], run)


COMMANDS = {
    "run": run,
    "tune": tune,
    "resume": resume,
    "status": status,
    "ls": ls,
    "alpha": alpha,
    "report": report,
    "watch": watch,
    "ui": ui,
    "completion": completion,
    "complete": complete,
    "--version": show_version,
}
PARALLEL = ("run", "resume")
"""Commands that torchrun may start."""
ALONE = ("completion", "--version")
"""Commands that need no other package, and so work beside the optimizer alone."""
HIDDEN = ("complete", "--version")
"""Commands that are not listed: they complete a line, or are a flag."""


if __name__ == "__main__":
    sys.exit(script())
