"""The sign of each component: signSGD.

::

    g' = sign(g)

It is what ``alphagrad`` becomes as α → ∞. Every component moves by η, however small its gradient is.

When to use it: as the end of a series of growing α, to find out what is left once a tanh no longer tells large
components from small ones. The baseline ``signsgd`` makes the same update by another package.

Source: the paper, section 2.

>>> import torch
>>> from alphagrad import AlphaGrad, variants
>>> w = torch.nn.Parameter(torch.zeros(3))
>>> w.grad = torch.tensor([1e-20, -5.0, 0.0])
>>> AlphaGrad([w], lr=1.0, rule=variants.sign()).step()
>>> w.data
tensor([-1.,  1.,  0.])
"""

from alphagrad.normalization import PerTensor
from alphagrad.rule import Rule
from alphagrad.transform import Sign


def sign() -> Rule:
    """The rule: the sign of each component."""
    return Rule(PerTensor(), None, Sign())
