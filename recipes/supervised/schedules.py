"""Learning-rate schedules as factors of the configured rate."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from alphagrad.harness.recipe import Settings

KINDS = Literal["constant", "cosine", "one_cycle"]


class ScheduleSettings(Settings):
    """How the learning rate changes over a run."""

    kind: KINDS
    warmup: float = Field(ge=0, lt=1)
    """Share of the steps over which the rate rises."""
    start: float = Field(ge=0, le=1)
    """The factor at the first step."""
    end: float = Field(ge=0, le=1)
    """The factor at the last step; a constant schedule has none."""


def factor(s: ScheduleSettings, step: int, total: int) -> float:
    """What multiplies the learning rate at ``step`` of ``total``, 0 ≤ step < total.

    *constant*: linear warm-up, then 1. *cosine*: linear warm-up, then half a cosine to ``end``, reached at
    the last step. *one_cycle*: half a cosine up from ``start``, then half a cosine down to ``end``, the rate
    of ``torch.optim.lr_scheduler.OneCycleLR``; the momentum stays as it is.

    The last step that rises is ``warmup·total − 1``, as in OneCycleLR.
    """
    peak = s.warmup * total - 1
    if step < peak:
        risen = step / peak
        return s.start + (1 - s.start) * (_half_cosine(risen) if s.kind == "one_cycle" else risen)
    if s.kind == "constant":
        return 1.0
    fall = total - 1 - max(peak, 0)
    return 1 + (s.end - 1) * _half_cosine((step - max(peak, 0)) / fall if fall > 0 else 0.0)


def _half_cosine(x: float) -> float:
    """From 0 to 1 as x does, flat at both ends."""
    return (1 - math.cos(math.pi * x)) / 2
