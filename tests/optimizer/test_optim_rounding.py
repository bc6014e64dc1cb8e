"""Half precision that keeps what rounding would lose, and momentum of another type than the parameter's."""

import io
import warnings

import pytest
import torch
from cases import NORMALIZATIONS, TRANSFORMS, WITHOUT_ALPHA, make_values, rule_of, train

from alphagrad import AlphaGrad, Rule
from alphagrad.alpha import Constant
from alphagrad.normalization import Blend, Unnormalized
from alphagrad.rounding import stochastic
from alphagrad.transform import Hybrid, Identity, ScaledTanh

QUIET = pytest.mark.filterwarnings("ignore:lr. steps")


def descend(steps=400, dtype=torch.bfloat16, lr=1e-3, start=1.0, **settings):
    """A parameter at ``start`` whose gradient always points up: each step should take ``lr`` off."""
    torch.manual_seed(0)
    p = torch.nn.Parameter(torch.full((64,), start, dtype=dtype))
    optimizer = AlphaGrad([p], lr=lr, rule=Rule(alpha=Constant(1e3)), **settings)
    for _ in range(steps):
        p.grad = torch.ones_like(p)
        optimizer.step()
    return p.detach().double(), optimizer


@QUIET
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_to_the_nearest_small_steps_vanish(dtype):
    p, _ = descend(dtype=dtype, lr=1e-4)
    assert torch.equal(p, torch.ones(64).double())


