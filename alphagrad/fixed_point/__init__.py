"""AlphaGrad in integers: int8 gradients, int16 weights, a norm in 32 bits, a tanh from a table.

``update`` is the emulation in torch, ``FixedPoint`` an optimizer that trains with it, ``header`` the same as C.
"""

from alphagrad.fixed_point.header import header
from alphagrad.fixed_point.number import Number, on_grid, quantized
from alphagrad.fixed_point.optimizer import FixedPoint
from alphagrad.fixed_point.update import update

__all__ = ["FixedPoint", "Number", "header", "on_grid", "quantized", "update"]
