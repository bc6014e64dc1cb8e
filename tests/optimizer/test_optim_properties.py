"""What the paper says of the update (sections 2 and 7), for any gradient that hypothesis thinks of."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from alphagrad import AlphaGrad, Rule
from alphagrad.alpha import Constant, Quantile, SqrtDim
from alphagrad.normalization import Global, PerModule
from alphagrad.transform import Hybrid, Identity, Sign, SinTanh, Tanh
from alphagrad.values import TensorInfo

FAST = settings(max_examples=60, deadline=None)
NUMBERS = st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda x: x if abs(x) > 1e-6 else 0.0)
GRADIENTS = st.lists(NUMBERS, min_size=1, max_size=40).filter(any).map(lambda xs: torch.tensor(xs, dtype=torch.float64))
STEEP = st.floats(1e-3, 1e3)


def updates(*grads: torch.Tensor, rule: Rule, names=None, **settings) -> list[torch.Tensor]:
    """g' of each tensor: what one step at rate 1 takes away."""
    params = [torch.zeros_like(g) for g in grads]
    for p, g in zip(params, grads, strict=True):
        p.grad = g.clone()
    names = names or [f"layer{k}.weight" for k in range(len(grads))]
    AlphaGrad(list(zip(names, params, strict=True)), lr=1.0, rule=rule, **settings).step()
    return [-p for p in params]


def update(g: torch.Tensor, alpha: float | None = 10.0, transform=None, **settings) -> torch.Tensor:
    rule = Rule(alpha=None if alpha is None else Constant(alpha), transform=transform or Tanh())
    return updates(g, rule=rule, **settings)[0]


def saturation(g: torch.Tensor, alpha: float, tau: float) -> float:
    """S(α), from the update alone: |α·ĝ| > τ where |tanh(α·ĝ)| > tanh τ."""
    return float((update(g, alpha).abs() > math.tanh(tau)).double().mean())


@FAST
@given(GRADIENTS, STEEP)
def test_components_are_bounded(g, alpha):
    bent = update(g, alpha)
    assert float(bent.abs().max()) <= 1.0
    assert float(bent.square().sum()) <= len(g)  # Lemma 1
    assert float(bent.abs().max()) <= alpha * (1 + 1e-12)


@FAST
@given(GRADIENTS, STEEP)
def test_odd_symmetry(g, alpha):
    assert torch.equal(update(-g, alpha), -update(g, alpha))


@FAST
@given(GRADIENTS, STEEP, st.floats(-25, 25))
def test_scale_invariance(g, alpha, power):
    """C8, with ε = 0."""
    assert torch.allclose(update(g * 10.0**power, alpha, eps=0.0), update(g, alpha, eps=0.0), rtol=1e-9, atol=1e-12)


@FAST
@given(GRADIENTS, st.floats(1e-6, 1e6))
def test_epsilon_makes_small_gradients_smaller(g, eps):
    """ĝ = g/(‖g‖ + ε) and no other: its norm is ‖g‖/(‖g‖ + ε)."""
    norm = float(torch.linalg.vector_norm(g))
    unit = update(g, None, Identity(), eps=eps)
    assert float(torch.linalg.vector_norm(unit)) == pytest.approx(norm / (norm + eps), rel=1e-9)


@FAST
@given(GRADIENTS, STEEP, st.randoms(use_true_random=False))
def test_permutation_invariance(g, alpha, chance):
    order = torch.tensor(chance.sample(range(len(g)), len(g)))
    assert torch.allclose(update(g[order], alpha), update(g, alpha)[order], rtol=1e-12, atol=1e-14)


@FAST
@given(st.lists(GRADIENTS, min_size=2, max_size=4), st.floats(0.1, 10.0))
def test_tensors_do_not_know_of_each_other(grads, k):
    """Each has its own norm, and its own α = k·√d."""
    rule = Rule(alpha=SqrtDim(k))
    for together, g in zip(updates(*grads, rule=rule), grads, strict=True):
        assert torch.allclose(together, update(g, k * math.sqrt(len(g))), rtol=1e-12, atol=1e-14)


@FAST
@given(st.lists(GRADIENTS, min_size=2, max_size=4), st.floats(0.1, 10.0))
def test_global_divides_all_tensors_by_one_norm(grads, alpha):
    """They are bent as one tensor of all components would be."""
    together = torch.cat(updates(*grads, rule=Rule(Global(), Constant(alpha))))
    assert torch.allclose(together, update(torch.cat(grads), alpha), rtol=1e-9, atol=1e-14)


