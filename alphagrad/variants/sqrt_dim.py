"""The tanh with a steepness that grows with the size of the tensor.

::

    g' = tanh(α·ĝ)    with α = k·√d, d the number of elements of the tensor

A component of ĝ is about 1/√d, so α·ĝ is about k, in small tensors as in large ones.

When to use it: where tensors differ much in size, and as a start that needs no tuning of α. The paper's
guideline is k from 1 to 3. A larger k is closer to signSGD.

Source: the paper, section 2.1, equation (7).

>>> import torch
>>> from alphagrad import AlphaGrad, variants
>>> small, large = torch.nn.Parameter(torch.zeros(4)), torch.nn.Parameter(torch.zeros(10_000))
>>> small.grad, large.grad = torch.ones(4), torch.ones(10_000)
>>> AlphaGrad([small, large], lr=1.0, rule=variants.sqrt_dim(k=1.0)).step()
>>> small.data[0], large.data[0]  # -tanh(1) both
(tensor(-0.7616), tensor(-0.7616))
"""

from alphagrad.alpha import SqrtDim
from alphagrad.normalization import PerTensor
from alphagrad.rule import Rule
from alphagrad.transform import Tanh
from alphagrad.values import Value


def sqrt_dim(k: Value = 1.0) -> Rule:
    """The rule: one norm for each tensor, α from its size, then a tanh.

    Args:
        k: the paper's guideline is 1 to 3.
    """
    return Rule(PerTensor(), SqrtDim(k), Tanh())
