"""The tanh with a largest size β.

::

    g' = β·tanh(α·ĝ)

A saturated component moves by β·η.

When to use it: to tell the shape (α) from the size (β) of a step. Without weight decay β does what the
learning rate does: twice β is twice η. Tune one of the two, not both.

Source: the paper, section 7.1.

>>> import torch
>>> from alphagrad import AlphaGrad, variants
>>> w = torch.nn.Parameter(torch.zeros(2))
>>> w.grad = torch.tensor([3.0, 4.0])  # ĝ = (0.6, 0.8)
>>> AlphaGrad([w], lr=1.0, rule=variants.scaled_tanh(alpha=2.0, beta=0.5)).step()
>>> w.data
tensor([-0.4168, -0.4608])
"""

from alphagrad.alpha import Constant
from alphagrad.normalization import PerTensor
from alphagrad.rule import Rule
from alphagrad.transform import ScaledTanh
from alphagrad.values import Value


def scaled_tanh(alpha: Value = 100.0, beta: Value = 1.0) -> Rule:
    """The rule: one norm and one α for each tensor, then β times a tanh.

    Args:
        alpha: the steepness α of every tensor.
        beta: the largest size β of a component.
    """
    return Rule(PerTensor(), Constant(alpha), ScaledTanh(beta))
