"""The configured optimizer: its settings held against the signature of what makes it, and tried on small tensors."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict, TypeAdapter, ValidationError

from alphagrad.common.errors import ConfigError
from alphagrad.common.words import listed, shown, squeezed
from alphagrad.harness.driver import STACKINGS, OptimizerSpec, mixes_elements
from alphagrad.lab.config import targets
from alphagrad.rule import Rule

OWN_OPTIMIZER_SETTINGS = ("_target_", "name", "stacking", "clip_grad_norm")
"""What is ours in an optimizer's section; the rest are arguments of its ``_target_``."""
STACKED = "batch_dims"
"""The argument of an optimizer that knows of runs; ``stacking`` sets it."""
_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)


def optimizer_spec(config: DictConfig, device: torch.device) -> OptimizerSpec:
    """How to build the configured optimizer; it is built once on two small tensors, to see that it can be.

    Args:
        config: the job's.
        device: where it is tried.

    Raises:
        ConfigError: a setting is unknown, missing, or not what the optimizer takes.
    """
    section = config.optimizer
    name = str(section.name)
    target = targets.resolve("optimizer", section.get("_target_"), (torch.optim.Optimizer,))
    defaults = _arguments(target, name)
    settings: dict[str, Any] = {}
    for key, value in section.items():
        if key in OWN_OPTIMIZER_SETTINGS:
            continue
        if key not in defaults or key == STACKED:
            has = listed(k for k in defaults if k != STACKED)
            raise ConfigError(f"optimizer.{key}: {name} has no such setting; it has {has}")
        if OmegaConf.is_dict(value):
            settings[str(key)] = instantiated(f"optimizer.{key}", value, targets.taken(target, str(key)))
        else:
            settings[str(key)] = tuple(value) if OmegaConf.is_list(value) else value
    if defaults.get("seed") is not None and settings.get("seed", 0) is None:
        settings["seed"] = int(config.seed) % 2**32  # so that runs that differ in their seed draw other numbers
    spec = OptimizerSpec(name, _Build(target, settings), section.get("stacking"), section.get("clip_grad_norm"))
    _check_own(spec, name, STACKED in defaults)
    lr = settings.get("lr")
    if isinstance(lr, bool) or not isinstance(lr, (int, float)) or not 0 <= lr < float("inf"):
        raise ConfigError(f"optimizer.lr={shown(lr)}: must be a finite number ≥ 0")
    hints = targets.hints(target)
    for key, value in settings.items():
        if value != defaults[key] and not fits(value, hints.get(key, Any), defaults[key]):
            raise ConfigError(f"optimizer.{key}={shown(value)}: must be {allowed(hints.get(key), defaults[key])}")
    _try(target, name, settings, section, device)
    if spec.stacking == "elementwise" and _mixes(spec, device):
        raise ConfigError(
            f"optimizer.stacking=elementwise: {name} mixes the elements of a tensor, and so the runs of a stack; "
            "must be per_run"
        )
    return spec


def _mixes(spec: OptimizerSpec, device: torch.device) -> bool:
    try:
        return mixes_elements(spec.build, device)
    except Exception as error:  # every library has its own
        raise ConfigError(f"optimizer={spec.name}: its steps fail: {squeezed(error, 500)}") from error


def _arguments(target: Callable[..., Any], name: str) -> dict[str, Any]:
    """The arguments after the parameters, with their defaults; None for those without."""
    try:
        parameters = list(inspect.signature(target).parameters.values())[1:]
    except (ValueError, TypeError) as error:
        raise ConfigError(f"optimizer={name}: its arguments cannot be read ({squeezed(error, 200)})") from error
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: None if p.default is p.empty else p.default for p in parameters if p.kind in named}


def _check_own(spec: OptimizerSpec, name: str, knows_runs: bool) -> None:
    """Raises :class:`ConfigError` for a setting of the section that is no argument of the optimizer."""
    if not isinstance(spec.stacking, str) or spec.stacking not in STACKINGS:
        raise ConfigError(f"optimizer.stacking={shown(spec.stacking)}: must be one of {', '.join(STACKINGS)}")
    if spec.stacking == ("elementwise" if knows_runs else "batch_dims"):
        may = "batch_dims or per_run" if knows_runs else "elementwise or per_run"
        raise ConfigError(f"optimizer.stacking={spec.stacking!r}: {name} can be {may}")
    clip = spec.clip_grad_norm
    number = isinstance(clip, (int, float)) and not isinstance(clip, bool)
    if clip is not None and not (number and 0 < clip < float("inf")):
        raise ConfigError(f"optimizer.clip_grad_norm={shown(clip)}: must be a number > 0, or null for no clipping")


