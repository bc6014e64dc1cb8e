"""Stage 2 alone: ``g' = tanh(α·g)`` (section 7.6), with no normalisation before it."""

from alphagrad.alpha import Constant
from alphagrad.normalization import Unnormalized
from alphagrad.rule import Rule
from alphagrad.transform import Tanh
from alphagrad.values import Value


def tanh_only(alpha: Value = 100.0) -> Rule:
    """The rule of this file.

    Args:
        alpha: the steepness α of every tensor.
    """
    return Rule(Unnormalized(), Constant(alpha), Tanh())
