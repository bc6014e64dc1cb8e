"""From a configuration to objects: the one place where settings are checked and ``_target_`` resolved."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from omegaconf import DictConfig, OmegaConf
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError
from torch import nn

from alphagrad.common import ranks
from alphagrad.common.errors import ConfigError
from alphagrad.common.words import cut, shown, size, squeezed
from alphagrad.harness import memory, metrics
from alphagrad.harness.device import device_of
from alphagrad.harness.driver import Observation, OptimizerSpec
from alphagrad.harness.recipe import Capability, Objective, Recipe, Settings
from alphagrad.harness.splits import Splits
from alphagrad.lab.config import targets
from alphagrad.lab.config.optimizers import optimizer_spec
from alphagrad.lab.config.shape import DEFAULTS, SECTIONS, check_shape

MOST_THREADS = max(64, 4 * (os.cpu_count() or 1))
"""Of a run; torch dies of very many."""


class TrackingSettings(Settings):
    """Where runs are recorded."""

    uri: str | None = Field(min_length=1)
    experiment: str = Field(min_length=1)
    artifacts: str | None = Field(min_length=1)
    flush_seconds: PositiveFloat
    retry_seconds: float = Field(ge=0)


class InstrumentSettings(Settings):
    """What optimizers report of single tensors, and how often; ``every`` 0 is never."""

    every: NonNegativeInt
    tensors: PositiveInt
    tau: PositiveFloat
    components: bool = False
    """Whether the gradients' components are held against a Gaussian."""
    details: bool = False
    """Whether cosine, sign flips, kurtosis, signal over noise and the histogram of α·ĝ are measured, too."""


class StackSettings(Settings):
    """How hydra/launcher=stacked divides a study."""

    max_runs: PositiveInt
    processes: PositiveInt


class CheckpointSettings(Settings):
    """When the state of a run is saved, and what is kept."""

    every_seconds: float | None = Field(gt=0)
    every_steps: PositiveInt | None
    keep_last: PositiveInt
    """Of a run that has not finished; 1 is as 2, since the newest may turn out to be damaged."""
    best: str | None = Field(min_length=1)
    best_is: Literal["max", "min"]
    trajectory_every: PositiveInt | None = None
    """Steps between the models that are kept for good; None: none are."""


class StudySettings(Settings):
    """What a study that is started again runs, and when it ends early."""

    rerun: Literal["missing", "failed", "all"]
    fail_fast: bool
    """Whether no job is begun once one has failed."""


class JobSettings(Settings):
    """What every job has, whatever its recipe."""

    seed: int = Field(ge=0, lt=2**63)
    device: str
    threads: int = Field(gt=0, le=MOST_THREADS)
    output_root: str = Field(min_length=1)
    stack: StackSettings
    tracking: TrackingSettings
    checkpoint: CheckpointSettings
    study: StudySettings
    instruments: InstrumentSettings


class OptimizerDefaults(Settings):
    """What optimizers take that are not told otherwise; each takes what it has of them."""

    lr: float | None = Field(default=None, ge=0)
    sgd_lr: float | None = Field(default=None, ge=0)
    alphagrad_lr: float | None = Field(default=None, ge=0)
    adam_eps: float | None = Field(default=None, ge=0)
    clip_grad_norm: float | None = Field(default=None, gt=0)


@dataclass(frozen=True)
class Setup:
    """What a configuration makes: all that a run of it trains with."""

    settings: JobSettings
    recipe: Recipe
    optimizer: OptimizerSpec
    device: torch.device

    @property
    def observation(self) -> Observation:
        """What the optimizers report at each measurement."""
        own = self.settings.instruments
        return Observation(own.tensors, own.tau, own.components, own.details)


