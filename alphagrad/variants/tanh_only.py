"""The tanh alone, without normalisation.

::

    g' = tanh(α·g)

It limits each component to 1, as ``alphagrad`` does, but depends on the size of the gradient: a vanishing
gradient gives a vanishing step.

When to use it: to find out what the normalisation is worth. α must suit the size of the gradients, which
changes during training, so the α of another variant is no guide here.

Source: the paper, section 7.6.

>>> import torch
>>> from alphagrad import AlphaGrad, variants
>>> w = torch.nn.Parameter(torch.zeros(2))
>>> w.grad = torch.tensor([0.001, 50.0])
>>> AlphaGrad([w], lr=1.0, rule=variants.tanh_only(alpha=2.0)).step()
>>> w.data
tensor([-0.0020, -1.0000])
"""

from alphagrad.alpha import Constant
from alphagrad.normalization import Unnormalized
from alphagrad.rule import Rule
from alphagrad.transform import Tanh
from alphagrad.values import Value


def tanh_only(alpha: Value = 100.0) -> Rule:
    """The rule: no norm, one α for all tensors, then a tanh.

    Args:
        alpha: the steepness α of every tensor.
    """
    return Rule(Unnormalized(), Constant(alpha), Tanh())
