"""What every configuration has, composed or saved: its sections, no others, and values that can be written down."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alphagrad.common.errors import ConfigError
from alphagrad.common.words import cut, is_plain, listed, shown, squeezed

SECTIONS = ("seed", "device", "threads", "output_root", "stack", "tracking", "checkpoint", "study", "instruments")
"""What every job has, whatever its recipe and optimizer."""
NEEDED = {"recipe": ("_target_", "name"), "optimizer": ("_target_", "name", "stacking")}
"""The sections that say what is trained, and what is ours in them."""
DEFAULTS = "optimizer_defaults"
"""The section with what a recipe gives optimizers that are not told otherwise."""
EARLIER_DEFAULTS = ("lr", "sgd_lr", "alphagrad_lr", "adam_eps", "clip_grad_norm")
"""What of it an earlier alphagrad had in the section of the recipe."""
SINCE: dict[str, dict[str, Any]] = {
    "instruments": {"components": False, "details": False},
    "recipe": {"rounding": "nearest", "quantization": "none"},
    "recipe image": {"figure": True},
    "optimizer": {"momentum_dtype": None},
}
"""Settings that an earlier alphagrad had not, with the value that is as if they were not there: of a section, or of it
with one name."""
MOVED = {"alphagrad.lab.baselines.muon": "alphagrad.harness.baselines.muon"}
"""Where a ``_target_`` of an earlier alphagrad is now."""
PARTS = ("env", "normalization", "alpha", "transform", "data", "model", "problem")
"""Sections that recipes and optimizers point to."""
LONGEST_VALUE = 4096
"""Characters, as of a path."""
INT64 = 2**63
NAME = re.compile(r"\w[\w.+-]{0,99}")
"""Of recipes and optimizers; it names folders, tags and columns."""
_POINTER = re.compile(r"\$\{\s*(?:[\w.]+:\s*)?([^\W\d]\w*)")


def check_shape(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain values, resolved, Hydra's part left out.

    Raises:
        ConfigError: a section is missing, unknown or no section, or a value is none that can be used.
    """
    bare = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    raw = OmegaConf.to_container(bare, resolve=False)
    assert isinstance(raw, dict)
    for key in (*NEEDED, *SECTIONS):
        if key not in raw:
            raise ConfigError(f"{key}: is missing, and every job has it; leave it as it is, or give a value")
    for key, names in NEEDED.items():
        if not isinstance(raw[key], dict):
            raise ConfigError(f"{key}={shown(raw[key])}: must be one of those that `alphagrad ls` shows")
        for name in names:
            if name not in raw[key]:
                raise ConfigError(f"{key}.{name}: is missing, and every {key} has it")
    try:
        plain = OmegaConf.to_container(bare, resolve=True)
    except RecursionError:
        raise ConfigError(f"{_cyclic(bare)}: refers to itself") from None
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(_unresolved(bare, error)) from error
    assert isinstance(plain, dict)
    for key in NEEDED:
        name = plain[key]["name"]
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ConfigError(f"{key}.name={shown(name)}: must be a word of letters, digits, _, ., + and -")
    for path, value in leaves(plain):
        check_value(path, value)
    return {str(key): value for key, value in plain.items()}


def check_used(config: DictConfig) -> None:
    """Raises :class:`ConfigError` for a section that neither recipe nor optimizer points to."""
    raw = OmegaConf.to_container(config, resolve=False)
    pointed = set(_POINTER.findall(str(raw)))
    assert isinstance(raw, dict)
    if isinstance(raw.get("optimizer"), dict) and isinstance(raw["optimizer"].get("rule"), str):
        pointed |= {
            "normalization",
            "alpha",
            "transform",
        }  # a word where the rule belongs has cut them off: it is what is wrong
    for name in map(str, raw):
        if name not in (*NEEDED, *SECTIONS, DEFAULTS, "hydra") and name not in pointed:
            uses = [*SECTIONS, *NEEDED, *(part for part in PARTS if part in pointed)]
            raise ConfigError(
                f"{cut(name)}: no such setting, neither recipe nor optimizer uses it; there are {listed(uses)}"
            )