def build(config: DictConfig) -> Setup:
    """Checks the whole configuration and constructs what it names.

    Raises:
        ConfigError: a line for every setting that is wrong.
    """
    plain = check_shape(config)
    problems: list[str] = []

    def attempt(make: Callable[[], Any]) -> Any:
        try:
            return make()
        except ConfigError as error:
            problems.append(str(error))
            return None

    settings = attempt(lambda: job_settings(config))
    recipe = attempt(lambda: build_recipe(config))
    named = plain.get("device")
    device = attempt(lambda: device_of(named)) if isinstance(named, str) else None
    defaults = attempt(lambda: validated(OptimizerDefaults, plain.get(DEFAULTS, {}), f"{DEFAULTS}."))
    before = len(problems)
    optimizer = attempt(lambda: optimizer_spec(config, device or torch.device("cpu")))
    if (recipe is None or defaults is None) and len(problems) > before:
        wrong = problems[-1].partition("=")[0].removeprefix("optimizer.")
        if OmegaConf.is_interpolation(config.optimizer, wrong):
            problems.pop()  # it is a value that is told already
    if ranks.count() > 1 and recipe is not None and Capability.SHARDED not in recipe.capabilities:
        problems.append(f"recipe={config.recipe.name}: trains in one process, and torchrun has started several")
    if recipe is not None and optimizer is not None:
        attempt(lambda: check_optimizer(recipe, optimizer))
    if settings is not None and recipe is not None and settings.checkpoint.best is not None:
        best = settings.checkpoint.best
        attempt(lambda: check_metric(f"checkpoint.best={cut(best)}", best, config, recipe))
    if problems:
        raise ConfigError("\n".join(problems))
    assert device is not None
    return Setup(settings, recipe, optimizer, device)


def check_optimizer(recipe: Recipe, spec: OptimizerSpec) -> None:
    """:class:`ConfigError` where a recipe that asks, in ``check_optimizer(spec)``, cannot train with the optimizer."""
    try:
        getattr(recipe, "check_optimizer", lambda spec: None)(spec)
    except ValueError as error:
        raise ConfigError(squeezed(error)) from error


def check_metric(told: str, name: str, config: DictConfig, recipe: Recipe) -> None:
    """:class:`ConfigError` if a recipe that says what it logs never logs a metric."""
    logs = getattr(recipe, "logs", None)
    if logs is None or metrics.is_logged(name, logs):
        return
    near = "".join(f"; did you mean {other}?" for other in difflib.get_close_matches(name, logs, 1))
    has = ", ".join(sorted(logs))
    raise ConfigError(f"{told}: recipe {config.recipe.name} has no such metric; it has {has}{near}")


def fits_in_memory(setup: Setup, runs: int, stacks: int = 1) -> bool:
    """Whether so many stacks of so many runs take no more memory than there is; see :func:`bytes_of`."""
    return stacks * bytes_of(setup.recipe, runs) <= memory.memory()


def check_stack(setup: Setup, runs: int) -> float:
    """What so many runs take, see :func:`bytes_of`; :class:`ConfigError` where that is more than there is."""
    needed, there = bytes_of(setup.recipe, runs), memory.memory()
    if needed > there:
        raise ConfigError(
            f"stack.max_runs={setup.settings.stack.max_runs}: a stack of {runs} runs takes about "
            f"{size(needed)} of memory, and this machine has {size(there)}; give less"
        )
    return needed


def bytes_of(recipe: Recipe, runs: int) -> float:
    """What runs take in memory: about, as their recipe says, or at least, where it does not say."""
    if hasattr(recipe, "bytes_of"):
        return float(recipe.bytes_of(recipe.settings, runs))  # type: ignore[attr-defined]
    return runs * memory.least(recipe.networks)


def job_settings(config: DictConfig) -> JobSettings:
    """What every job has; :class:`ConfigError` with a line for each wrong setting."""
    chosen = {key: config[key] for key in SECTIONS if key in config}  # each resolved where all the others are, too
    plain = {k: OmegaConf.to_container(v, resolve=True) if OmegaConf.is_config(v) else v for k, v in chosen.items()}
    settings: JobSettings = validated(JobSettings, plain, "")
    return settings


