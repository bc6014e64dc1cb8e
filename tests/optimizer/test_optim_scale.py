"""The update follows the gradient's direction alone; its limits, bounds and symmetries (paper, sections 2 and 3)."""

import itertools
import math

import numpy as np
import pytest
import torch
from cases import NORMALIZATIONS, SLOTS, TRANSFORMS, WITHOUT_ALPHA, covering, rule_of, settings_of, train_reference
from hypothesis import given
from hypothesis import strategies as st
from tiers import long, rows_one_in

from alphagrad import AlphaGrad, Rule
from alphagrad.alpha import Constant, SqrtDim
from alphagrad.normalization import Global, PerTensor
from alphagrad.transform import Hybrid, Identity, ScaledTanh, Sign, SinTanh, Tanh

NORMALIZED = [name for name in NORMALIZATIONS if name != "none"]


def update_of(grads, rule, eps=0.0, dtype=torch.float32, **kwargs):
    """g' of one step for a list of gradients: minus the parameters, which start from 0, at lr = 1."""
    params = [torch.nn.Parameter(torch.zeros(np.shape(g), dtype=dtype)) for g in grads]
    named = [(f"m{i // 2}.p{i}", p) for i, p in enumerate(params)]
    optimizer = AlphaGrad(named, lr=1.0, rule=rule, eps=eps, **kwargs)
    for p, g in zip(params, grads, strict=True):
        p.grad = torch.as_tensor(g, dtype=dtype)
    optimizer.step()
    return [-p.detach() for p in params]


def vectors(max_size=40, low=-6, high=6):
    """Gradients of up to ``max_size`` elements whose sizes span 12 decades, with zeros among them."""
    element = st.one_of(
        st.just(0.0),
        st.builds(lambda m, e, s: s * m * 10.0**e, st.floats(1, 9.9), st.integers(low, high), st.sampled_from([-1, 1])),
    )
    return st.lists(element, min_size=1, max_size=max_size).map(lambda v: np.float32(v).astype(np.float64))


smooth_rules = st.sampled_from(
    [
        Rule(PerTensor(), Constant(5.0), Tanh()),
        Rule(PerTensor(), SqrtDim(2.0), ScaledTanh(0.7)),
        Rule(PerTensor(), Constant(20.0), SinTanh(2.0)),
        Rule(PerTensor(), SqrtDim(1.0), Hybrid(0.3)),
        Rule(PerTensor(), None, Identity()),
    ]
)


@pytest.mark.parametrize("slots", [s for s in SLOTS if s[0] in NORMALIZED and s[1] in (None, "constant", "saturation")])
@pytest.mark.parametrize("scale", [1e-30, *long(1e-20, 1e-8, 1e8, 1e20), 1e30])
def test_update_does_not_depend_on_the_gradients_scale(slots, scale):
    rng = np.random.default_rng(3)
    grads = [np.float32(rng.uniform(0.5, 2, shape) * rng.choice([-1, 1], shape)) for shape in [(5, 4), (4,), (300,)]]
    base = update_of(grads, rule_of(*slots))
    for eps in (0.0, 1e-40):
        scaled = update_of([np.float32(np.float64(g) * scale) for g in grads], rule_of(*slots), eps)
        for u, v in zip(base, scaled, strict=True):
            assert v.abs().max() > 0
            torch.testing.assert_close(v, u, rtol=2e-6, atol=2e-6 * float(u.abs().max()))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_norm_of_many_elements_keeps_its_digits(scale):
    """A million equal elements: ĝ is 1/1000 each, at any scale."""
    (u,) = update_of([np.full(1_000_000, scale, np.float32)], Rule(PerTensor(), None, Identity()))
    torch.testing.assert_close(u, torch.full_like(u, 1e-3), rtol=1e-6, atol=0)


ZEROS = list(itertools.product(SLOTS, (0.0, 1e-8), (0.0, 0.9)))
CHOSEN = covering((0.0, 1e-8), (0.0, 0.9))


@pytest.mark.parametrize(
    ("slots", "eps", "momentum"),
    [*rows_one_in(3, CHOSEN), *(pytest.param(*case, marks=pytest.mark.slow) for case in ZEROS if case not in CHOSEN)],
)
def test_zero_gradients_give_zero_updates(slots, eps, momentum):
    """Of every rule, with every pair of its parts and settings; all combinations are in the slow tests."""
    for u in update_of([np.zeros((2, 3)), np.zeros(3), np.zeros(())], rule_of(*slots), eps, momentum=momentum):
        assert torch.equal(u, torch.zeros_like(u))


@pytest.mark.parametrize("eps", [0.0, 1e-8])
def test_zero_gradient_beside_others_moves_only_the_others(eps):
    for name in NORMALIZED:
        zero, other = update_of([np.zeros(3), np.ones(3)], rule_of(name, "constant", "tanh"), eps)
        assert torch.equal(zero, torch.zeros(3))
        assert other.abs().min() > 0


