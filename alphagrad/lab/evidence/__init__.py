"""What the store tells of studies; never imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame


def frame(*arguments: Any, **options: Any) -> DataFrame:
    """A study as a pandas frame: see :func:`alphagrad.lab.evidence.frames.frame`."""
    from alphagrad.lab.evidence import frames  # not above: pandas takes a second

    return frames.frame(*arguments, **options)
