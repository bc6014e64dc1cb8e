"""The kernels' tanh and sine, over all floats."""

import numpy as np
import pytest
from numba import njit

from alphagrad.kernels import elements


@njit
def tanh_of(x, out):
    for i in range(x.size):
        out[i] = elements.tanh(x[i])


@njit
def short_sine_of(x, out):
    for i in range(x.size):
        out[i] = elements.short_sine(x[i])


@njit
def sine_of(x, out):
    for i in range(x.size):
        out[i] = elements.sine(x[i])


def floats(first, last, every):
    return np.arange(first, last, every, dtype=np.uint32).view(np.float32)


@pytest.mark.parametrize("every", [1009, pytest.param(1, marks=pytest.mark.slow)])
def test_tanh_keeps_its_relative_accuracy_over_all_floats(every):
    """From the smallest subnormal to inf: 3e-7, half a unit in the last place more among subnormals."""
    for first in range(0, 0x7F800001, 1 << 26):
        x = floats(first, min(first + (1 << 26), 0x7F800001), every)
        out = np.empty_like(x)
        tanh_of(x, out)
        expected = np.tanh(x.astype(np.float64))
        assert (np.abs(out - expected) <= 3e-7 * expected + 2.0**-150).all()
        negative = np.empty_like(x)
        tanh_of(-x, negative)
        assert np.array_equal(negative, -out)


def test_tanh_of_special_numbers():
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 9.1, 3e38], np.float32)
    out = np.empty_like(x)
    tanh_of(x, out)
    assert np.array_equal(out, np.array([1, -1, np.nan, 0, 0, 1, 1], np.float32), equal_nan=True)
    assert np.signbit(out[4])


def test_sine_is_accurate_up_to_its_limit():
    x = np.concatenate([np.linspace(-20, 20, 100_001), np.linspace(-1e6, 1e6, 100_001)])
    out = np.empty_like(x)
    sine_of(x, out)
    np.testing.assert_allclose(out, np.sin(x), rtol=0, atol=1e-9)


def test_the_short_sine_is_accurate_up_to_pi():
    """2e-7 absolute; small numbers, subnormal ones too, to their last bit but one. Odd, and NaN stays NaN."""
    largest = int(np.float32(np.pi).view(np.uint32))
    x = floats(0, largest + 1, 997)
    out, negative = np.empty_like(x), np.empty_like(x)
    short_sine_of(x, out)
    short_sine_of(-x, negative)
    exact = np.sin(x.astype(np.float64))
    assert (np.abs(out - exact) <= 2e-7).all()
    small = x < 1
    assert (np.abs(out - exact)[small] <= 2e-7 * exact[small] + 2.0**-149).all()
    assert np.array_equal(negative, -out)
    short_sine_of(np.array([np.nan], np.float32), out)
    assert np.isnan(out[0])
