"""`alphagrad run`: everything is checked, then Hydra takes over."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import platform
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alphagrad.lab import compose, processes, sweep
from alphagrad.lab.address import hide
from alphagrad.lab.advice import as_set, one_line
from alphagrad.lab.errors import ConfigError, FailFast, JobFailed, PastHydra, StorageLost, Terminated
from alphagrad.lab.folder import claimed, write_whole
from alphagrad.lab.jobs import Checked, Jobs
from alphagrad.lab.overrides import STACKED, as_setting, check_hydra, check_study, parsed
from alphagrad.lab.words import cut, say, squeezed

LOG = logging.getLogger("alphagrad")
SHOWS = ("-h", "--help", "--hydra-help", "-c", "--cfg", "-i", "--info", "-sc", "--shell-completion", "--version")
"""Flags of Hydra that print something and train nothing."""


@hydra.main(version_base="1.3", config_path=f"pkg://{compose.CONFIG_MODULE}", config_name=compose.CONFIG_NAME)
def task(config: DictConfig) -> float | None:
    """One job; what it returns is what an optimizing sweeper maximizes or minimizes."""
    from alphagrad.lab import metrics
    from alphagrad.lab.runner import assignment_of, run_stack
    from alphagrad.lab.tracking import reason_of

    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        (outcome,) = run_stack([assignment_of(config, HydraConfig.get().overrides.task, folder)])
    except Exception as error:
        # for the job's own log file, not the terminal; Hydra keeps only the first of a multirun
        LOG.info("failed", exc_info=True)
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            print(f"{folder}: failed, {reason_of(error)}", flush=True)
            if config.study.fail_fast:
                raise FailFast(reason_of(error)) from error
            raise
        raise PastHydra(error) from error
    say(f"{folder}: {metrics.headline(outcome.metrics)}")
    return metrics.objective(outcome.metrics)


def run(arguments: Sequence[str], resumed: Path | None = None) -> None:
    """Runs ``alphagrad run ARGUMENTS``; of a study's folder that is ``resumed`` nothing where it is finished.

    Raises:
        ConfigError: a setting is wrong; nothing was started and nothing written.
        Exception: whatever a job raised, after the other jobs have ended.
    """
    sys.argv = ["alphagrad run", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach the caller instead of being printed by Hydra
    compose.register()
    args = parse(arguments)
    if any(argument.partition("=")[0] in SHOWS for argument in arguments):
        try:
            if processes.is_first():
                task()
        except SystemExit as left:  # Hydra's way out
            raise Terminated(left.code) from left
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            with compose.hydra_initialized():  # the message lists what there is
                raise ConfigError(one_line(error, args.overrides, compose.hydra_config)) from error
        return
    if args.multirun:
        processes.alone("alphagrad run -m")
    from alphagrad.lab.following import lead

    def work() -> None:
        try:
            jobs = check(args.overrides, args.multirun, args.config_dir)
        except ConfigError as error:
            raise ConfigError(as_set(str(error), args.overrides)) from error
        if args.multirun:
            try:
                run_study(jobs, list(arguments), args.overrides, args.config_dir, resumed)
            except StorageLost as error:
                raise StorageLost(f"{error}; once that is put right, the same command goes on") from error
        else:
            run_alone()

    lead(work)


def run_alone() -> None:
    """Runs one job; raises what it raised."""
    raised: Exception | None = None
    try:
        task()
    except PastHydra as carrier:
        raised = carrier.error
    if raised is not None:
        raise raised


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Hydra's flags and the settings; each setting can be read, and may be set.

    Raises:
        ConfigError: a flag is unknown, or one of Hydra's that says what else is run; or a setting is none.
    """
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        form = ""
        for word, after in zip(arguments, [*arguments[1:], ""], strict=True):
            if word.startswith("-") and "unrecognized" in message and word in message and word.lstrip("-"):
                form = f"; settings have no dashes: {cut(as_setting(word, '' if '=' in after else after))}"
        raise ConfigError(f"{squeezed(message, 500)}{form}; `alphagrad run --help` lists the flags")

    def leave(status: int = 0, message: str | None = None) -> NoReturn:
        raise Terminated(status)

    parser.error, parser.exit = refuse, leave  # type: ignore[method-assign]
    args: argparse.Namespace = parser.parse_args(list(arguments))
    for flag in ("config_path", "config_name", "experimental_rerun"):
        if getattr(args, flag, None) is not None:
            name = flag.replace("_", "-")
            raise ConfigError(f"--{name}: is not for alphagrad; your own configuration goes into $ALPHAGRAD_CONF")
    parsed(args.overrides)
    return args


