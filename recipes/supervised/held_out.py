"""Some of the training examples: held out, for settings to be chosen on, or evenly spread over all of them."""

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


def spread(count: int, wanted: int) -> np.ndarray:
    """Indices of ``wanted`` of ``count`` examples, or of all, evenly spread: they may lie in the order of classes."""
    return np.arange(min(count, wanted)) * count // min(count, wanted)
