"""The paper's optimizer: the gradient of each tensor, normalised, then bent by a tanh.

::

    g' = tanh(α·ĝ)    with ĝ = g / (‖g‖ + ε)

No component of g' is larger than 1. While ‖g‖ is far above ε, g' depends on the direction of g alone. A small α is
normalised gradient descent with steps of length α·η; a large α gives signSGD.

When to use it: as the first of the variants to try. The published runs have α between 93 and 457. One α for
all tensors bends small tensors most, since their components of ĝ are larger; where tensors differ much in
size, try :mod:`~alphagrad.variants.sqrt_dim`. Tune the learning rate together with α.

Source: the paper, section 2, equations (2) and (3).

>>> import torch
>>> from alphagrad import AlphaGrad, variants
>>> w = torch.nn.Parameter(torch.zeros(2))
>>> w.grad = torch.tensor([3e-6, 4e-6])  # ĝ = (0.6, 0.8), however small the gradient is
>>> AlphaGrad([w], lr=1.0, rule=variants.alphagrad(alpha=2.0), eps=0.0).step()
>>> w.data
tensor([-0.8337, -0.9217])
"""

from alphagrad.alpha import Constant
from alphagrad.normalization import PerTensor
from alphagrad.rule import Rule
from alphagrad.transform import Tanh
from alphagrad.values import Value


def alphagrad(alpha: Value = 100.0) -> Rule:
    """The rule: one norm and one α for each tensor, then a tanh.

    Args:
        alpha: the steepness α of every tensor.
    """
    return Rule(PerTensor(), Constant(alpha), Tanh())
