"""Saturation-driven steepness: α keeps S(α), per tensor, within a band (section 7.3)."""

from alphagrad.alpha import Saturation, SqrtDim
from alphagrad.normalization import PerTensor
from alphagrad.rule import Rule
from alphagrad.transform import Tanh
from alphagrad.values import Value


def saturation(k: Value = 1.0, low: float = 0.05, high: float = 0.25, tau: float = 2.5) -> Rule:
    """The rule of this file.

    Args:
        k: α starts from ``k·√d_tensor``.
        low: α grows while S(α) is below.
        high: α shrinks while S(α) is above.
        tau: a component counts as saturated when ``|α·ĝᵢ| > tau``.
    """
    return Rule(PerTensor(), Saturation(SqrtDim(k), low, high, tau), Tanh())
