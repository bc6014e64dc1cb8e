"""The sine of the tanh: large components may move less than middling ones.

::

    g' = sin(κ·tanh(α·ĝ))

A saturated component moves by sin κ. Up to κ = π/2 the curve rises throughout. Beyond that it falls again for
large components, and beyond κ = π they move against the gradient's sign.

When to use it: to find out whether outliers of the gradient should count less. Try κ between 1 and 2.

Source: the paper, section 7.1.

>>> import torch
>>> from alphagrad import AlphaGrad, variants
>>> w = torch.nn.Parameter(torch.zeros(2))
>>> w.grad = torch.tensor([3.0, 4.0])  # ĝ = (0.6, 0.8)
>>> AlphaGrad([w], lr=1.0, rule=variants.sin_tanh(alpha=2.0, kappa=2.5)).step()
>>> w.data  # the larger component moves less
tensor([-0.8711, -0.7429])
"""

from alphagrad.alpha import Constant
from alphagrad.normalization import PerTensor
from alphagrad.rule import Rule
from alphagrad.transform import SinTanh
from alphagrad.values import Value


def sin_tanh(alpha: Value = 100.0, kappa: Value = 1.0) -> Rule:
    """The rule: one norm and one α for each tensor, then the sine of a tanh.

    Args:
        alpha: the steepness α of every tensor.
        kappa: κ; a saturated component moves by sin κ.
    """
    return Rule(PerTensor(), Constant(alpha), SinTanh(kappa))
