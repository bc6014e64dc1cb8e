"""Training examples held out, for learning rates and other settings to be chosen on."""

from __future__ import annotations

import numpy as np


def divided(count: int, validation: float, examples: str) -> tuple[np.ndarray, np.ndarray]:
    """Indices that stay in training, and those that are evaluated on: the same for every run.

    Raises:
        ValueError: one of the two would be empty; it calls them by the name in ``examples``.
    """
    held = round(count * validation)
    if not 0 < held < count:
        raise ValueError(f"data.validation={validation}: of {count} {examples} that leaves none for one of the two")
    order = np.random.default_rng(0).permutation(count)
    return np.sort(order[held:]), np.sort(order[:held])
