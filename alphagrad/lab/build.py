"""From a configuration to objects: the one place where settings are checked and ``_target_`` resolved."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from alphagrad.lab import processes
from alphagrad.lab.complaints import complaint, culprit, path_of
from alphagrad.lab.errors import ConfigError
from alphagrad.lab.recipe import Recipe, Settings
from alphagrad.lab.stack import STACKINGS, Observation, OptimizerSpec

# What is ours in an optimizer's section; the rest are arguments of its _target_.
OWN_OPTIMIZER_SETTINGS = ("_target_", "name", "stacking", "clip_grad_norm")


class TrackingSettings(Settings):
    """Where runs are recorded."""

    uri: str | None
    experiment: str = Field(min_length=1)
    artifacts: str | None
    flush_seconds: PositiveFloat
    retry_seconds: float = Field(ge=0)


class InstrumentSettings(Settings):
    """What optimizers report of single tensors, and how often; ``every`` 0 is never."""

    every: NonNegativeInt
    tensors: PositiveInt
    tau: PositiveFloat


class StackSettings(Settings):
    """How hydra/launcher=stacked divides a study."""

    max_runs: PositiveInt
    processes: PositiveInt


class CheckpointSettings(Settings):
    """When the state of a run is saved, and what is kept."""

    every_seconds: float | None = Field(gt=0)
    every_steps: PositiveInt | None
    keep_last: PositiveInt
    best: str | None
    best_is: Literal["max", "min"]


class StudySettings(Settings):
    """What a study that is started again runs, and when it ends early."""

    rerun: Literal["missing", "failed", "all"]
    fail_fast: bool
    """Whether no job is begun once one has failed."""


class JobSettings(Settings):
    """What every job has, whatever its recipe."""

    seed: int = Field(ge=0, lt=2**63)
    device: str
    threads: PositiveInt
    output_root: str = Field(min_length=1)
    stack: StackSettings
    tracking: TrackingSettings
    checkpoint: CheckpointSettings
    study: StudySettings
    instruments: InstrumentSettings


@dataclass(frozen=True)
class Job:
    """One run, ready to start."""

    settings: JobSettings
    recipe: Recipe
    optimizer: OptimizerSpec
    device: torch.device

    @property
    def observation(self) -> Observation:
        """What the optimizers report at each measurement."""
        return Observation(self.settings.instruments.tensors, self.settings.instruments.tau)


def build(config: DictConfig) -> Job:
    """Checks the whole configuration and constructs what it names.

    Raises:
        ConfigError: a line for every setting that is wrong.
    """
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    problems: list[str] = []

    def attempt(make: Callable[[], Any]) -> Any:
        try:
            return make()
        except ConfigError as error:
            problems.append(str(error))
            return None

    sections = ("seed", "device", "threads", "output_root", "stack", "tracking", "checkpoint", "study", "instruments")
    settings = attempt(lambda: checked(JobSettings, {key: plain.get(key) for key in sections}, ""))
    recipe = attempt(lambda: build_recipe(config))
    optimizer = attempt(lambda: optimizer_spec(config))
    if processes.count() > 1 and "parallel" not in config.recipe:
        problems.append(f"recipe={config.recipe.name}: trains in one process, and torchrun has started several")
    named = plain.get("device")
    device = attempt(lambda: device_of(named)) if isinstance(named, str) else None
    if problems:
        raise ConfigError("\n".join(problems))
    assert device is not None
    return Job(settings, recipe, optimizer, device)


def checked(model: type[Settings], values: Any, prefix: str) -> Any:
    """``values`` as the model; :class:`ConfigError` with a line for each wrong one."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = ".".join(str(part) for part in problem["loc"])
            value = "nothing" if problem["type"] == "missing" else repr(problem["input"])
            lines.append(f"{prefix}{name}={value}: {problem['msg'][:1].lower()}{problem['msg'][1:]}")
        raise ConfigError("\n".join(dict.fromkeys(lines))) from error


def build_recipe(config: DictConfig) -> Recipe:
    """The recipe of the configuration, its settings checked."""
    section = {str(k): v for k, v in config.recipe.items()}
    target = resolve("recipe._target_", str(section.pop("_target_")))
    plain = {k: OmegaConf.to_container(v, resolve=True) if OmegaConf.is_config(v) else v for k, v in section.items()}
    try:
        settings = checked(target.Settings, plain, "recipe.")
    except ConfigError as error:
        text = str(error)
        for key in section:
            if OmegaConf.is_interpolation(config.recipe, key):
                text = text.replace(f"recipe.{key}.", f"{key}.")  # named where the user sets it
        raise ConfigError(text) from error
    try:
        recipe: Recipe = target(settings)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return recipe