def run_study(
    jobs: Jobs,
    arguments: Sequence[str],
    overrides: Sequence[str],
    config_dir: str | None,
    resumed: Path | None = None,
) -> None:
    """Runs the jobs of a multirun as a study, and says at its end how each ended."""
    from alphagrad.lab.provenance import provenance
    from alphagrad.lab.status import show, summary
    from alphagrad.lab.study import ARGUMENTS, LOCK_TAG, newest_unfinished, study
    from alphagrad.lab.tracking import Tracker, tracker_of

    config = next(iter(jobs.values())).config
    root = Path(config.output_root).expanduser().resolve()
    key = hashlib.sha256(" ".join(sorted(jobs)).encode()).hexdigest()[:16]
    lock = root / ".studies" / f"{key}.lock"
    hidden = ("output_root=", "tracking.", "hydra.", "hydra/", "stack.", "checkpoint.", "study.")
    name = " ".join(o for o in overrides if not o.startswith(hidden)) or "study"
    tags = {**provenance(), LOCK_TAG: str(lock), "host": platform.node()}
    with claimed(lock):  # of two who start one study, the second is told
        tracker = tracker_of(config.tracking, config.output_root)
        if not isinstance(tracker, Tracker):
            with jobs.handed_out():
                task()
            return
        if resumed is not None and newest_unfinished(tracker, key) is None:
            say(f"{resumed}: is finished, nothing is left to do")
            return
        folder = sweep_folder(overrides, config_dir)
        with study(tracker, name, key, tags, jobs.titles(), folder, config.study.rerun) as running:
            # at its first start the arguments are noted; a study that goes on keeps its folder
            if not (running.folder / ARGUMENTS).exists():
                noted = {"arguments": [hide(a) for a in arguments], "cwd": os.getcwd()}
                write_whole(running.folder / ARGUMENTS, json.dumps(noted))
            skipped = running.skipped & set(jobs)
            if running.goes_on:
                left_alone = Counter(state.status for job, state in running.states().items() if job in skipped)
                done = f"{left_alone.pop('FINISHED', 0)} of {len(jobs)} jobs are finished"
                others = "".join(f", {n} {status.lower()} left alone" for status, n in left_alone.items())
                say(f"alphagrad: the study goes on; {done}{others}", err=True)
            quoted = str(running.folder).replace("\\", "\\\\").replace("'", "\\'")
            sys.argv = ["alphagrad run", *arguments, f"hydra.sweep.dir='{quoted}'"]
            interrupted = False
            try:
                with jobs.handed_out(skipped):
                    task()
            except FailFast as stop:
                raise JobFailed(f"{stop}; {FailFast.SAID}") from stop
            except (KeyboardInterrupt, Terminated):
                interrupted = True
                raise
            finally:
                if not interrupted:
                    states = list(running.states().values())
                    say(f"{running.folder}: {summary(states)}")
                    unfinished = [state for state in states if state.status != "FINISHED"]
                    if unfinished:
                        show(unfinished, str(running.folder))


def sweep_folder(overrides: Sequence[str], config_dir: str | None = None) -> Path:
    """The folder of a study that begins now."""
    with compose.hydra_initialized(config_dir):
        single = [o for o in overrides if not sweep.is_sweep(o)]
        folder = str(compose.hydra_config(single).hydra.sweep.dir)
    return Path(folder).expanduser().resolve()


def check(overrides: Sequence[str], multirun: bool, config_dir: str | None) -> Jobs:
    """The jobs that would run, by their keys; each is built once on trial, those that differ in seed together.

    Raises:
        ConfigError: a setting of any of them is wrong.
    """
    from alphagrad.lab.build import build, fits_in_memory, job_settings
    from alphagrad.lab.dispatch import check as check_launcher
    from alphagrad.lab.store import check_places, check_writable

    base = None
    if config_dir is not None:
        with compose.hydra_initialized():
            base = compose.hydra_config([])
    with compose.hydra_initialized(config_dir):
        words = parsed(overrides)
        lists = [list(overrides)]
        if multirun:
            check_study(words)
            swept = [*sweep.sweep_parameters(overrides), *overrides]
            lists = sweep.jobs_of(swept, announce=True)
            if not lists:
                ranges = ", ".join(o for o in swept if "interval(" in o)
                raise ConfigError(f"{cut(ranges)}: a continuous range has no list of values; give values or range(a,b)")
        configs = compose.compose_all(lists)
        full = compose.hydra_config(lists[0])
        check_hydra(full, base)
        if multirun:
            check_launcher(full.hydra.launcher)
        places: set[tuple[str | None, str, str | None]] = set()
        built: set[str] = set()
        stacked, fit = multirun and full.hydra.launcher._target_ == STACKED, True
        for config in configs:
            like = compose.config_hash(config)
            if like in built:
                settings = job_settings(config)
            else:
                job = build(config)
                settings = job.settings
                shape = min(settings.stack.max_runs, len(configs)), min(settings.stack.processes, len(configs))
                fit = fit and (not stacked or fits_in_memory(job, *shape))
            built.add(like)
            places.add((settings.tracking.uri, settings.output_root, settings.tracking.artifacts))
        if not fit:  # grouping many jobs takes time, so only where the largest stacks that could be would not fit
            from alphagrad.lab.stacking import check_stacks

            check_stacks(configs, settings.stack.max_runs, settings.stack.processes)
        for place in sorted(places, key=str):
            check_places(*place)
        setting = "hydra.sweep.dir" if multirun else "hydra.run.dir"
        if any(override.get_key_element() == setting for override in words):
            folder = str(OmegaConf.select(full, setting))
            check_writable(setting, cut(folder), Path(folder).expanduser())
        pairs = zip(lists, configs, strict=True)
        return Jobs({compose.job_key(config): Checked(tuple(job), config) for job, config in pairs})
