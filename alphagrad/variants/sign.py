"""The limit α → ∞: ``g' = sign(ĝ)`` (section 2), signSGD."""

from alphagrad.normalization import PerTensor
from alphagrad.rule import Rule
from alphagrad.transform import Sign


def sign() -> Rule:
    """The rule of this file."""
    return Rule(PerTensor(), None, Sign())
