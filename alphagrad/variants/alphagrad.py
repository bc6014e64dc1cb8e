"""The paper's optimizer: ``g' = tanh(α·ĝ)`` (section 2, equations 2-3)."""

from alphagrad.alpha import Constant
from alphagrad.normalization import PerTensor
from alphagrad.rule import Rule
from alphagrad.transform import Tanh
from alphagrad.values import Value


def alphagrad(alpha: Value = 100.0) -> Rule:
    """The rule of this file.

    Args:
        alpha: the steepness α of every tensor.
    """
    return Rule(PerTensor(), Constant(alpha), Tanh())
