"""The tanh after one norm over each parameter group.

::

    g' = tanh(α·g / (‖g of the group‖ + ε))

Tensors of one group keep the ratio of their gradients: a tensor with little gradient moves little. Under the
norm of each tensor they would all move alike.

When to use it: to find out whether the unit of the norm matters, or where tensors with small gradients ought
to stand still. A component of ĝ is smaller than under the norm of its tensor, so the same bend needs a larger α.

Source: the paper, section 5.3.

>>> import torch
>>> from alphagrad import AlphaGrad, variants
>>> weight, bias = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
>>> weight.grad, bias.grad = torch.tensor([4.0]), torch.tensor([3.0])  # the group's norm is 5
>>> AlphaGrad([weight, bias], lr=1.0, rule=variants.group_wise(alpha=2.0)).step()
>>> weight.data, bias.data  # -tanh(2 · 0.8) and -tanh(2 · 0.6)
(tensor([-0.9217]), tensor([-0.8337]))
"""

from alphagrad.alpha import Constant
from alphagrad.normalization import PerGroup
from alphagrad.rule import Rule
from alphagrad.transform import Tanh
from alphagrad.values import Value


def group_wise(alpha: Value = 100.0) -> Rule:
    """The rule: one norm for each parameter group, one α for all tensors, then a tanh.

    Args:
        alpha: the steepness α of every tensor.
    """
    return Rule(PerGroup(), Constant(alpha), Tanh())
