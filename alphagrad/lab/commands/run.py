"""`alphagrad run`: everything is checked, then Hydra takes over."""

from __future__ import annotations

import argparse
import difflib
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hydra import version
from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from alphagrad.common import ranks
from alphagrad.common.errors import ConfigError, FailFast, JobFailed, StorageLost, Terminated
from alphagrad.common.words import cut, say, squeezed
from alphagrad.lab.config import compose
from alphagrad.lab.config.catalogue import help_text
from alphagrad.lab.config.complaints import as_set, one_line
from alphagrad.lab.config.overrides import as_setting, parsed, without_effect
from alphagrad.lab.config.sweep import of_study
from alphagrad.lab.store.address import hide

if TYPE_CHECKING:
    from alphagrad.lab.launching.board import Boards
    from alphagrad.lab.launching.jobs import Jobs
    from alphagrad.lab.launching.study import Study
    from alphagrad.lab.training.torchrun import Leader

LOG = logging.getLogger("alphagrad")
SHOWS = ("-h", "--help", "--hydra-help", "-c", "--cfg", "-i", "--info", "-sc", "--shell-completion", "--version")
"""Flags that print something and train nothing."""
Task = Callable[[DictConfig], float | None]


def main(argv: list[str]) -> None:
    """`alphagrad run`."""
    run(argv)


def run(arguments: Sequence[str], resumed: Path | None = None) -> None:
    """Runs ``alphagrad run ARGUMENTS``; of a study's folder that is ``resumed`` nothing where it is finished.

    Raises:
        ConfigError: a setting is wrong; nothing was started and nothing written.
        Exception: whatever a job raised, after the other jobs have ended.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach the caller instead of being printed by Hydra
    args = parse(arguments)
    register()
    if any(argument.partition("=")[0] in SHOWS for argument in arguments):
        show(args)
        return
    if args.multirun:
        ranks.alone("alphagrad run -m")
    from alphagrad.lab.launching.check import checked_jobs
    from alphagrad.lab.training.torchrun import lead

    def work(leader: Leader) -> None:
        try:
            jobs = checked_jobs(args.overrides, args.multirun, args.config_dir)
        except ConfigError as error:
            raise ConfigError(as_set(str(error), args.overrides)) from error
        except KeyboardInterrupt:
            say("alphagrad: interrupted; nothing was begun", err=True)
            raise KeyboardInterrupt("told") from None
        for line in without_effect(parsed(args.overrides), args.multirun):
            say(f"alphagrad: {line}", err=True)
        if args.multirun:
            try:
                run_study(jobs, list(arguments), args, resumed)
            except StorageLost as error:
                raise StorageLost(error.told, "the same command goes on") from error
        else:
            run_alone(args, leader)

    lead(work)


def run_alone(args: argparse.Namespace, leader: Leader) -> None:
    """Runs one job; raises what it raised, past Hydra, which has words of its own for every exception."""
    train, raised = task_of(leader), list[Exception]()

    def task(config: DictConfig) -> float | None:
        try:
            return train(config)
        except Exception as error:
            raised.append(error)
            return None

    through_hydra(args, task)
    if raised:
        raise raised[0]


def register() -> None:
    """Makes our configuration, sweeper and launchers known to Hydra."""
    Plugins.instance()  # its search loads Hydra's modules anew: ours may be imported only after it
    # not `import hydra_plugins.alphagrad`: where that search has loaded it, the package does not name it
    from hydra_plugins.alphagrad import register as register_plugins

    compose.register()
    register_plugins()


def show(args: argparse.Namespace) -> None:
    """What prints something and trains nothing: help, or the configuration."""
    try:
        if not ranks.is_first():
            return
        if args.help:
            for line in help_text(args.overrides, args.config_dir).splitlines():
                say(line)
        else:
            through_hydra(args, lambda config: None)
    except SystemExit as left:  # Hydra's way out
        raise Terminated(left.code) from left
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        with compose.hydra_initialized():  # the message lists what there is
            raise ConfigError(one_line(error, args.overrides, compose.hydra_config)) from error


def through_hydra(args: argparse.Namespace, task: Task) -> None:
    """What ``hydra.main`` does with words of the command line, here with those that were read already."""
    version.setbase("1.3")
    _run_hydra(
        args=args,
        args_parser=get_args_parser(),
        task_function=task,
        config_path=f"pkg://{compose.CONFIG_MODULE}",
        config_name=compose.CONFIG_NAME,
    )


def task_of(leader: Leader | None = None, boards: Boards | None = None) -> Task:
    """What Hydra calls for each job; it returns what an optimizing sweeper maximizes or minimizes.

    Args:
        leader: of the processes under torchrun.
        boards: of the study that the jobs are of.
    """
    from alphagrad.lab.evidence.status import near
    from alphagrad.lab.launching.board import announce
    from alphagrad.lab.launching.resume import told
    from alphagrad.lab.records.run import reason_of
    from alphagrad.lab.training.job import assignment_of
    from alphagrad.lab.training.runner import run_stack

    def task(config: DictConfig) -> float | None:
        folder = Path(HydraConfig.get().runtime.output_dir)
        try:
            job = assignment_of(config, HydraConfig.get().overrides.task, folder)
            line = None if boards is None else boards.line(int(HydraConfig.get().job.num))
            (outcome,) = run_stack([job], line, leader=leader)
        except (KeyboardInterrupt, Terminated) as stop:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # the study says how it goes on
            raise told(stop, folder) from None
        except Exception as error:
            # for the job's own log file, not the terminal; Hydra keeps only the first of a multirun
            LOG.info("failed", exc_info=True)
            if boards is not None:
                boards.ended(int(HydraConfig.get().job.num), f"failed, {reason_of(error)}", str(folder))
                if config.study.fail_fast:
                    raise FailFast(reason_of(error)) from error
            raise
        if boards is not None:
            boards.ended(int(HydraConfig.get().job.num), outcome.told)
        else:
            announce(f"{config.recipe.name} {job.title} seed={job.seed}", outcome.told)
            say(f"in {near(str(folder))}")
        return outcome.score

    return task


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Hydra's flags and the settings; each setting can be read, and may be set.

    Raises:
        ConfigError: a flag is unknown, or one of Hydra's that says what else is run; or a setting is none.
    """
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        form = ""
        for word, after in zip(arguments, [*arguments[1:], ""], strict=True):
            setting = word.startswith("-") and "=" in word and "ignored explicit argument" in message
            if setting or (word.startswith("-") and "unrecognized" in message and word in message and word.lstrip("-")):
                flags = [flag for action in parser._actions for flag in action.option_strings]
                meant = difflib.get_close_matches(word, flags, 1, 0.8)
                form = (
                    f"; did you mean {meant[0]}?"
                    if meant
                    else f"; settings have no dashes: {cut(as_setting(word, '' if '=' in after else after))}"
                )
        raise ConfigError(f"{squeezed(message, 500)}{form}; `alphagrad run --help` lists the flags")

    def leave(status: int = 0, message: str | None = None) -> NoReturn:
        raise Terminated(status)

    parser.error, parser.exit = refuse, leave  # type: ignore[method-assign]
    args: argparse.Namespace = parser.parse_intermixed_args(list(arguments))
    for flag in ("config_path", "config_name", "experimental_rerun"):
        if getattr(args, flag, None) is not None:
            name = flag.replace("_", "-")
            raise ConfigError(f"--{name}: is not for alphagrad; your own configuration goes into $ALPHAGRAD_CONF")
    parsed(args.overrides)
    return args


