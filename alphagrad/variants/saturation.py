"""The tanh with a steepness that follows the saturation of each tensor.

::

    g' = tanh(α·ĝ)    α grows while S(α) < low, shrinks while S(α) > high

S(α) is the share of components with ``|α·ĝᵢ| > tau``. Outside the band each update multiplies or divides α by 1.05.

When to use it: where no single α suits all tensors, or the best one changes during training. It costs one more
pass over the gradient, and keeps α and S in the state.

Source: the paper, section 7.3. The paper wishes for such a controller; its law is this project's.

>>> import torch
>>> from alphagrad import AlphaGrad, variants
>>> w = torch.nn.Parameter(torch.zeros(100))
>>> optimizer = AlphaGrad([w], rule=variants.saturation(k=1.0))
>>> w.grad = torch.ones(100)  # α·ĝᵢ = √100 · 0.1 = 1 everywhere, so that S = 0
>>> optimizer.step()
>>> round(optimizer.state[w]["alpha"].item(), 4)
10.5
"""

from alphagrad.alpha import Saturation, SqrtDim
from alphagrad.normalization import PerTensor
from alphagrad.rule import Rule
from alphagrad.transform import Tanh
from alphagrad.values import Value


def saturation(k: Value = 1.0, low: float = 0.05, high: float = 0.25, tau: float = 2.5) -> Rule:
    """The rule: one norm for each tensor, a controlled α, then a tanh.

    Args:
        k: α starts from ``k·√d_tensor``.
        low: α grows while S(α) is below.
        high: α shrinks while S(α) is above.
        tau: a component counts as saturated when ``|α·ĝᵢ| > tau``.
    """
    return Rule(PerTensor(), Saturation(SqrtDim(k), low, high, tau), Tanh())
