"""All jobs of a command, composed and checked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from alphagrad.common.errors import ConfigError
from alphagrad.common.words import cut
from alphagrad.lab.config import compose, sweep
from alphagrad.lab.config.alike import compose_all
from alphagrad.lab.config.build import build, fits_in_memory, job_settings
from alphagrad.lab.config.catalogue import explaining
from alphagrad.lab.config.overrides import STACKED, check_hydra, check_study, parsed
from alphagrad.lab.launching.dispatch import check_farm
from alphagrad.lab.launching.jobs import CheckedJob, Jobs
from alphagrad.lab.launching.plan import check_stacks
from alphagrad.lab.store.connection import check_places, check_writable


def checked_jobs(overrides: Sequence[str], multirun: bool, config_dir: str | None) -> Jobs:
    """The jobs that would run, by their keys; each is built once on trial, those that differ in seed together.

    Raises:
        ConfigError: a setting of any of them is wrong.
    """

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
        configs = compose_all(lists)
        full = compose.hydra_config(lists[0])
        check_hydra(full, base)
        if multirun:
            check_farm(full.hydra.launcher)
        places: set[tuple[str | None, str, str | None]] = set()
        built: set[str] = set()
        stacked, fit = multirun and full.hydra.launcher._target_ == STACKED, True
        for job_words, config in zip(lists, configs, strict=True):
            like = compose.config_hash(config)
            if like in built:
                settings = job_settings(config)
            else:
                with explaining(job_words):
                    job = build(config)
                settings = job.settings
                shape = min(settings.stack.max_runs, len(configs)), min(settings.stack.processes, len(configs))
                fit = fit and (not stacked or fits_in_memory(job, *shape))
            built.add(like)
            places.add((settings.tracking.uri, settings.output_root, settings.tracking.artifacts))
        if not fit:  # grouping many jobs takes time, so only where the largest stacks that could be would not fit
            check_stacks(configs, settings.stack.max_runs, settings.stack.processes)
        for place in sorted(places, key=str):
            check_places(*place)
        setting = "hydra.sweep.dir" if multirun else "hydra.run.dir"
        if any(override.get_key_element() == setting for override in words):
            folder = str(OmegaConf.select(full, setting))
            check_writable(setting, cut(folder), Path(folder).expanduser())
        pairs = zip(lists, configs, strict=True)
        return Jobs({compose.job_key(config): CheckedJob(tuple(job), config) for job, config in pairs})
