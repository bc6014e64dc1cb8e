"""What a ``_target_`` may name: nothing is imported that nobody allowed, nothing is called that does not fit there."""

from __future__ import annotations

import inspect
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.utils import _locate

from alphagrad.alpha import Alpha
from alphagrad.common import own
from alphagrad.common.errors import ConfigError
from alphagrad.common.words import shown, squeezed
from alphagrad.lab.config.complaints import nearest
from alphagrad.lab.config.shape import MOVED
from alphagrad.normalization import Normalization
from alphagrad.rule import Rule
from alphagrad.transform import FromSaturation, Transform
from alphagrad.values import Ramp

ALLOWED = "ALPHAGRAD_ALLOW_TARGETS"
"""Environment variable: what ``--allow-target`` gave, separated by commas; inherited by processes that are started."""
PARTS = (Rule, Normalization, Alpha, Transform, Ramp, FromSaturation)
"""What a place takes that does not say what it takes."""
LIBRARIES = ("alphagrad", "gymnasium", "pytorch_optimizer", "torch")
"""Packages of which whole modules may be called, though not what their modules have imported from elsewhere."""
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_PREFIX = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


class Failed(Exception):
    """A constructor raised; its own exception is the cause."""

    def __init__(self, path: Sequence[str]) -> None:
        super().__init__(".".join(path))
        self.path = list(path)


@contextmanager
def allowing(prefixes: Sequence[str]) -> Iterator[None]:
    """Also names that begin so are allowed, here and in the processes that are started."""
    for prefix in prefixes:
        if not _PREFIX.fullmatch(prefix):
            raise ConfigError(f"--allow-target={prefix}: must be a module or the dotted name of a class or function")
    before = os.environ.get(ALLOWED)
    os.environ[ALLOWED] = ",".join([*filter(None, [before]), *prefixes])
    try:
        yield
    finally:
        if before is None:
            del os.environ[ALLOWED]
        else:
            os.environ[ALLOWED] = before


def names_in(node: Any) -> Iterator[str]:
    """Every ``_target_`` of a plain configuration."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "_target_" and isinstance(value, str):
                yield value
            else:
                yield from names_in(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from names_in(value)


@lru_cache(maxsize=8)
def _named_by(folder: Path, changed: float) -> frozenset[str]:
    """What the configuration files in a folder name; Hydra's part is not for runs."""
    found: set[str] = set()
    for file in folder.rglob("*.yaml"):
        if file.relative_to(folder).parts[0] == "hydra":
            continue
        try:
            text = file.read_text(encoding="utf-8")
            if "_target_" in text:
                found.update(name for name in names_in(yaml.safe_load(text)) if _NAME.fullmatch(name))
        except (OSError, ValueError, yaml.YAMLError):
            continue  # composing it says what is wrong with it; until then it names nothing
    return frozenset(found)


def _newest(folder: Path) -> float:
    return max((file.stat().st_mtime for file in [folder, *folder.rglob("*")] if file.exists()), default=0.0)


def known() -> tuple[set[str], set[str]]:
    """The names that may be called as they are, and the modules of which all may that says what it returns."""
    folders = [Path(str(files("alphagrad.conf"))), *filter(None, [own.user_conf()])]
    exact = {name for folder in folders for name in _named_by(folder, _newest(folder))}
    given = _given()
    modules = {name.rpartition(".")[0] for name in exact} | given | own.own_modules()
    return exact | given, modules | {"gymnasium.wrappers"}


def _given() -> set[str]:
    """The prefixes of ``--allow-target``."""
    return set(filter(None, os.environ.get(ALLOWED, "").split(",")))


def resolve(place: str, name: object, takes: Sequence[type]) -> Callable[..., Any]:
    """The class or function that a ``_target_`` names.

    Args:
        place: the setting that holds it, for messages.
        name: the dotted name; nothing is imported before it is known to be allowed.
        takes: the classes of which one must be made; none for a place that takes no objects.

    Raises:
        ConfigError: it is not allowed, is not there, or makes something else.
    """
    setting = f"{place}._target_"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"{setting}={shown(name)}: must be the dotted name of a class or function")
    name = MOVED.get(name, name)
    exact, modules = known()
    if name not in exact and not any(name.startswith(f"{module}.") for module in modules):
        raise ConfigError(
            f"{setting}={name}: neither alphagrad's configuration nor yours in $ALPHAGRAD_CONF names it, so it is not "
            f"called; if you trust it, add --allow-target {name}"
        )
    try:
        target = _locate(name)
    except (Exception, SystemExit) as error:  # whatever a user's module raises on import
        raise ConfigError(f"{setting}={name}: {_missing(name) or f'cannot be imported: {squeezed(error)}'}") from error
    words = _words(takes)
    top, home = name.partition(".")[0], str(getattr(target, "__module__", None) or "").partition(".")[0]
    trusted = name in exact or any(name.startswith(f"{prefix}.") for prefix in _given())
    if not trusted and top in LIBRARIES and home not in (top, ""):
        raise ConfigError(f"{setting}={name}: leads out of {top}, into {home}; only what is {top}'s own is called")
    if not takes:
        raise ConfigError(f"{setting}={name}: {place} takes a plain value")
    if not callable(target):
        raise ConfigError(f"{setting}={name}: is a {type(target).__name__}, where {words} must be made")
    made = returned(target)
    if made is None:
        if name not in exact:
            raise ConfigError(
                f"{setting}={name}: does not say what it returns, where {words} must be made; annotate it, "
                f"or add --allow-target {name}"
            )
    elif not made or not all(_is_subclass(kind, takes) for kind in made):
        raise ConfigError(f"{setting}={name}: makes {_words(made) or 'nothing'}, where {words} must be made")
    return target


