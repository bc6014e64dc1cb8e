"""One norm over each parameter group (section 5.3)."""

from alphagrad.alpha import Constant
from alphagrad.normalization import PerGroup
from alphagrad.rule import Rule
from alphagrad.transform import Tanh
from alphagrad.values import Value


def group_wise(alpha: Value = 100.0) -> Rule:
    """The rule of this file.

    Args:
        alpha: the steepness α of every tensor.
    """
    return Rule(PerGroup(), Constant(alpha), Tanh())
