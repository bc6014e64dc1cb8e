"""The update in integers against the float update, and at work."""

import math

import pytest
import torch
from sklearn.datasets import load_digits
from tiers import long

from alphagrad import AlphaGrad, variants
from alphagrad.fixed_point import FixedPoint, Number, on_grid, quantized, update
from alphagrad.fixed_point.update import norm, random_bits


@pytest.mark.parametrize("alpha", [0.1, 3.0, 100.0, 1e4])
def test_it_is_the_float_update(alpha):
    """Step by step, from the weights where the integers stand: apart by the table's error and half a unit."""
    rng = torch.Generator().manual_seed(1)
    weights = on_grid(torch.randn(500, generator=rng), 12)
    for _ in range(50):
        gradient = torch.randint(-127, 128, (500,), generator=rng).to(torch.int8)
        p = torch.nn.Parameter(weights.double() * 2.0**-12)
        p.grad = gradient.double() * 2.0**-30
        AlphaGrad([p], lr=0.05, rule=variants.alphagrad(alpha), eps=0.0, fused=False).step()
        weights, _ = update(weights, gradient, Number.of(alpha), Number.of(0.05), 12)
        apart = (weights.double() * 2.0**-12 - p.detach()).abs().max()
        assert apart <= 0.05 * 6e-4 + 0.5 * 2.0**-12


def test_random_rounding_keeps_small_steps_on_average():
    """A step of a fifth of a unit: lost by rounding to the nearest."""
    gradient, rate = torch.full((100_000,), 127, dtype=torch.int8), Number.of(0.2 * 2.0**-12)
    start = torch.zeros(100_000, dtype=torch.int16)
    alpha = Number.of(1e5)
    assert not update(start, gradient, alpha, rate, 12)[0].any()
    moved, noise = update(start, gradient, alpha, rate, 12, 0)
    assert noise == 100_000
    assert abs(float(moved.double().mean()) + 0.2) < 5 * math.sqrt(0.2 * 0.8 / 100_000)


def test_the_bits_are_even():
    bits = random_bits(torch.arange(1 << 16))
    shares = torch.stack([(bits >> i & 1).double().mean() for i in range(32)])
    assert ((shares - 0.5).abs() < 5 * 0.5 / 256).all()
    assert len(bits.unique()) == 1 << 16  # a bijection


@pytest.mark.parametrize("n", [1, 2, 1000, 200_000, 1 << 18])
@pytest.mark.parametrize("largest", [1, 128])
def test_the_norm(n, largest):
    gradient = torch.randint(-largest, largest, (n,), generator=torch.Generator().manual_seed(n)).to(torch.int8)
    gradient[0] = -largest
    root, exponent = norm(gradient)
    assert 1 << 14 <= root < 1 << 15
    assert math.ldexp(root, exponent) == pytest.approx(float(gradient.double().norm()), rel=2.0**-14 + 2.0**-20)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-3, 0.9999999, 100.0, 5e-324, 1.7e308])
def test_a_number_is_near(value):
    number = Number.of(value)
    assert 1 << 14 <= number.mantissa < 1 << 15 or value == 0
    assert float(number) == pytest.approx(value, rel=2.0**-15, abs=0)


@pytest.mark.parametrize("scale", [1e-45, 1e-30, 1.0, 1e30, 3e38])
def test_a_gradient_of_any_size_gives_the_same_step(scale):
    direction = torch.tensor([1.0, -0.5, 0.25, 0.0]) if scale > 1e-40 else torch.tensor([1.0, -1.0, 1.0, 0.0])
    grad = direction * scale
    quantised, exponent = quantized(grad)
    assert quantised.abs().max() in range(64, 128)
    torch.testing.assert_close(quantised.double() * 2.0**exponent, grad.double(), rtol=0, atol=2.0**exponent)
    p = torch.nn.Parameter(torch.zeros(4))
    p.grad = grad
    FixedPoint([p], lr=1.0, alpha=1.0, rounding="nearest").step()
    expected = -torch.tanh(direction / direction.norm())
    torch.testing.assert_close(p.detach(), expected, rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("lr", -1.0),
        ("lr", math.nan),
        ("alpha", math.inf),
        ("k", -1.0),
        ("weight_bits", 16),
        ("weight_bits", 1.5),
        ("rounding", "up"),
        ("nonfinite", "propagate"),
        ("seed", -1),
        ("seed", 2**32),
    ],
)
def test_a_wrong_setting_is_named(setting, value):
    with pytest.raises(ValueError, match=rf"^{setting}: must"):
        FixedPoint([torch.nn.Parameter(torch.zeros(2))], **{setting: value})


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="weight_bits: with 12 weights lie within ±8, and one is 9"):
        FixedPoint([torch.nn.Parameter(torch.full((2,), 9.0))])
    with pytest.raises(ValueError, match="weight_bits: with 12 weights lie within ±8, and one is nan"):
        FixedPoint([torch.nn.Parameter(torch.full((2,), math.nan))])
    with pytest.raises(ValueError, match="float32 or float64"):
        FixedPoint([torch.nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite(bad):
    def step(nonfinite):
        a, b = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
        a.grad, b.grad = torch.ones(2), torch.tensor([bad, 1.0])
        optimizer = FixedPoint([a, b], lr=0.1, nonfinite=nonfinite)
        try:
            optimizer.step()
        finally:
            assert b.eq(1).all()
            assert bool(a.eq(1).all()) == (nonfinite == "raise")
        return {name: int(count) for name, count in optimizer.skipped().items()}

    assert step("skip") == {"parameter 1": 1}
    with pytest.raises(ValueError, match="not finite"):
        step("raise")


@pytest.fixture(scope="module")
def digits():
    found = load_digits()
    images, labels = torch.tensor(found.data, dtype=torch.float32) / 16, torch.tensor(found.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return images[order], labels[order]


def trained(digits, steps, optimizer=None, model=None, first=0, **settings):
    """An MLP after some steps on digits, and its optimizer."""
    images, labels = digits
    torch.manual_seed(0)
    if model is None:
        model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    optimizer = optimizer or FixedPoint(model.parameters(), **settings)
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (1 - step / 400)
        at = torch.randint(1400, (64,), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images[at]), labels[at]).backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("settings", [{"k": 1.0}, *long({"k": 1.0, "rounding": "nearest"}, {"alpha": 30.0})])
def test_a_network_learns_digits(digits, settings):
    model, optimizer = trained(digits, 400, **settings)
    images, labels = digits
    assert (model(images[1400:]).argmax(1) == labels[1400:]).double().mean() > 0.93
    for p in model.parameters():
        assert torch.equal(p, on_grid(p, 12).float() * 2.0**-12)
    assert not optimizer.state


def test_it_goes_on_from_a_saved_state(digits, tmp_path):
    whole = trained(digits, 20, k=1.0)[0]
    model, optimizer = trained(digits, 10, k=1.0)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    again = FixedPoint(model.parameters())
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    trained(digits, 20, again, model, first=10)
    for p, q in zip(whole.parameters(), model.parameters(), strict=True):
        assert torch.equal(p, q)