@given(vectors())
def test_small_alpha_is_normalised_gradient_descent(g):
    """C7: tanh(αĝ)/α → ĝ, with error below α²/3."""
    alpha = 1e-4
    (u,) = update_of([g], Rule(PerTensor(), Constant(alpha), ScaledTanh(1 / alpha)), dtype=torch.float64)
    (unit,) = update_of([g], Rule(PerTensor(), None, Identity()), dtype=torch.float64)
    torch.testing.assert_close(u, unit, rtol=alpha**2, atol=0)


@given(vectors(low=-2, high=2))
def test_large_alpha_is_the_sign(g):
    """C7: tanh(αĝ) → sign(ĝ)."""
    (u,) = update_of([g], Rule(PerTensor(), Constant(1e9), Tanh()))
    (sign,) = update_of([g], Rule(PerTensor(), None, Sign()))
    assert torch.equal(u, sign)
    assert torch.equal(sign, torch.as_tensor(np.sign(g), dtype=torch.float32))


def test_alpha_goes_from_one_limit_to_the_other():
    """C7: the angle to ĝ grows and the angle to sign(ĝ) shrinks as α grows."""
    g = np.random.default_rng(0).standard_normal(200)
    ups = [
        update_of([g], Rule(PerTensor(), Constant(a), Tanh()), dtype=torch.float64)[0] for a in np.logspace(-1, 4, 9)
    ]
    angle = lambda u, v: float(torch.nn.functional.cosine_similarity(u, torch.as_tensor(v), dim=0))  # noqa: E731
    to_unit, to_sign = [angle(u, g) for u in ups], [angle(u, np.sign(g)) for u in ups]
    assert to_unit == sorted(to_unit, reverse=True)
    assert to_sign == sorted(to_sign)
    assert to_unit[0] > 1 - 1e-6
    assert to_sign[-1] > 0.99


@given(vectors(), smooth_rules, st.floats(1e-20, 1e20))
def test_scaling_a_gradient_changes_nothing(g, rule, factor):
    (u,), (v,) = update_of([g], rule, dtype=torch.float64), update_of([g * factor], rule, dtype=torch.float64)
    torch.testing.assert_close(u, v, rtol=1e-12, atol=1e-12)


@given(vectors(), smooth_rules)
def test_update_is_odd(g, rule):
    (u,), (v,) = update_of([g], rule), update_of([-g], rule)
    assert torch.equal(u, -v)


@given(vectors(), smooth_rules, st.randoms(use_true_random=False))
def test_update_does_not_know_the_order_of_elements(g, rule, random):
    order = random.sample(range(len(g)), len(g))
    (u,), (v,) = update_of([g], rule, dtype=torch.float64), update_of([g[order]], rule, dtype=torch.float64)
    torch.testing.assert_close(v, u[order], rtol=1e-12, atol=1e-15)


@given(vectors())
def test_every_component_keeps_tanhs_relative_accuracy(g):
    """Elementwise, also where α·ĝ is tiny: a sigmoid in tanh's place would not pass."""
    (u,) = update_of([g], Rule(PerTensor(), Constant(3.0), Tanh()), eps=1e-8)
    settings = settings_of("tensor", "constant", "tanh", lr=1.0)
    expected = train_reference(settings, {"a.weight": np.zeros(len(g))}, [{"a.weight": g}]).values()["a.weight"]
    np.testing.assert_allclose(u.double().numpy(), -expected, rtol=1e-6, atol=1e-44)


BOUNDS = {
    "tanh": 1.0,
    "scaled_tanh": 0.6,
    "sin_tanh": 1.0,
    "hybrid": 1.0,
    "hybrid_ramp": 1.0,
    "hybrid_saturation": 1.0,
    "identity": 1.0,
    "sign": 1.0,
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@given(g=vectors(), lr=st.floats(1e-4, 10))
def test_no_component_moves_further_than_its_bound(transform, g, lr):
    rule = rule_of("tensor", None if transform in WITHOUT_ALPHA else "sqrt_dim", transform)
    p = torch.nn.Parameter(torch.zeros(len(g), dtype=torch.float64))
    p.grad = torch.as_tensor(g)
    AlphaGrad([p], lr=lr, rule=rule, eps=0.0).step()
    assert p.abs().max() <= lr * BOUNDS[transform] * (1 + 1e-12)


@given(vectors(), st.floats(0.01, 1e4), st.floats(0, 10), st.integers(1, 4))
def test_lemmas_1_and_2(g, alpha, eps, pieces):
    """Lemmas 1 and 2 (paper, section 3), one norm over all n parameters: ‖g'‖² ≤ n and ⟨g, g'⟩ ≥ tanh(α)·N²/(N+ε)."""
    parts = [p for p in np.array_split(g, pieces) if len(p)]
    rule = Rule(Global(), Constant(alpha), Tanh())
    u = torch.cat(update_of(parts, rule, eps, dtype=torch.float64)).numpy()
    n, norm = len(g), math.sqrt(float(np.sum(g * g)))
    descent = math.tanh(alpha) * norm**2 / (norm + eps) if norm else 0.0
    assert float(u @ u) <= n
    assert float(g @ u) >= descent * (1 - 1e-12)