def optimizer_spec(config: DictConfig) -> OptimizerSpec:
    """How to build the configured optimizer; it is built once on two small tensors, to see that it can be."""
    section = config.optimizer
    if not isinstance(section.name, str) or not section.name:
        raise ConfigError(f"optimizer.name={section.name!r}: must be a word")
    name = section.name
    target = resolve("optimizer._target_", str(section._target_))
    accepted = [p.name for p in inspect.signature(target).parameters.values() if p.kind is not p.VAR_KEYWORD][1:]
    settings: dict[str, Any] = {}
    for key, value in section.items():
        if key in OWN_OPTIMIZER_SETTINGS:
            continue
        if key not in accepted:
            raise ConfigError(f"optimizer.{key}: {name} has no such setting; it has {', '.join(accepted)}")
        if OmegaConf.is_dict(value):
            settings[str(key)] = instantiated(f"optimizer.{key}", value)
        else:
            settings[str(key)] = tuple(value) if OmegaConf.is_list(value) else value
    spec = OptimizerSpec(name, _Build(target, settings), section.stacking, section.clip_grad_norm)
    if spec.stacking not in STACKINGS:
        raise ConfigError(f"optimizer.stacking={spec.stacking!r}: must be one of {', '.join(STACKINGS)}")
    knows_runs = "batch_dims" in accepted
    if spec.stacking == ("elementwise" if knows_runs else "batch_dims"):
        allowed = "batch_dims or per_run" if knows_runs else "elementwise or per_run"
        raise ConfigError(f"optimizer.stacking={spec.stacking!r}: {name} can be {allowed}")
    clip = spec.clip_grad_norm
    if clip is not None and (isinstance(clip, bool) or not isinstance(clip, (int, float)) or not clip > 0):
        raise ConfigError(f"optimizer.clip_grad_norm={clip!r}: must be a number > 0, or null for no clipping")
    lr = settings.get("lr")
    if isinstance(lr, bool) or not isinstance(lr, (int, float)) or not 0 <= lr < float("inf"):
        raise ConfigError(f"optimizer.lr={lr!r}: must be a finite number ≥ 0")

    def trial(settings: Mapping[str, Any]) -> None:
        target([("layer.weight", torch.zeros(2, 2)), ("layer.bias", torch.zeros(2))], **settings)

    try:
        trial(settings)
    except Exception as error:  # every library has its own
        text = " ".join(str(error).split())
        key = culprit(settings, trial)
        if key in settings and isinstance(error, (TypeError, IndexError)):
            # these say what went wrong, not what is allowed
            text += f"; it must be like {inspect.signature(target).parameters[key].default!r}"
        told = complaint(f"optimizer.{key}", section[key], text) if key else f"optimizer={name}: {text}"
        raise ConfigError(told) from error
    return spec


class _Build(partial[Any]):
    """``target(params, **settings)``; equal for equal settings, so that runs can share an optimizer."""

    def __new__(cls, target: Callable[..., Any], settings: Mapping[str, Any]) -> _Build:
        return super().__new__(cls, target, **settings)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Build) and self.func is other.func and self.keywords == other.keywords

    def __hash__(self) -> int:
        return hash(self.func)


def instantiated(setting: str, node: DictConfig) -> Any:
    """The object of a ``_target_`` node; the object's own complaint as a :class:`ConfigError`."""
    container = OmegaConf.to_container(node, resolve=True)
    assert isinstance(container, dict)
    plain = {str(key): value for key, value in container.items()}

    def make(settings: Mapping[str, Any]) -> Any:
        return instantiate(settings, _convert_="all")

    try:
        return make(plain)
    except InstantiationException as error:
        place, cause = str(error), error
        while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
            place, cause = str(cause), cause.__cause__  # type: ignore[assignment]
        text = " ".join(str(cause).split())
        key = culprit(plain, make) or path_of(plain, place, text.partition(":")[0])
        if key is None:
            raise ConfigError(text if isinstance(cause, ValueError) else f"{setting}: {text}") from error
        # a slot that is an interpolation is named where the user sets it: alpha.value
        name = key if OmegaConf.is_interpolation(node, key.partition(".")[0]) else f"{setting}.{key}"
        raise ConfigError(complaint(name, OmegaConf.select(node, key), text)) from error


def resolve(setting: str, path: str) -> Any:
    """The class or function at a dotted path."""
    try:
        return get_object(path)
    except Exception as error:  # whatever a user's module raises on import
        raise ConfigError(f"{setting}={path}: cannot be imported: {' '.join(str(error).split())}") from error


def device_of(name: str) -> torch.device:
    """The torch device; *auto* is CUDA where there is one, else the CPU. Under torchrun: this process's."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if processes.count() > 1:
        if name not in ("cpu", "cuda"):
            raise ConfigError(f"device={name}: must be auto, cpu or cuda under torchrun; each process has its own GPU")
        name = f"cuda:{processes.local()}" if name == "cuda" else name
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device={name}: must be auto, or a device torch can use here: {reason}") from error
    return device
