"""What a checkpoint holds of a recipe's parts: tensors and plain values, so that loading it can run no code."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from alphagrad.common.errors import ConfigError

PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.device)
"""What is saved as it is; ``torch.load`` takes it with ``weights_only``."""


@runtime_checkable
class HasState(Protocol):
    """As torch's modules and optimizers."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


class Stateful:
    """An object whose state is the attributes named in ``STATE``."""

    STATE: ClassVar[tuple[str, ...]]

    def state_dict(self) -> dict[str, Any]:
        """The attributes as tensors and plain values."""
        return {name: pack(getattr(self, name)) for name in self.STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the attributes back."""
        for name in self.STATE:
            setattr(self, name, unpack(getattr(self, name), state_dict[name]))


def pack(part: Any) -> Any:  # noqa: PLR0911
    """A part's state as tensors and plain values.

    Args:
        part: a tensor, an array, a NumPy generator, a plain value, something with ``state_dict``, or a
            mapping or list of these.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(part, Tensor):
        kept = part.detach()
        # a view would be saved with everything it is a view of
        return kept if kept.untyped_storage().nbytes() == kept.nbytes else kept.clone()
    if isinstance(part, np.ndarray):
        return torch.from_numpy(np.array(part))
    if isinstance(part, np.random.Generator):
        return pack(part.bit_generator.state)
    if isinstance(part, np.generic):
        return part.item()
    if isinstance(part, PLAIN):
        return part
    if isinstance(part, HasState):
        return pack(part.state_dict())
    if isinstance(part, Mapping):
        return {key: pack(value) for key, value in part.items()}
    if isinstance(part, tuple):
        return tuple(pack(value) for value in part)  # some optimizers take no list where they had a tuple
    if isinstance(part, (list, deque)):
        return [pack(value) for value in part]
    raise TypeError(f"a {type(part).__name__} has no state that a checkpoint can hold; give it state_dict()")


def unpack(part: Any, state: Any) -> Any:  # noqa: PLR0911
    """The part with a packed state: tensors, generators and objects take it in place, other values are new.

    Raises:
        ValueError: the state belongs to something of another shape.
    """
    if isinstance(part, Tensor):
        if part.shape != state.shape:
            raise ValueError(f"its tensor is {list(state.shape)}, and {list(part.shape)} here")
        with torch.no_grad():
            return part.copy_(state)
    if isinstance(part, np.ndarray):
        return state.numpy().copy()
    if isinstance(part, np.random.Generator):
        part.bit_generator.state = _arrays(state)
        return part
    if isinstance(part, HasState):
        part.load_state_dict(state)
        return part
    if isinstance(part, Mapping):
        if set(part) != set(state):
            raise ValueError(f"it has {', '.join(map(str, state))}, and {', '.join(map(str, part))} here")
        new = {key: unpack(value, state[key]) for key, value in part.items()}
        if isinstance(part, dict):
            part.update(new)
            return part
        return new
    if isinstance(part, deque):
        return deque(state, maxlen=part.maxlen)
    if isinstance(part, (list, tuple)) and any(isinstance(p, (deque, np.random.Generator, HasState)) for p in part):
        return type(part)(unpack(p, s) for p, s in zip(part, state, strict=True))
    return state


def put_back(state: Mapping[str, Any], parts: Mapping[str, Any], device: torch.device) -> int:
    """Brings the parts and torch's generators to a saved state; returns the first step to take.

    Raises:
        ConfigError: the state belongs to other parts.
    """
    saved = state["parts"]
    if set(saved) != set(parts):
        raise ConfigError(f"the checkpoint holds {', '.join(saved)}, the recipe has {', '.join(parts)}")
    for name, part in parts.items():
        try:
            unpack(part, saved[name])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"the checkpoint's {name} does not fit: {' '.join(str(error).split())}") from error
    torch.set_rng_state(state["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
    return int(state["step"])


def _arrays(state: Any) -> Any:
    """Tensors back to arrays, as some of NumPy's generators have them in their state."""
    if isinstance(state, Tensor):
        return state.numpy().copy()
    return {key: _arrays(value) for key, value in state.items()} if isinstance(state, Mapping) else state
