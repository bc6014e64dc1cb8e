"""λ-hybrid: ``g' = λ·tanh(α·ĝ) + (1−λ)·ĝ`` (section 7.5)."""

from alphagrad.alpha import Constant
from alphagrad.normalization import PerTensor
from alphagrad.rule import Rule
from alphagrad.transform import FromSaturation, Hybrid
from alphagrad.values import Ramp, Value


def hybrid(alpha: Value = 100.0, lam: Value | Ramp | FromSaturation = 0.5) -> Rule:
    """The rule of this file.

    Args:
        alpha: the steepness α of every tensor.
        lam: λ in [0, 1], a ramp over the updates, or 1 − S(α). tanh's components are O(1) where ĝ's are
            O(1/√d), so λ weighs the two very unequally.
    """
    return Rule(PerTensor(), Constant(alpha), Hybrid(lam))
