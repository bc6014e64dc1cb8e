"""The memory of runs: whether there is enough of it, asked before anything is made, and what they took in the end."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from alphagrad.common.words import cut, size
from alphagrad.harness import metrics

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where Linux says what a container may take."""


def check_memory(settings: BaseModel, need: Callable[[Any], float], names: Sequence[str]) -> None:
    """Raises ``ValueError`` where this machine has less memory than a run needs, naming the setting to blame.

    It is the one that would save most if it were as small as can be.

    Args:
        settings: of the recipe.
        need: such settings → bytes, about; it grows with each of ``names``.
        names: settings that may be to blame, as a user writes them: ``recipe.batch_size``, ``model.width``.
    """
    there, needed = memory(), need(settings)
    if needed <= there:
        return
    values = {name: _get(settings, name) for name in names}
    values = {name: value for name, value in values.items() if value is not None}
    blamed = min(values, key=lambda name: need(_with(settings, name, _least(values[name]))))
    value = values[blamed]
    told = f"{blamed}={cut(value)}: the run takes about {size(needed)} of memory, and this machine has {size(there)}"
    if isinstance(value, int):
        low, high = 0, value
        while high - low > 1:
            middle = (low + high) // 2
            fits = need(_with(settings, blamed, middle)) <= there
            low, high = (middle, high) if fits else (low, middle)
        told += f"; must be at most {low}" if low else ""
    raise ValueError(told)


def least(networks: Callable[[], Mapping[str, Any]]) -> float:
    """Bytes of the weights and gradients of one run's networks, which are built without taking them.

    0 for networks that cannot be built so: for recipes that do not say what they take it is the least there is.
    """
    import torch

    with suppress(Exception), torch.random.fork_rng(devices=[]), torch.device("meta"):
        return sum(2.0 * p.numel() * p.element_size() for network in networks().values() for p in network.parameters())
    return 0.0


def _get(settings: Any, name: str) -> Any:
    for part in name.removeprefix("recipe.").split("."):
        settings = getattr(settings, part)
    return settings


def _with(settings: Any, name: str, value: Any) -> Any:
    """The settings with one of another value."""
    first, _, rest = name.removeprefix("recipe.").partition(".")
    return settings.model_copy(update={first: _with(getattr(settings, first), rest, value) if rest else value})


def _least(value: Any) -> Any:
    return [1] * len(value) if isinstance(value, list) else 1


def memory() -> float:
    """Bytes that this process can take at most: the machine's, its container's or its own limit; ∞ if unknown."""
    found = [math.inf]
    with suppress(AttributeError, ValueError, OSError):  # not on Windows
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for file in LIMITS:
        with suppress(OSError, ValueError):  # none, or max
            found.append(int(Path(file).read_text()))
    with suppress(ImportError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        found.append(math.inf if limit == resource.RLIM_INFINITY else limit)
    return min(found)


def forget_peak() -> None:
    """From now on :func:`taken` tells the peak anew, where the system can (Linux); elsewhere it is the process's."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def taken(model: Mapping[str, Any], device: Any) -> dict[str, float]:
    """What a run took: bytes of its optimizer's state, and the peak of the process or the GPU that trained it.

    Args:
        model: what the run leaves; entries whose names end with *optimizer* are states of optimizers.
        device: where it was trained.
    """
    found = {metrics.STATE_BYTES: float(sum(_bytes(v) for name, v in model.items() if name.endswith("optimizer")))}
    if device.type == "cuda":
        import torch

        return found | {metrics.PEAK_BYTES: float(torch.cuda.max_memory_allocated(device))}
    with suppress(OSError, ValueError, IndexError):
        told = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()
        found[metrics.PEAK_BYTES] = float(told[0]) * 1024
    return found


def _bytes(state: Any) -> int:
    if isinstance(state, Mapping):
        return sum(map(_bytes, state.values()))
    return int(state.numel() * state.element_size()) if hasattr(state, "element_size") else 0
