"""Errors of Hydra as one line that names the setting, as its user knows it, and what is allowed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from alphagrad.common.errors import ConfigError
from alphagrad.common.words import cut, listed, squeezed
from alphagrad.lab.config.overrides import not_of_launcher

SLOTS = ("normalization", "alpha", "transform")
DATA = {"data": "image, text, lm and regression have", "model": "image, text and lm have", "problem": "theory has"}
"""Groups of some recipes, and which of those shipped have them."""
QUANTITIES = (*SLOTS, "optimizer", "instruments")
"""Groups that one number says much of."""
GROUPS = re.compile(r"(recipe|optimizer|experiment|normalization|alpha|transform|data|model|problem|hydra/launcher)=")
NUMBER = re.compile(r"[-+\d.][-+\d.e]*", re.IGNORECASE)
Compose = Callable[[Sequence[str]], DictConfig]


def one_line(error: Exception, overrides: Sequence[str], compose: Compose) -> str:
    """The message of an error that composing ``overrides`` raised; ``compose`` composes what is offered instead."""
    text = str(error)
    missing = re.search(r"Could not find '([^']+)'", text)
    if missing:
        return _no_option(missing[1], text)
    struct = re.search(r"Could not override '([^']+)'", text)
    if struct:
        told = not_of_launcher(struct[1], overrides, options_in("hydra/launcher"), compose)
        return told or _no_setting(struct[1], error, overrides, compose)
    absent = re.search(r"Could not delete (?:from config\. )?'([^']*)'", text)
    if absent:
        return f"~{absent[1]}: there is nothing to delete, it is null or not there"
    if "Config group override must be a string" in text:
        return "; ".join(_no_name(word, compose, overrides) for word in overrides if _is_nameless(word)) or text
    if flags := _of_flags(text):
        return flags
    names = [o for o in overrides if not o.startswith("hydra.")]
    if isinstance(error, RecursionError):
        names, text = [o for o in overrides if "${" in o], "refers to itself"
    return f"{listed(map(cut, names or overrides))}: {squeezed(text.removeprefix('Error merging override '), 500)}"


def _of_flags(text: str) -> str:
    """What is wrong with the flags, or lacks one."""
    several = re.search(r"(?:Ambiguous value for argument|Sweep parameters) '(.+?)'(?: requires|\s*\n|$)", text)
    if several:
        return f"{cut(several[1])}: gives several values, which takes `alphagrad run -m` (--multirun); a list is [1,2]"
    return squeezed(text) if text.startswith("Only one of") else ""


def as_set(text: str, overrides: Sequence[str]) -> str:
    """A complaint of a setting, with the words that deleted or emptied something, where they led to it."""
    emptied = [word for word in overrides if word.startswith("~") or re.search(r"=null$", word, re.IGNORECASE)]
    others = [re.split(r"[=@]", word, maxsplit=1)[0].lstrip("+") for word in overrides if word not in emptied]
    if not emptied or any(word in text for word in emptied) or any(text.startswith(key) for key in others):
        return text
    if needed := re.search(r"=\$\{(.+?)\}: Interpolation key '\1'", text):
        text = f"{needed[1]} cannot be left out, others need it; leave it as it is, or give a value"
    return f"{listed(map(cut, emptied))}: {text}"


def _no_option(path: str, text: str) -> str:
    """A group has no option of this name."""
    group, _, option = path.rpartition("/")
    found = text.partition("Available options")[2].partition("Config search path")[0]
    options = [line.strip() for line in found.splitlines() if line.startswith("\t")]
    options = [o for o in options if not o.startswith("_")]
    meant = nearest(option, options)
    return f"{group}={cut(option)}: no such {group}; {meant}there are {listed(options)}"


def options_in(group: str) -> list[str]:
    """The names that a group may be given; none where there is no such group."""
    if "." in group:
        return []
    return [o for o in GlobalHydra.instance().config_loader().get_group_options(group) if not o.startswith("_")]


def check_choices(words: Sequence[Override], compose: Compose) -> None:
    """Raises :class:`ConfigError` for a group that is given no name, and for a name that is not given to its group.

    Hydra would take some of them for settings, and go on.
    """
    lines = [override.input_line or "" for override in words]
    for override, line in zip(words, lines, strict=True):
        key, value = override.key_or_group, override.value()
        first, _, last = key.rpartition(".")
        nameless = isinstance(value, (bool, int, float, list, dict))
        if nameless and options_in(key):
            raise ConfigError(_no_name(line, compose, lines))
        inside = first in ("recipe", "optimizer", "optimizer.rule")
        group = inside and last in (*DATA, *SLOTS, "optimizer") and (nameless or _is_word(value))
        if group and not _stands(key, lines, compose):  # rmsprop has an alpha of its own
            raise ConfigError(f"{cut(line)}: {_of_its_own(last, line.partition('=')[2], lines, compose)}")
        if not _is_word(value):
            continue
        if inside and last == "env":
            raise ConfigError(f"{cut(line)}: env is a section of its own; give env.id={cut(value)}")
        chosen = value in options_in(first) and f"{first}={value}" not in lines
        if key in ("recipe.name", "optimizer.name") and chosen:
            raise ConfigError(f"{cut(line)}: this only changes a name; {first} is a group; give {first}={cut(value)}")


def _stands(key: str, overrides: Sequence[str], compose: Compose) -> bool:
    """Whether the key is a plain setting, no section and no pointer to one."""
    config = _composed(overrides, key, compose)
    return config is not None and not isinstance(OmegaConf.select(config, key), DictConfig | None)


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and not value.startswith("${")


def _of_its_own(group: str, value: str, overrides: Sequence[str], compose: Compose) -> str:
    """What to give where a group is written as if it were a setting of a section, as in optimizer.alpha=93."""
    names = options_in(group)
    leaf = _leaf_of(group, value, overrides, compose) if group in QUANTITIES and NUMBER.fullmatch(value) else ""
    given = leaf.removesuffix("; ") or f"give {group}={cut(value) if value in names else 'NAME'}"
    there = "" if leaf or value in names else f"; there are {listed(names)}"
    return f"{group} is a group of its own; {given}{there}"


def _is_nameless(word: str) -> bool:
    """Whether a group is given what is no name."""
    group, equals, value = word.partition("=")
    return bool((equals and not re.fullmatch(r"[a-z_]\w*", value, re.IGNORECASE)) or value == "null") and bool(
        options_in(group)
    )


def _no_name(word: str, compose: Compose, overrides: Sequence[str]) -> str:
    """A group is given what is no name."""
    group, _, value = word.partition("=")
    leaf = _leaf_of(group, value, overrides, compose) if group in QUANTITIES and NUMBER.fullmatch(value) else ""
    return f"{cut(word)}: {group} is a group ({listed(options_in(group))}); {leaf.removesuffix('; ') or 'give a name'}"


def _group_meant(key: str, value: str) -> str:
    """What to give where a group is written as if its options were settings, as in alpha.sqrt_dim=3."""
    group, _, rest = key.partition(".")
    names = options_in(group) if rest else []
    option, _, inner = rest.partition(".")
    if option in names:
        more = f" {group}.{inner}={cut(value)}" if inner else ""
        return f"no such setting; {group} is a group; give {group}={option}{more}"
    return f"no such setting; {group} is a group; give {group}={value}" if value in names else ""


def _no_setting(key: str, error: Exception, overrides: Sequence[str], compose: Compose) -> str:
    """There is no setting or group of this name."""
    text, source = str(error), f"{error.__cause__ or error}"
    unknown = "No match in the defaults list" in text
    value = next((v for k, _, v in (o.partition("=") for o in overrides) if k.lstrip("+") == key), "")
    absent = unknown or "not in struct" in source + text
    group = _group_meant(key, value) if absent else ""
    pointed = None if group else _pointed(key, overrides, compose)
    if pointed is not None:
        group = f"is set where it stands, as {pointed}={cut(value)}"
    if group:
        return f"{key}: {group}"
    slot = key.partition(".")[0]
    config = _composed(overrides, key, compose) if slot in (*DATA, *SLOTS) else None
    lacking = slot not in config if config is not None else unknown or f"Key '{slot}'" in source + text
    if slot in DATA and lacking:
        recipe = next((o for o in overrides if o.startswith("recipe=")), "the recipe")
        return f"{key}: {recipe} has no {slot}; recipe={DATA[slot]} one"
    if slot in SLOTS and lacking:
        optimizer = next((o for o in overrides if o.startswith("optimizer=")), "the optimizer")
        return f"{key}: {optimizer} has no {slot}, only the variants of AlphaGrad that use it do"
    inner = key.rpartition(".")[2]
    if inner != key and options_in(inner):
        told = f"no such setting; {_of_its_own(inner, value, overrides, compose)}"
    else:
        leaf = _leaf_of(key, value, overrides, compose)
        told = f"{key} is a section; {leaf.removesuffix('; ')}" if leaf else ""
    if told:
        return f"{key}={cut(value)}: {told}"
    if absent or "not a DictConfig" in source:
        return f"{key}: no such setting{_siblings(key, value, overrides, compose)}"
    return f"{key}={cut(value)}: {squeezed(source, 500)}"


def _composed(overrides: Sequence[str], without: str, compose: Compose) -> DictConfig | None:
    """What the groups among the overrides make; None if they are wrong as well."""
    try:
        return compose([o for o in overrides if GROUPS.match(o) and o.partition("=")[0] != without])
    except ConfigError:
        return None


def _pointed(key: str, overrides: Sequence[str], compose: Compose) -> str | None:
    """Where a setting stands whose section points to another: ``recipe.env.id`` is ``env.id``."""
    config = _composed(overrides, key, compose)
    if config is None:
        return None
    node: Any = config
    parts = key.split(".")
    for number, part in enumerate(parts[:-1], start=1):
        if not isinstance(node, DictConfig) or part not in node:
            return None
        if OmegaConf.is_interpolation(node, part):
            raw = str(OmegaConf.to_container(node, resolve=False)[part])  # type: ignore[index,call-overload]
            target = re.fullmatch(r"\$\{(?:oc\.select:)?(\w+)(?:,null)?\}", raw)
            found = target and OmegaConf.select(config, target[1]) is not None
            return ".".join([target[1], *parts[number:]]) if target and found else None
        node = node[part]
    return None


def _leaf_of(section: str, value: str, overrides: Sequence[str], compose: Compose) -> str:
    """``give env.id=VALUE; `` where the section has a setting that a value like this would fit."""
    config = _composed(overrides, section, compose)
    node = OmegaConf.select(config, section) if config is not None and "/" not in section else None
    if not isinstance(node, DictConfig) or value.lower() in ("", "null"):
        return ""
    try:
        kind: type = type(float(value)) if value.lower() not in ("true", "false") else bool
    except ValueError:
        kind = str
    for name, current in node.items():
        numbers = kind is float and isinstance(current, (int, float)) and not isinstance(current, bool)
        if (
            not str(name).startswith("_")
            and name != "name"
            and (numbers or (kind is not float and type(current) is kind))
        ):
            return f"give {section}.{name!s}={cut(value)}; "
    return ""


def _siblings(key: str, value: str, overrides: Sequence[str], compose: Compose) -> str:
    """What stands where ``key`` was looked for, and where else a setting of its name stands."""
    config = _composed(overrides, key, compose)
    if config is None:
        return ""
    parent, _, name = key.rpartition(".")
    last = name
    while parent and not isinstance(OmegaConf.select(config, parent), DictConfig):
        parent, _, name = parent.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    names = [str(k) for k in node if not str(k).startswith("_") and k != "hydra"]
    elsewhere = [
        f"{s!s}.{last}" for s in config if s != "hydra" and isinstance(config[s], DictConfig) and last in config[s]
    ]
    if last in ("launcher", "sweeper"):
        elsewhere = [f"hydra/{last}"]
    meant = nearest(name, names)
    if not meant and elsewhere:
        meant = f"did you mean {' or '.join(f'{e}={cut(value)}' for e in elsewhere)}? "
    return f"; {meant}{parent or 'the configuration'} has {listed(names) or 'none'}"


def nearest(name: str, names: Sequence[str]) -> str:
    """``did you mean adam? `` of a name that is nearly one of the names, such as Adam or torch.optim.Adam."""
    small, word = {known.casefold(): known for known in names}, name.casefold().removesuffix(".yaml")
    if word not in small and word.rpartition(".")[2] in small:
        word = word.rpartition(".")[2]
    near = difflib.get_close_matches(word[:100], list(small), n=1)
    return f"did you mean {small[near[0]]}? " if near else ""
