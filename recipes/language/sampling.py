"""Text that a language model writes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


class Sampler:
    """Draws tokens of one run one by one; what it draws is decided by the run, the step and the model.

    Args:
        rng: the run's generator.
        temperature: divides the logits; below 1 it prefers what is likely.
        length: tokens that the model sees at most.
    """

    def __init__(self, rng: np.random.Generator, temperature: float, length: int) -> None:
        self._key = int(rng.integers(2**63))
        self.temperature, self.length = temperature, length

    def sample(
        self, predict: Callable[[Tensor], Tensor], start: int, count: int, step: int, device: torch.device
    ) -> list[int]:
        """``count`` tokens after ``start``; ``predict`` gives logits [1, T, V] for tokens [1, T]."""
        rng = np.random.default_rng([self._key, step])
        ids = [start]
        for _ in range(count):
            seen = torch.tensor([ids[-self.length :]], device=device)
            logits = predict(seen)[0, -1].double() / self.temperature
            shares = logits.softmax(-1).cumsum(-1)
            # where rounding leaves the sum below the draw, the last token
            ids.append(min(int(torch.searchsorted(shares, rng.random())), len(shares) - 1))
        return ids[1:]
