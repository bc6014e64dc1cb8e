"""Scaled tanh: ``g' = β·tanh(α·ĝ)`` (section 7.1)."""

from alphagrad.alpha import Constant
from alphagrad.normalization import PerTensor
from alphagrad.rule import Rule
from alphagrad.transform import ScaledTanh
from alphagrad.values import Value


def scaled_tanh(alpha: Value = 100.0, beta: Value = 1.0) -> Rule:
    """The rule of this file.

    Args:
        alpha: the steepness α of every tensor.
        beta: the largest size β of a component.
    """
    return Rule(PerTensor(), Constant(alpha), ScaledTanh(beta))
