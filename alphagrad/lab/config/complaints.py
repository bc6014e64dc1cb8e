"""Which setting a constructor complains of, and the complaint under the name that the user knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from alphagrad.common.words import shown


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