def run_study(jobs: Jobs, arguments: list[str], args: argparse.Namespace, resumed: Path | None = None) -> None:
    """Runs the jobs of a multirun as a study, and says at its end how each ended."""
    from alphagrad.lab.evidence.status import near
    from alphagrad.lab.launching.board import Boards
    from alphagrad.lab.launching.resume import told
    from alphagrad.lab.launching.study import NothingLeft, started

    noted: dict[str, Any] = {"arguments": [hide(a) for a in arguments], "cwd": os.getcwd()}
    try:
        with started(jobs, args.overrides, args.config_dir, noted, resumed) as running:
            left = [job for key, job in jobs.items() if running is None or key not in running.skipped]
            args.overrides = of_study(args.overrides)
            if running is None:
                with Boards(left) as boards:
                    through_hydra(args, task_of(boards=boards))
                return
            say_what_is_left_alone(running, len(jobs))
            say(f"alphagrad: {len(left)} jobs, in {near(str(running.folder))}", err=True)
            quoted = str(running.folder).replace("\\", "\\\\").replace("'", "\\'")
            args.overrides = [*args.overrides, f"hydra.sweep.dir='{quoted}'"]
            interrupted = False
            try:
                with Boards(left) as boards:
                    through_hydra(args, task_of(boards=boards))
            except FailFast as stop:
                raise JobFailed(f"{stop}; {FailFast.SAID}") from stop
            except (KeyboardInterrupt, Terminated) as stop:
                interrupted = True
                raise told(stop, running.folder) from None
            finally:
                if not interrupted:
                    say_how_it_ended(running)
                    conclude_study(running, noted["arguments"])
    except NothingLeft as finished:
        say(f"{resumed or finished}: is finished, nothing is left to do")


def say_what_is_left_alone(running: Study, count: int) -> None:
    """Of a study that goes on: how many of its jobs are not run this time."""
    if not running.goes_on:
        return
    states = running.states()
    lives = [states[job].life for job in running.skipped if job in states]
    done = f"{sum(life.finished for life in lives)} of {count} jobs are finished"
    statuses = Counter(life.status.lower() for life in lives if not life.finished)
    others = "".join(f", {n} {status} left alone" for status, n in statuses.items())
    say(f"alphagrad: the study goes on; {done}{others}", err=True)


def conclude_study(running: Study, arguments: Sequence[str]) -> None:
    """Description, figures and charts of the study in the store; a store that fails costs no more than these."""
    from alphagrad.lab.evidence.conclusion import conclude
    from alphagrad.lab.evidence.results import Results

    client, run_id = running.tracker.client, running.tracker.run_id
    try:
        conclude(Results.of(client), client.get_run(run_id), arguments)
    except (StorageLost, OSError) as error:
        LOG.warning("%s: the study's description and figures could not be written (%s)", running.folder, error)


def say_how_it_ended(running: Study) -> None:
    """A line, and a table of the jobs that are not finished."""
    from alphagrad.lab.evidence.status import show_jobs, summary

    states = list(running.states().values())
    say(f"{running.folder}: {summary(states)}")
    unfinished = [state for state in states if not state.life.finished]
    if unfinished:
        show_jobs(unfinished, str(running.folder))
