"""The named variants: each file holds one equation, its source, and a function that returns the rule."""

from alphagrad.variants.alphagrad import alphagrad
from alphagrad.variants.group_wise import group_wise
from alphagrad.variants.hybrid import hybrid
from alphagrad.variants.module_wise import module_wise
from alphagrad.variants.normalize_only import normalize_only
from alphagrad.variants.saturation import saturation
from alphagrad.variants.scaled_tanh import scaled_tanh
from alphagrad.variants.sign import sign
from alphagrad.variants.sin_tanh import sin_tanh
from alphagrad.variants.sqrt_dim import sqrt_dim
from alphagrad.variants.tanh_only import tanh_only

__all__ = [
    "alphagrad",
    "group_wise",
    "hybrid",
    "module_wise",
    "normalize_only",
    "saturation",
    "scaled_tanh",
    "sign",
    "sin_tanh",
    "sqrt_dim",
    "tanh_only",
]
