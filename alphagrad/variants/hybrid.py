"""A mix of the tanh and the normalised gradient itself.

::

    g' = λ·tanh(α·ĝ) + (1−λ)·ĝ

λ = 1 is ``alphagrad``, λ = 0 is ``normalize_only``. λ may also follow a ramp over the updates, or the saturation.

When to use it: where saturated components should still tell large from small. The two terms are of unequal
size: a component of tanh is about 1, one of ĝ about 1/√d. So λ = 0.5 is tanh at half size with next to
nothing added, and only λ near 0 mixes them. Tune λ on a logarithmic scale, such as 0.003, 0.03, 0.3.

Source: the paper, section 7.5.

>>> import torch
>>> from alphagrad import AlphaGrad, variants
>>> w = torch.nn.Parameter(torch.zeros(2))
>>> w.grad = torch.tensor([3.0, 4.0])  # ĝ = (0.6, 0.8)
>>> AlphaGrad([w], lr=1.0, rule=variants.hybrid(alpha=2.0, lam=0.25)).step()
>>> w.data
tensor([-0.6584, -0.8304])
"""

from alphagrad.alpha import Constant
from alphagrad.normalization import PerTensor
from alphagrad.rule import Rule
from alphagrad.transform import FromSaturation, Hybrid
from alphagrad.values import Ramp, Value


def hybrid(alpha: Value = 100.0, lam: Value | Ramp | FromSaturation = 0.5) -> Rule:
    """The rule: one norm and one α for each tensor, then the mix.

    Args:
        alpha: the steepness α of every tensor.
        lam: λ in [0, 1], a ramp over the updates, or 1 − S(α). tanh's components are O(1) where ĝ's are
            O(1/√d), so λ weighs the two very unequally.
    """
    return Rule(PerTensor(), Constant(alpha), Hybrid(lam))
