"""Stage 1 alone: ``g' = ĝ`` (section 7.6), normalised gradient descent."""

from alphagrad.normalization import PerTensor
from alphagrad.rule import Rule
from alphagrad.transform import Identity


def normalize_only() -> Rule:
    """The rule of this file."""
    return Rule(PerTensor(), None, Identity())
