"""A model or data set of a user's own: made by its ``_target_``, of its arguments and what the recipe offers."""

from __future__ import annotations

import difflib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from alphagrad.harness import memory
from alphagrad.harness.recipe import Settings, check_signals
from alphagrad.harness.splits import Splits

from .outline import MODEL_BYTES, Outline, outlined

LONGEST = 300
"""Characters of what a user's code says."""


class OwnSettings(Settings):
    """What makes a model or data set of a user's own; of those that come with alphagrad None and empty."""

    target: str | None = Field(default=None, alias="_target_", min_length=1)
    """The dotted name of a class or function."""
    kwargs: dict[str, Any] = Field(default={})
    """Its arguments, beside those that the recipe offers."""

    def __hash__(self) -> int:
        return hash(repr(self))  # what is read once a process is found by it

    @property
    def told(self) -> str:
        """The setting that names it, as messages do."""
        return f"_target_={self.target}"


def made(place: str, s: OwnSettings, offers: Mapping[str, Any]) -> Any:
    """What the ``_target_`` makes: it gets its arguments, and of what the recipe offers what it has arguments for.

    Args:
        place: ``model`` or ``data``, for messages.
        s: says what is called, and its arguments.
        offers: name → value.

    Raises:
        ValueError: the arguments are not what it takes, or it raised something; one line.
    """
    assert s.target is not None
    target = pkgutil.resolve_name(s.target)
    named, needed, more = _arguments(target)
    for name, value in s.kwargs.items():
        if name in offers:
            raise ValueError(f"{place}.kwargs.{name}={value}: is given by the recipe; leave it out")
        if name not in named and not more:
            near = "".join(f"; did you mean {other}?" for other in difflib.get_close_matches(name, named, 1))
            own = ", ".join(n for n in named if n not in offers) or "none"
            raise ValueError(f"{place}.kwargs.{name}={value}: {s.target} has no such argument; it has {own}{near}")
    given = {name: value for name, value in offers.items() if name in named}
    for name in needed:
        if name not in given and name not in s.kwargs:
            has = ", ".join(offers)
            raise ValueError(f"{place}.kwargs.{name}=nothing: {s.target} needs it; the recipe itself gives {has}")
    try:
        return target(**given, **s.kwargs)
    except (Exception, SystemExit) as error:  # whatever a user's code raises
        check_signals()
        arguments = f" with {place}.kwargs={s.kwargs}" if s.kwargs else ""
        raise ValueError(f"{place}.{s.told}{arguments}: raised {said(error)}") from error


def takes(s: OwnSettings, argument: str) -> bool:
    """Whether the ``_target_`` has an argument of this name."""
    return argument in _arguments(pkgutil.resolve_name(str(s.target)))[0]


def _arguments(target: Callable[..., Any]) -> tuple[list[str], list[str], bool]:
    """The names of the arguments, of those that must be given, and whether it takes others as well."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (ValueError, TypeError):  # some of those written in C
        return [], [], True
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    needed = [p.name for p in named if p.default is p.empty]
    return [p.name for p in named], needed, any(p.kind is p.VAR_KEYWORD for p in parameters)


def own_model(s: OwnSettings, offers: Mapping[str, Any]) -> nn.Module:
    """The user's model; raises ``ValueError`` as :func:`made`, and where it is no module."""
    net = made("model", s, offers)
    if not isinstance(net, nn.Module):
        raise ValueError(f"model.{s.told}: makes a {type(net).__name__}, which is no torch.nn.Module")
    return net


def own_outline(
    s: OwnSettings, offers: Mapping[str, Any], example: Callable[[], Tensor], outputs: tuple[int, ...]
) -> Outline:
    """How large the user's model is, and that it gives what it should.

    Args:
        s: the model.
        offers: as for :func:`made`.
        example: what it is tried on, [B, ...], made on the default device.
        outputs: the shape of what it must give.

    Raises:
        ValueError: it cannot be built, fails, or gives something else; one line.
    """
    try:
        net, given, found = _tried(s, offers, example, "meta")
    except Exception:  # not every code does without numbers
        check_signals()
        net, given, found = _tried(s, offers, example, "cpu")
    if not isinstance(given, Tensor) or tuple(given.shape) != outputs:
        what = f"a tensor {[*given.shape]}" if isinstance(given, Tensor) else f"a {type(given).__name__}"
        raise ValueError(f"model.{s.told}: gives {what}, where it must give a tensor of logits {[*outputs]}")
    if (needed := MODEL_BYTES * found.parameters) > (there := memory.memory()):
        told = f"its {found.parameters:,} parameters take about {memory.size(needed)} of memory in training"
        raise ValueError(f"model.{s.told}: {told}, and this machine has {memory.size(there)}; make it smaller")
    if not any(p.requires_grad for p in net.parameters()):
        raise ValueError(f"model.{s.told}: has no parameters that could be trained")
    return found


def _tried(
    s: OwnSettings, offers: Mapping[str, Any], example: Callable[[], Tensor], device: str
) -> tuple[nn.Module, Any, Outline]:
    with torch.random.fork_rng(devices=[]), torch.device(device):
        net, inputs = own_model(s, offers), example()
        try:
            given, found = outlined(net, inputs)
        except (Exception, SystemExit) as error:
            check_signals()
            raise ValueError(f"model.{s.told}: fails on inputs {[*inputs.shape]}: {said(error)}") from error
    return net, given, found


def own_splits(s: OwnSettings, root: Path) -> Splits:
    """The user's data set; its function may take ``root``, the folder of data sets.

    Raises:
        ValueError: as :func:`made`, and where it gives something else.
    """
    splits = made("data", s, {"root": root})
    if not isinstance(splits, Splits):
        what = type(splits).__name__
        raise ValueError(f"data.{s.told}: gives a {what}, where it must give alphagrad.harness.splits.Splits")
    return splits


def said(error: BaseException) -> str:
    """What a user's code raised, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")[:LONGEST]
