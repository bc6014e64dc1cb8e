"""One norm over each module's own weight and bias: the paper's "layer-wise" normalisation (section 5.3)."""

from alphagrad.alpha import Constant
from alphagrad.normalization import PerModule
from alphagrad.rule import Rule
from alphagrad.transform import Tanh
from alphagrad.values import Value


def module_wise(alpha: Value = 100.0) -> Rule:
    """The rule of this file.

    Args:
        alpha: the steepness α of every tensor.
    """
    return Rule(PerModule(), Constant(alpha), Tanh())