def validated(model: type[Settings], values: Any, prefix: str) -> Any:
    """``values`` as the model; :class:`ConfigError` with a line for each wrong one."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = ".".join(str(part) for part in problem["loc"])
            value = "nothing" if problem["type"] == "missing" else shown(problem["input"])
            told = f"{problem['msg'][:1].lower()}{problem['msg'][1:]}"
            if problem["type"] == "model_type":
                told = f"is a section; {_inside(model, problem['loc'], prefix + name, problem['input'])}"
            lines.append(f"{prefix}{name}={value}: {told}")
        raise ConfigError("\n".join(dict.fromkeys(lines))) from error


def _inside(model: type[Settings], loc: tuple[str | int, ...], name: str, value: Any) -> str:
    """The settings of a section that was given a plain value, and the one that the value would suit."""
    inner: Any = model
    for part in loc:
        fields = getattr(inner, "model_fields", {})
        inner = fields[part].annotation if part in fields else None
    fields = getattr(inner, "model_fields", {})
    fitting = next((n for n, f in fields.items() if value is not None and f.annotation is type(value)), None)
    has = f"it has {', '.join(fields)}" if fields else "it has settings of its own"
    return f"give {name}.{fitting}={cut(value)}" if fitting else has


def build_recipe(config: DictConfig) -> Recipe:
    """The recipe of the configuration, its settings checked."""
    section = {str(k): v for k, v in config.recipe.items()}
    target = recipe_class(section.pop("_target_", None))
    plain = {k: OmegaConf.to_container(v, resolve=True) if OmegaConf.is_config(v) else v for k, v in section.items()}
    for name, value in plain.items():
        takes = {"env": _environment, "data": lambda: Splits}.get(name, lambda: nn.Module)
        place = name if OmegaConf.is_interpolation(config.recipe, name) else f"recipe.{name}"
        targets.check_targets(place, value, (takes(),))
    try:
        settings = validated(target.Settings, plain, "recipe.")
    except ConfigError as error:
        text = str(error)
        for key in section:
            if OmegaConf.is_interpolation(config.recipe, key):
                # named where the user sets it
                text = text.replace(f"recipe.{key}.", f"{key}.").replace(f"recipe.{key}=", f"{key}=")
        raise ConfigError(text) from error
    try:
        recipe: Recipe = target(settings)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not hasattr(recipe, "bytes_of") and (needed := bytes_of(recipe, 1)) > memory.memory():
        raise ConfigError(
            f"recipe={section.get('name')}: the weights and gradients of its networks take {size(needed)} of "
            f"memory, and this machine has {size(memory.memory())}; give smaller networks"
        )
    return recipe


def _environment() -> type:
    """What a wrapper is, and makes."""
    import gymnasium

    made: type = gymnasium.Env
    return made


def recipe_class(name: object) -> Any:
    """The recipe that a ``_target_`` names.

    Raises:
        ConfigError: it is not allowed, is not there, or is no recipe.
    """
    target = targets.resolve("recipe", name, (object,))
    settings = getattr(target, "Settings", None)
    parts = all(hasattr(target, part) for part in ("networks", "train"))
    if not (isinstance(target, type) and isinstance(settings, type) and issubclass(settings, Settings) and parts):
        raise ConfigError(f"recipe._target_={name}: is no recipe, a class with Settings, networks and train")
    says: Any = target
    if not isinstance(getattr(says, "objective", None), Objective):
        raise ConfigError(f"recipe._target_={name}: must say what its runs are judged by: objective = Objective(NAME)")
    for part, form in (("headlines", "{METRIC: DIGITS}"), ("capabilities", "(Capability.STACKED,)")):
        if not hasattr(says, part):
            raise ConfigError(f"recipe._target_={name}: must have {part}, such as {form}; it may be empty")
    return target
