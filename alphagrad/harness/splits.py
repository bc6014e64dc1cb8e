"""A data set of a user's own, as its function gives it to a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Splits:
    """What a model trains on, and what it is evaluated on.

    ============  =============================================================================================
    recipe        each split
    ============  =============================================================================================
    ``image``     images uint8 [N, H, W, 1 or 3] and labels, integers [N] from 0
    ``text``      a list of texts and a list of as many labels, words or integers
    ``lm``        a list of documents, each a text
    ============  =============================================================================================

    Attributes:
        train: the split that is trained on.
        test: the split that is evaluated on.
        classes: of images the names of the classes, in the order of their labels; None for the labels themselves.
    """

    train: Any
    test: Any
    classes: Sequence[str] | None = None
