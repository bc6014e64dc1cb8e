"""The tanh after one norm over the weight and the bias of each module.

::

    g' = tanh(α·g / (‖g of the module‖ + ε))

The paper calls this layer-wise. A weight and its bias keep the ratio of their gradients.

When to use it: to compare units of the norm. The paper reports that the norm of each tensor is more stable.
Tensors belong together when their names agree up to the last dot, so the optimizer must be given
``model.named_parameters()``.

Source: the paper, section 5.3.

>>> import torch
>>> from alphagrad import AlphaGrad, variants
>>> model = torch.nn.Sequential(torch.nn.Linear(1, 1))
>>> model[0].weight.grad, model[0].bias.grad = torch.tensor([[4.0]]), torch.tensor([3.0])  # together of norm 5
>>> before = model[0].bias.item()
>>> AlphaGrad(model.named_parameters(), lr=1.0, rule=variants.module_wise(alpha=2.0)).step()
>>> round(model[0].bias.item() - before, 4)  # -tanh(2 · 0.6)
-0.8337
"""

from alphagrad.alpha import Constant
from alphagrad.normalization import PerModule
from alphagrad.rule import Rule
from alphagrad.transform import Tanh
from alphagrad.values import Value


def module_wise(alpha: Value = 100.0) -> Rule:
    """The rule: one norm for each module, one α for all tensors, then a tanh.

    Args:
        alpha: the steepness α of every tensor.
    """
    return Rule(PerModule(), Constant(alpha), Tanh())
