"""The jobs of a multirun."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from functools import cache
from itertools import product

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from alphagrad.common.errors import ConfigError
from alphagrad.common.words import cut, listed, say, shown, squeezed
from alphagrad.lab.config import compose
from alphagrad.lab.config.overrides import parsed

MOST_JOBS = 100_000
"""Of a study."""


def sweep_parameters(overrides: Sequence[str]) -> list[str]:
    """What the configuration itself sweeps over (``hydra.sweeper.params``), as overrides."""
    fixed = [o.input_line or "" for o in parsed(of_study(overrides)) if not o.is_sweep_override()]
    params = compose.hydra_config(fixed).hydra.sweeper.get("params") or {}
    if not isinstance(params, DictConfig) and params:
        raise ConfigError(f"hydra.sweeper.params={shown(params)}: must hold settings, each with its values")
    return [f"{key!s}={value}" for key, value in params.items()]


def of_study(overrides: Sequence[str]) -> list[str]:
    """The overrides without those that only the jobs can take: settings of what is swept, as a choice of it alone may
    have them (``optimizer=adam,adamw optimizer.betas=[0.9,0.99]``)."""
    read = parsed(overrides)
    swept = {o.get_key_element() for o in read if o.is_sweep_override()}
    if swept & {"recipe", "experiment"}:
        kept = compose.BOOKKEEPING
        return [o.input_line or "" for o in read if _part(o) in kept or "." not in o.get_key_element()]
    if "optimizer" in swept:
        swept |= set(compose.SLOTS)
    return [o.input_line or "" for o in read if "." not in o.get_key_element() or _part(o) not in swept]


def _part(override: Override) -> str:
    return override.get_key_element().lstrip("+~").partition(".")[0]


def jobs_of(overrides: Sequence[str], announce: bool = False) -> list[list[str]]:
    """The override lists of a multirun: the product of all comma-separated values and ranges.

    A setting that only some of the swept optimizers or parts of their rule have goes to those; the others run
    once for what is left, which ``announce`` prints. So ``optimizer=adam,alphagrad alpha.value=93,186`` is three
    jobs. Where none has it, it stays, and composing the job says what is wrong. A continuous range, which a
    sweeper chooses from, gives no jobs.
    """
    choices: dict[str, list[str]] = {}
    for override in parsed(overrides):
        key = override.get_key_element()
        if override.is_discrete_sweep():
            choices[key] = [f"{key}={value}" for value in choices_of(override)]
        elif override.is_sweep_override():
            return []
        else:
            choices[key] = [override.input_line or ""]
    if math.prod(map(len, choices.values())) > MOST_JOBS:
        raise ConfigError(f"{listed(overrides)}: makes more than {MOST_JOBS:,} jobs")
    jobs = [list(job) for job in product(*choices.values())]
    swept = [key for key in ("optimizer", *compose.SLOTS) if len(choices.get(key, [])) > 1]
    return _for_their_optimizers(jobs, swept, announce) if swept else jobs


def choices_of(override: Override) -> list[str]:
    """The values of a setting that is swept, as Hydra writes them.

    Raises:
        ConfigError: there are none, or too many.
    """
    line = cut(override.input_line)
    sweep = override.value()
    if isinstance(sweep, Glob):
        raise ConfigError(f"{line}: glob() is not supported; write the names out, with commas between them")
    if isinstance(sweep, RangeSweep):
        start, stop, step = sweep.start or 0, sweep.stop, sweep.step
        if stop is None or not step or not all(map(math.isfinite, (start, stop, step))):
            raise ConfigError(
                f"{line}: must be range(start,stop) or range(start,stop,step) of finite numbers, step not 0"
            )
        if not 0 < (stop - start) / step <= MOST_JOBS:
            raise ConfigError(f"{line}: must hold between 1 and {MOST_JOBS:,} values")
    try:
        values = [str(value) for value in override.sweep_string_iterator()]
    except (HydraException, ValueError, TypeError, OverflowError) as error:
        raise ConfigError(f"{line}: cannot be swept ({squeezed(error, 200)})") from error
    if not values:
        raise ConfigError(f"{line}: has no values")
    return values


def _for_their_optimizers(jobs: list[list[str]], swept: Collection[str], announce: bool) -> list[list[str]]:
    """The jobs without the settings that their choice of what is ``swept`` lacks and another has, each once."""
    composed = cache(_composed)
    known = {tuple(job): _lacking(job, composed) for job in jobs}
    keys = {_key(override) for job in jobs for override in job}
    hopeless = {key for key in keys if all(key in known[tuple(job)] for job in jobs)}
    kept: dict[tuple[str, ...], None] = {}
    notices: dict[str, None] = {}
    for job in jobs:
        dropped = known[tuple(job)] - hopeless
        kept.setdefault(tuple(o for o in job if _key(o) not in dropped))
        chosen = " ".join(o for o in job if _key(o) in swept)
        notices.update(dict.fromkeys(f"{key} does not apply to {chosen}, which runs without it" for key in dropped))
    for notice in notices if announce else ():
        say(f"alphagrad: {notice}", err=True)
    return [list(job) for job in kept]


def is_sweep(override: str) -> bool:
    """Whether an override gives several values."""
    return bool(OverridesParser.create().parse_override(override).is_sweep_override())


def _lacking(job: Sequence[str], composed: Callable[[tuple[str, ...]], DictConfig | None]) -> set[str]:
    """The keys of a job's settings of optimizer and slots that its optimizer does not have."""
    groups = [o for o in job if _key(o) in ("recipe", "optimizer", "experiment")]
    config = composed(tuple(groups))
    if config is None:
        return set()  # composing the job itself will say what is wrong
    slots = [o for o in job if _key(o) in compose.SLOTS]
    lacking = {_key(o) for o in slots if _key(o) not in config}
    config = composed((*groups, *(o for o in slots if _key(o) not in lacking)))
    for override in job:
        key = _key(override)
        if config is not None and key.startswith(tuple(f"{s}." for s in (*compose.SLOTS, "optimizer"))):
            parent, _, name = key.rpartition(".")
            node = OmegaConf.select(config, parent)
            if not isinstance(node, DictConfig) or name not in node:
                lacking.add(key)
    return lacking


def _composed(overrides: tuple[str, ...]) -> DictConfig | None:
    try:
        return compose.compose(overrides)
    except ConfigError:
        return None


def _key(override: str) -> str:
    """The setting an override names; additions (``+key``) and removals (``~key``) are not looked at."""
    return override.partition("=")[0]