@FAST
@given(GRADIENTS, GRADIENTS, GRADIENTS, st.floats(0.1, 10.0))
def test_a_module_has_one_norm_for_its_weight_and_its_bias(weight, bias, other, alpha):
    """And knows nothing of other modules."""
    names = ["first.weight", "second.weight", "first.bias"]
    bent = updates(weight, other, bias, rule=Rule(PerModule(), Constant(alpha)), names=names)
    whole = update(torch.cat([weight, bias]), alpha)
    assert torch.allclose(torch.cat([bent[0], bent[2]]), whole, rtol=1e-9, atol=1e-14)
    assert torch.allclose(bent[1], update(other, alpha), rtol=1e-9, atol=1e-14)


@FAST
@given(GRADIENTS)
def test_both_limits_of_alpha(g):
    """α → 0 is normalised gradient descent times α, α → ∞ is signSGD."""
    unit = g / torch.linalg.vector_norm(g)
    assert torch.allclose(update(g, 1e-5, eps=0.0) / 1e-5, unit, rtol=1e-9, atol=1e-12)
    assume(float(unit[unit != 0].abs().min()) > 1e-12)
    assert torch.allclose(update(g, 1e15, eps=0.0), torch.sign(g))
    assert torch.equal(update(g, None, Sign()), torch.sign(g))


@FAST
@given(GRADIENTS, STEEP, st.floats(1.0, 10.0), st.floats(0.1, 3.0))
def test_saturation_grows_with_alpha(g, alpha, factor, tau):
    assert saturation(g, factor * alpha, tau) >= saturation(g, alpha, tau)
    assert bool((update(g, factor * alpha).abs() >= update(g, alpha).abs() * (1 - 1e-12)).all())


@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 0.5), st.floats(0.5, 3.0), st.integers(0, 2**31), st.floats(-9, 9))
def test_the_quantile_rule_hits_its_fraction_on_gaussian_gradients(fraction, tau, seed, power):
    d = 20_000
    g = torch.from_numpy(np.random.default_rng(seed).standard_normal(d)) * 10.0**power
    alpha = Quantile(fraction, tau).initial(TensorInfo("w", (d,), 0, d))
    assert saturation(g, float(alpha), tau) == pytest.approx(fraction, abs=5 * math.sqrt(fraction / d))


@FAST
@given(GRADIENTS, STEEP, st.floats(0, 1))
def test_the_hybrid_lies_between_its_end_points(g, alpha, lam):
    bent, unit = update(g, alpha), update(g, None, Identity())
    assert torch.allclose(update(g, alpha, Hybrid(1.0)), bent, rtol=1e-12, atol=1e-15)
    assert torch.allclose(update(g, alpha, Hybrid(0.0)), unit, rtol=1e-12, atol=1e-15)
    mixed = update(g, alpha, Hybrid(lam))
    assert torch.allclose(mixed, lam * bent + (1 - lam) * unit, rtol=1e-9, atol=1e-15)


@FAST
@given(GRADIENTS, STEEP, st.floats(1e-3, math.pi / 2))
def test_sin_tanh_has_its_range_and_is_monotonic_up_to_half_pi(g, alpha, kappa):
    turned = update(g, alpha, SinTanh(kappa))
    assert float(turned.abs().max()) <= math.sin(kappa) * (1 + 1e-12)
    order = torch.argsort(g)
    assert bool((turned[order].diff() >= -1e-12).all())


def test_sin_tanh_is_not_monotonic_beyond():
    g = torch.linspace(0.0, 1.0, 50, dtype=torch.float64)
    assert bool((update(g, 30.0, SinTanh(2.0)).diff() < -1e-6).any())


@FAST
@given(st.lists(st.lists(NUMBERS, min_size=3, max_size=3).filter(any), min_size=1, max_size=6), st.floats(0, 0.99))
def test_momentum_adds_bent_gradients(history, momentum):
    """v ← γ·v + g': bent first, then added up, with a plus."""
    grads = [torch.tensor(g, dtype=torch.float64) for g in history]
    p = torch.zeros(3, dtype=torch.float64)
    optimizer = AlphaGrad([p], lr=1.0, rule=Rule(alpha=Constant(3.0)), momentum=momentum)
    v, x = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for g in grads:
        p.grad = g
        optimizer.step()
        v = momentum * v + update(g, 3.0)
        x = x - v
    assert torch.allclose(p, x, rtol=1e-9, atol=1e-12)
