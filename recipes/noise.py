"""Random numbers of the runs of a stack, which a recipe adds to its actions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from alphagrad.harness.state import pack, unpack


class Noise:
    """Random numbers of R runs, [R, *shape] a call, drawn from each run's own generator in blocks."""

    def __init__(self, generators: Sequence[np.random.Generator], shape: tuple[int, ...], block: int) -> None:
        self.generators = list(generators)
        self.shape, self.block = shape, block
        self._left: dict[str, list[np.ndarray]] = {"normal": [], "uniform": []}

    def normal(self) -> np.ndarray:
        """Standard normal, float32."""
        return self._next("normal", lambda rng, size: rng.standard_normal(size, dtype=np.float32))

    def uniform(self) -> np.ndarray:
        """Uniform on [0, 1), float32."""
        return self._next("uniform", lambda rng, size: rng.random(size, dtype=np.float32))

    def state_dict(self) -> dict[str, Any]:
        """The generators, and the numbers that are still to be handed out."""
        left = {kind: pack(np.array(rows, dtype=np.float32)) for kind, rows in self._left.items()}
        return {"generators": pack(self.generators), "left": left}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes them back."""
        unpack(self.generators, state["generators"])
        self._left = {kind: list(rows.numpy().copy()) for kind, rows in state["left"].items()}

    def _next(self, kind: str, draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]) -> np.ndarray:
        if not self._left[kind]:
            size = (self.block, *self.shape)
            drawn = np.stack([draw(rng, size) for rng in self.generators], axis=1)
            self._left[kind] = list(drawn[::-1])
        return self._left[kind].pop()
