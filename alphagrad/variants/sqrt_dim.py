"""Static per-tensor steepness: ``α = k·√d_tensor`` (section 2.1, equation 7)."""

from alphagrad.alpha import SqrtDim
from alphagrad.normalization import PerTensor
from alphagrad.rule import Rule
from alphagrad.transform import Tanh
from alphagrad.values import Value


def sqrt_dim(k: Value = 1.0) -> Rule:
    """The rule of this file.

    Args:
        k: the paper's guideline is 1 to 3.
    """
    return Rule(PerTensor(), SqrtDim(k), Tanh())
