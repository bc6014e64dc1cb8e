"""Sine of tanh: ``g' = sin(κ·tanh(α·ĝ))`` (section 7.1); not monotonic once κ > π/2."""

from alphagrad.alpha import Constant
from alphagrad.normalization import PerTensor
from alphagrad.rule import Rule
from alphagrad.transform import SinTanh
from alphagrad.values import Value


def sin_tanh(alpha: Value = 100.0, kappa: Value = 1.0) -> Rule:
    """The rule of this file.

    Args:
        alpha: the steepness α of every tensor.
        kappa: κ; a saturated component moves by sin κ.
    """
    return Rule(PerTensor(), Constant(alpha), SinTanh(kappa))
