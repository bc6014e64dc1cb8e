"""Which rules the kernels know, and by which number they call a transform."""

from __future__ import annotations

from alphagrad.rule import Rule
from alphagrad.transform import Hybrid, Identity, ScaledTanh, Sign, SinTanh, Tanh, Transform

TANH, SIN_TANH, HYBRID, IDENTITY, SIGN = range(5)
CODES: dict[type[Transform], int] = {
    Tanh: TANH,
    ScaledTanh: TANH,
    SinTanh: SIN_TANH,
    Hybrid: HYBRID,
    Identity: IDENTITY,
    Sign: SIGN,
}
"""A transform's function of α·ĝ, ĝ and one number. Plain tanh is the scaled one with β = 1."""
LARGEST_KAPPA = 1e6
"""Beyond it the sine's reduction loses digits."""


def knows(rule: Rule) -> bool:
    """Whether the kernels compute this rule, exactly: a subclass of a transform may be another function."""
    transform = rule.transform
    if isinstance(transform, SinTanh):
        kappas = transform.kappa if isinstance(transform.kappa, tuple) else (transform.kappa,)
        if max(kappas) > LARGEST_KAPPA:
            return False
    return type(transform) in CODES