def test_stochastic_rounding_gets_there_on_average():
    p, optimizer = descend(rounding="stochastic")
    assert abs(p.mean().item() - 0.6) < 0.02
    assert p.std() > 0
    assert set(optimizer.state[optimizer.param_groups[0]["params"][0]]) == {"skipped"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_kahan_gets_there_exactly(dtype):
    """To the resolution of the sum of parameter and remainder."""
    p, optimizer = descend(dtype=dtype, rounding="kahan")
    kept = optimizer.state[optimizer.param_groups[0]["params"][0]]["compensation"]
    assert kept.dtype == dtype
    torch.testing.assert_close(p + kept.double(), torch.full_like(p, 0.6), rtol=0, atol=2e-3)
    assert (p - 0.6).abs().max() < 4e-3


def test_stochastic_rounding_is_unbiased():
    """Each result is one of the two neighbours, and their mean is the number: within five standard errors."""
    torch.manual_seed(0)
    n = 20_000
    for value in (1.001, -1.001, 3e-39, 1e-3, 250.3):
        got = stochastic(torch.full((n,), value)).double()
        low, high = got.min().item(), got.max().item()
        assert len(set(got.tolist())) == 2
        assert low < value < high
        assert abs(got.mean().item() - value) < 5 * (high - low) / 2 / n**0.5
    for exact in (1.0, 0.0, -2.5, float("inf"), -float("inf")):
        assert (stochastic(torch.full((9,), exact)) == exact).all()
    assert stochastic(torch.tensor([float("nan")])).isnan().all()


@pytest.mark.parametrize("rounding", ["stochastic", "kahan"])
def test_full_precision_is_not_rounded(rounding):
    initial, grads = make_values()
    _, plain = train(Rule(), initial, grads, lr=0.1)
    _, other = train(Rule(), initial, grads, lr=0.1, rounding=rounding, fused=False)
    for name, p in plain.items():
        torch.testing.assert_close(other[name], p, rtol=1e-6, atol=1e-7)


def test_stochastic_rounding_of_float16_is_refused():
    with pytest.raises(ValueError, match=r"^rounding: stochastic is for bfloat16.*kahan"):
        AlphaGrad([torch.nn.Parameter(torch.zeros(2, dtype=torch.float16))], rounding="stochastic")


@pytest.mark.parametrize("rounding", ["stochastic", "kahan"])
def test_a_loaded_state_goes_on_the_same(rounding):
    p, optimizer = descend(20, rounding=rounding, momentum=0.9)
    twin = torch.nn.Parameter(p.to(torch.bfloat16))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    fresh = AlphaGrad([twin], rule=Rule(alpha=Constant(1e3)))
    fresh.load_state_dict(torch.load(file, weights_only=True))
    own = optimizer.param_groups[0]["params"][0]
    for o, x in ((optimizer, own), (fresh, twin)):
        torch.manual_seed(1)
        for _ in range(5):
            x.grad = torch.ones_like(x)
            o.step()
    assert torch.equal(own, twin)


@pytest.mark.parametrize("how", [{}, {"fused": False}, {"foreach": False}], ids=["kernel", "foreach", "loop"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_momentum_may_have_a_type_of_its_own(dtype, how):
    """Half the memory; the parameters stay near what float32 momentum makes of them, and the type survives saving."""
    initial, grads = make_values()
    _, full = train(Rule(alpha=Constant(3.0)), initial, grads, lr=0.1, momentum=0.9)
    how = {"momentum_dtype": dtype, **how}
    optimizer, half = train(Rule(alpha=Constant(3.0)), initial, grads, lr=0.1, momentum=0.9, **how)
    resolution = torch.finfo(dtype).eps
    for name, p in full.items():
        assert optimizer.state[half[name]]["momentum_buffer"].dtype == dtype
        torch.testing.assert_close(half[name], p, rtol=4 * resolution, atol=4 * resolution * 0.1)
    if dtype != torch.float32:
        assert any(not torch.equal(half[name], p) for name, p in full.items())
    other = AlphaGrad([{"params": g["params"], "rule": g["rule"]} for g in optimizer.param_groups], momentum=0.9)
    other.load_state_dict(optimizer.state_dict())
    assert {s["momentum_buffer"].dtype for s in other.state.values()} == {dtype}


def first_step(lr=1e-3, start=1.0, dtype=torch.bfloat16, **settings):
    descend(3, dtype=dtype, lr=lr, start=start, **settings)


@pytest.mark.parametrize(
    "settings",
    [{}, {"dtype": torch.float16, "lr": 1e-4}, {"rule": Rule(transform=ScaledTanh(0.5))}, {"fused": False}],
    ids=str,
)
def test_steps_below_the_resolution_are_warned_of_once(settings):
    settings = dict(settings)
    dtype, rule = settings.pop("dtype", torch.bfloat16), settings.pop("rule", Rule())
    p = torch.nn.Parameter(torch.ones(8, dtype=dtype))
    optimizer = AlphaGrad([p], rule=rule, **settings)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(3):
            p.grad = torch.ones_like(p)
            optimizer.step()
    assert len(seen) == 1
    assert str(seen[0].message).startswith("lr: steps of ")
    assert "rounding='stochastic' or 'kahan'" in str(seen[0].message)
    assert (p == 1).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"lr": 0.1},
        {"start": 1e-3},
        {"dtype": torch.float32},
        {"rounding": "kahan"},
        {"rounding": "stochastic"},
        {"momentum": 0.99, "lr": 3e-3},
    ],
    ids=str,
)
def test_steps_that_are_kept_are_not_warned_of(settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first_step(**settings)


@pytest.mark.parametrize(
    "rule",
    [
        Rule(transform=ScaledTanh(100.0)),
        Rule(Unnormalized(), None, Identity()),
        Rule(Unnormalized(), Constant(1.0), Hybrid(0.1)),
        Rule(Blend(0.0), None, Identity()),
    ],
    ids=str,
)
def test_an_update_without_a_bound_of_one_is_not_warned_of(rule):
    p = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    p.grad = torch.full_like(p, 100.0)
    small = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AlphaGrad([p, small], lr=1e-3, rule=rule).step()


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_no_update_is_larger_than_its_parts_say(normalization, transform):
    """A gradient of one large element has the largest unit vector; one of many fills the ends of a tanh."""
    rule = rule_of(normalization, None if transform in WITHOUT_ALPHA else "constant", transform)
    bound = rule.transform.largest(rule.normalization.largest)
    assert bound > 0
    assert rule.transform.largest(1.0) < float("inf")
    for size in (1e-3, 1.0, 1e3):
        grads = {"a.weight": torch.tensor([size, 0.0, 0.0]), "a.bias": torch.linspace(-1, 1, 9) * size}
        params = {name: torch.nn.Parameter(torch.zeros_like(g)) for name, g in grads.items()}
        for name, p in params.items():
            p.grad = grads[name]
        AlphaGrad(params.items(), lr=1.0, rule=rule).step()
        assert max(float(p.detach().abs().max()) for p in params.values()) <= bound * (1 + 1e-6)