def _try(
    target: Callable[..., Any], name: str, settings: Mapping[str, Any], section: DictConfig, device: torch.device
) -> None:
    """Builds the optimizer and takes a step; :class:`ConfigError` naming the setting it does not like."""

    def trial(settings: Mapping[str, Any]) -> None:
        sizes = {"layer.weight": (2, 2), "layer.bias": (2,)}
        tensors = {name: torch.zeros(size, device=device) for name, size in sizes.items()}
        built = target(list(tensors.items()), **settings)
        if not isinstance(built, torch.optim.Optimizer):
            raise TypeError(f"made {shown(built)}, which is no optimizer")
        if settings.get("compile"):
            return  # takes its time
        for p in tensors.values():
            p.grad = torch.ones_like(p)
        with torch.random.fork_rng(devices=[]):
            built.step()

    try:
        trial(settings)
    except Exception as error:  # every library has its own
        text = squeezed(error, 500)
        key = culprit(settings, trial)
        told = complaint(f"optimizer.{key}", section[key], text) if key else f"optimizer={name}: {text}"
        raise ConfigError(told) from error


def fits(value: Any, hint: Any, default: Any) -> bool:
    """Whether a value is what an argument's annotation says, or, without one, of its default's kind."""
    if hint is Any:
        if isinstance(default, bool) or isinstance(value, bool):
            return isinstance(value, bool) or default is None
        if isinstance(default, (int, float)):
            return isinstance(value, (int, float))
        return not isinstance(default, str) or isinstance(value, str)
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint, config=_STRICT)
    except Exception:  # an annotation that Pydantic does not know
        return True
    for candidate in (value, list(value)) if isinstance(value, tuple) else (value,):
        try:
            adapter.validate_python(candidate)
        except ValidationError:
            continue
        return True
    return False


def allowed(hint: Any, default: Any) -> str:
    """What an argument takes, in words."""
    told = " or ".join(dict.fromkeys(filter(None, _alternatives(hint)))) or "of another kind"
    return told if default is None or isinstance(default, (bool, str)) else f"{told}, such as {default!r}"


def _alternatives(hint: Any) -> list[str]:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return [words for one in inner for words in _alternatives(one)]
    if origin is typing.Literal:
        return [f"one of {', '.join(map(str, inner))}"]
    if origin in (tuple, list):
        return [f"{len(inner)} numbers" if origin is tuple and Ellipsis not in inner else "numbers"]
    if hint is Rule:
        return ["a Rule, whose parts are set by normalization=, alpha= and transform="]
    return [{bool: "true or false", int: "a whole number", float: "a finite number", str: "a word"}.get(hint, "")]


class _Build(partial[Any]):
    """``target(params, **settings)``; equal for equal settings, so that runs can share an optimizer."""

    def __new__(cls, target: Callable[..., Any], settings: Mapping[str, Any]) -> _Build:
        return super().__new__(cls, target, **settings)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Build) and self.func is other.func and self.keywords == other.keywords

    def __hash__(self) -> int:
        return hash(self.func)


def instantiated(setting: str, node: DictConfig, takes: tuple[type, ...]) -> Any:
    """The object of a ``_target_`` node, one of ``takes``; the object's own complaint as a :class:`ConfigError`."""
    container = OmegaConf.to_container(node, resolve=True)
    assert isinstance(container, dict)
    plain = {str(key): value for key, value in container.items()}

    def make(settings: Mapping[str, Any]) -> Any:
        return targets.plan(setting, settings, takes)()

    try:
        return make(plain)
    except targets.Failed as error:
        cause = error.__cause__
        text = squeezed(cause, 500)
        key = culprit(plain, make) or path_of(plain, error.path, text.partition(":")[0])
        if key is None:
            raise ConfigError(text if isinstance(cause, ValueError) else f"{setting}: {text}") from error
        # a slot that is an interpolation is named where the user sets it: alpha.value
        name = key if OmegaConf.is_interpolation(node, key.partition(".")[0]) else f"{setting}.{key}"
        raise ConfigError(complaint(name, OmegaConf.select(node, key), text)) from error


def culprit(settings: Mapping[str, Any], make: Callable[[dict[str, Any]], Any]) -> str | None:
    """The setting, ``a.b`` where nested, without which (so, with its default) ``make(settings)`` works.

    Not every library says which of its arguments it does not like.
    """
    for key, value in settings.items():
        if isinstance(value, dict):
            below = culprit(value, partial(_with, make, settings, key))
            if below is not None:
                return f"{key}.{below}"
        elif not key.startswith("_"):
            try:
                make({k: v for k, v in settings.items() if k != key})
            except Exception:  # noqa: S112
                continue
            return key
    return None


def path_of(settings: Mapping[str, Any], path: Sequence[str], name: str) -> str | None:
    """The path, ``a.b`` where nested, of the setting of that name in the node at ``path``, whose constructor raised."""
    node: Any = settings
    for part in path:
        node = node.get(part) if isinstance(node, Mapping) else None
    return ".".join([*path, name]) if isinstance(node, Mapping) and name in node else None


def _with(make: Callable[[dict[str, Any]], Any], settings: Mapping[str, Any], key: str, inner: dict[str, Any]) -> Any:
    return make({**settings, key: inner})


def complaint(setting: str, value: Any, text: str) -> str:
    """What a constructor says of a setting, under the name that the user knows."""
    if text.startswith(("alpha.", "transform.", "normalization.")):
        return text
    named, colon, rest = text.partition(": ")
    ours = colon and named.split(", ")[0].rpartition(".")[2] == setting.rpartition(".")[2]
    return f"{setting}: {rest}" if ours else f"{setting}={shown(value)}: {text}"