def identity(plain: dict[str, Any]) -> str:
    """What of a plain configuration identifies it: the same words as with an earlier alphagrad, whose studies go on."""
    own = dict(plain)
    defaults, recipe = own.pop(DEFAULTS, None), own.get("recipe")
    if isinstance(defaults, dict) and isinstance(recipe, dict):
        # a recipe may have a setting of its own of that name
        moved = {name: defaults[name] for name in EARLIER_DEFAULTS if name in defaults and name not in recipe}
        own["recipe"] = {**recipe, **moved}
        defaults = {name: value for name, value in defaults.items() if name not in moved}
    if defaults:
        own[DEFAULTS] = defaults
    for words, settings in SINCE.items():
        section, _, name = words.partition(" ")
        if isinstance(own.get(section), dict) and name in ("", own[section].get("name")):
            own[section] = {k: v for k, v in own[section].items() if k not in settings or v != settings[k]}
    text = json.dumps(own, sort_keys=True)
    for earlier, now in MOVED.items():
        text = text.replace(json.dumps(now), json.dumps(earlier))
    return text


def brought_up(config: DictConfig, recipe_has: Collection[str]) -> None:
    """Changes a configuration that an earlier alphagrad noted to its present shape.

    Args:
        config: of a run.
        recipe_has: the names of its recipe's settings.
    """
    if DEFAULTS in config or not isinstance(config.get("recipe"), DictConfig):
        return
    moved = [name for name in EARLIER_DEFAULTS if name in config.recipe and name not in recipe_has]
    if moved:
        config[DEFAULTS] = {name: config.recipe.pop(name) for name in moved}


def _unresolved(config: DictConfig, error: Exception) -> str:
    """What is wrong with a ``${...}``, under the setting that holds it."""
    text = str(error)
    found = re.search(r"full_key: (\S+)", text)
    reason = squeezed(text.splitlines()[0] if text else type(error).__name__, 300)
    if "Recursive interpolation" in reason:
        reason = "refers to itself"
    if found is None:
        return reason
    lacking = re.search(rf"Interpolation key '{DEFAULTS}\.(\w+)' not found", text)
    if lacking:
        return f"{found[1]}: the recipe has no {DEFAULTS}.{lacking[1]}; give {found[1]}=VALUE"
    raw: Any = OmegaConf.to_container(config, resolve=False)
    for part in found[1].split("."):
        raw = raw.get(part) if isinstance(raw, dict) else None
    return f"{found[1]}={cut(raw)}: {reason}" if raw is not None else f"{found[1]}: {reason}"


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a plain configuration with its path; :class:`ConfigError` for a key that is no word."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if not isinstance(key, str) or not key or len(key) > LONGEST_VALUE:
                raise ConfigError(f"{path or 'the configuration'}: {shown(key)} is no name of a setting")
            yield from leaves(value, f"{path}.{key}" if path else key)
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from leaves(value, f"{path}[{number}]")
    else:
        yield path, node


def check_value(path: str, value: Any) -> None:
    """Raises :class:`ConfigError` for a value that no setting can have."""
    if isinstance(value, int) and not -INT64 <= value < INT64:
        raise ConfigError(f"{path}={shown(value)}: must be a number of 64 bits")
    if isinstance(value, float) and math.isfinite(value):
        from alphagrad.values import LARGEST  # which imports torch: where nothing is checked, it would be in the way

        if abs(value) > LARGEST:
            raise ConfigError(f"{path}={shown(value)}: must be at most {LARGEST:g}, the largest of 32 bits")
    if isinstance(value, str) and len(value) > LONGEST_VALUE:
        raise ConfigError(f"{path}={cut(value)}: must have at most {LONGEST_VALUE:,} characters")
    if isinstance(value, str) and not is_plain(value.replace("\n", "").replace("\t", "")):
        raise ConfigError(f"{path}={shown(value)}: holds control characters; only text is allowed")
    if not isinstance(value, (int, float, str, bool, type(None))):
        raise ConfigError(f"{path}={shown(value)}: must be a number, a word, true, false or null")


def _cyclic(config: DictConfig) -> str:
    """The path of the first setting that cannot be resolved because it leads back to itself."""
    for path, value in leaves(OmegaConf.to_container(config, resolve=False)):
        if isinstance(value, str) and "${" in value:
            try:
                OmegaConf.select(config, path)
            except RecursionError:
                return f"{path}={cut(value)}"
            except (OmegaConfBaseException, ValueError):
                continue
    return "a setting"
