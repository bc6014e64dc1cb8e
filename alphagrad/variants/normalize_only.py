"""Normalisation alone, without the tanh: normalised gradient descent.

::

    g' = ĝ    with ĝ = g / (‖g‖ + ε)

Without momentum each tensor moves by exactly η, in the direction of its gradient.

When to use it: to find out what the tanh is worth. A component moves by about η/√d, where under ``alphagrad``
it moves by up to η. So a fair comparison needs a much larger learning rate here: up to √d times as large.

Source: the paper, section 7.6; the limit α → 0 of section 2, up to the factor α.

>>> import torch
>>> from alphagrad import AlphaGrad, variants
>>> w = torch.nn.Parameter(torch.zeros(2))
>>> w.grad = torch.tensor([300.0, 400.0])
>>> AlphaGrad([w], lr=1.0, rule=variants.normalize_only()).step()
>>> w.data
tensor([-0.6000, -0.8000])
"""

from alphagrad.normalization import PerTensor
from alphagrad.rule import Rule
from alphagrad.transform import Identity


def normalize_only() -> Rule:
    """The rule: one norm for each tensor, and nothing that bends."""
    return Rule(PerTensor(), None, Identity())