def _missing(name: str) -> str:
    """Why there is nothing of this name, where that is known."""
    if other := own.hidden(name.partition(".")[0]):
        return f"cannot be imported: Python finds {other} by that name; call your file otherwise"
    module, _, part = name.rpartition(".")
    if module in sys.modules and not hasattr(sys.modules[module], part):
        return f"there is no {part} in {module}; {nearest(part, dir(sys.modules[module]))}".rstrip("; ")
    return ""


def plan(place: str, node: Any, takes: Sequence[type], path: Sequence[str] = ()) -> Callable[[], Any]:
    """What makes the object that a plain configuration describes; every ``_target_`` in it is resolved, none called.

    The result raises :class:`Failed` where a constructor raises, and ConfigError where something else was made.
    """
    inner = ".".join([place, *path])
    if isinstance(node, list):
        items = [plan(place, item, takes, [*path, str(n)]) for n, item in enumerate(node)]
        return lambda: [item() for item in items]
    if not isinstance(node, Mapping):
        return lambda: node
    if "_target_" not in node:
        values = {key: plan(place, value, takes, [*path, str(key)]) for key, value in node.items()}
        return lambda: {key: value() for key, value in values.items()}
    unknown = [key for key in node if str(key).startswith("_") and key not in ("_target_", "_args_")]
    if unknown:
        raise ConfigError(f"{inner}.{unknown[0]}: no such setting; beside arguments there are _target_ and _args_")
    target = resolve(inner, node["_target_"], takes)
    given = node.get("_args_", [])
    if not isinstance(given, list):
        raise ConfigError(f"{inner}._args_={shown(given)}: must be a list")
    args = [plan(place, value, PARTS, [*path, "_args_", str(n)]) for n, value in enumerate(given)]
    settings = {
        str(key): plan(place, value, taken(target, str(key)), [*path, str(key)])
        for key, value in node.items()
        if not str(key).startswith("_")
    }

    def make() -> Any:
        values = {key: value() for key, value in settings.items()}
        try:
            made = target(*(value() for value in args), **values)
        except (Failed, ConfigError):
            raise
        except Exception as error:
            raise Failed(path) from error
        if not isinstance(made, tuple(takes)):
            raise ConfigError(
                f"{inner}._target_={node['_target_']}: made {shown(made)}, where it must be {_words(takes)}"
            )
        return made

    return make


def hints(target: Any) -> dict[str, Any]:
    """The annotations of a class's or function's arguments, and of what it returns; of what cannot be read none."""
    call: Any = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(call)
    except Exception:  # a name that is imported for type checkers alone, say
        return {}


def taken(target: Any, argument: str) -> tuple[type, ...]:
    """The classes of objects that an argument takes, by its annotation; :data:`PARTS` where it has none."""
    hint = hints(target).get(argument, Any)
    if hint is Any or hint is object:
        return PARTS
    return tuple(kind for kind in _classes(hint, within=True) if kind.__module__ not in ("builtins", "collections.abc"))


def returned(target: Any) -> tuple[type, ...] | None:
    """The classes of which a callable makes one; None where it does not say."""
    if isinstance(target, type):
        return (target,)
    hint = hints(target).get("return", Any)
    return None if hint is Any or hint is object else _classes(hint, within=False)


def _classes(hint: Any, within: bool) -> tuple[type, ...]:
    """The classes in an annotation; with ``within`` those of its elements, too."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType, typing.Annotated) or (origin is not None and within):
        return tuple(kind for inner in typing.get_args(hint) for kind in _classes(inner, within))
    kind = origin or hint
    return (kind,) if isinstance(kind, type) and kind is not type(None) else ()


def _is_subclass(kind: type, takes: Sequence[type]) -> bool:
    try:
        return issubclass(kind, tuple(takes))
    except TypeError:
        return False


def _words(kinds: Sequence[type]) -> str:
    """The classes as ``a Rule or an Alpha``."""
    names = [kind.__name__ for kind in kinds]
    return " or ".join(f"{'an' if name[:1] in 'AEIOU' else 'a'} {name}" for name in names)


def check_targets(place: str, node: Any, takes: Sequence[type]) -> None:
    """Raises :class:`ConfigError` for a ``_target_`` somewhere in a plain configuration that may not be called."""
    if isinstance(node, (Mapping, list)):
        plan(place, node, takes)
