"""The named variants are the equations they state; the controller holds its band."""

import doctest
import importlib
import inspect
import pkgutil
import re
import types

import numpy as np
import pytest
import torch
from cases import error, make_values, train, train_reference
from reference import Settings
from tiers import long

from alphagrad import AlphaGrad, Rule, variants
from alphagrad.alpha import Constant, Quantile, Saturation, SqrtDim, SqrtTotal, fan_in
from alphagrad.transform import FromSaturation
from alphagrad.values import Ramp, TensorInfo

ALPHA = ("constant", {"value": 4.0})
BAND = {"low": 0.2, "high": 0.4, "tau": 0.8, "factor": 1.05, "every": 1, "min_alpha": 1e-3, "max_alpha": 1e6}
# variant → its arguments, and the paper's equation for them
EQUATIONS = {
    "alphagrad": ({"alpha": 4.0}, Settings(alpha=ALPHA)),
    "scaled_tanh": ({"alpha": 4.0, "beta": 0.3}, Settings(alpha=ALPHA, transform=("scaled_tanh", {"beta": 0.3}))),
    "sin_tanh": ({"alpha": 4.0, "kappa": 2.0}, Settings(alpha=ALPHA, transform=("sin_tanh", {"kappa": 2.0}))),
    "hybrid": ({"alpha": 4.0, "lam": 0.1}, Settings(alpha=ALPHA, transform=("hybrid", {"lam": 0.1}))),
    "normalize_only": ({}, Settings(alpha=None, transform=("identity", {}))),
    "tanh_only": ({"alpha": 4.0}, Settings(normalization=("none", {}), alpha=ALPHA)),
    "sign": ({}, Settings(alpha=None, transform=("sign", {}))),
    "module_wise": ({"alpha": 4.0}, Settings(normalization=("module", {}), alpha=ALPHA)),
    "group_wise": ({"alpha": 4.0}, Settings(normalization=("group", {}), alpha=ALPHA)),
    "sqrt_dim": ({"k": 1.5}, Settings(alpha=("sqrt_dim", {"k": 1.5}))),
    "saturation": (
        {"k": 1.5, "low": 0.2, "high": 0.4, "tau": 0.8},
        Settings(alpha=("saturation", {"start": ("sqrt_dim", {"k": 1.5}), **BAND})),
    ),
}

SOURCE = re.compile(r"\nSource: (the paper, section \d|this project\b|.*arXiv:\d|.*https?://|.*\b(19|20)\d\d\b)")


def test_every_file_is_a_variant_and_every_variant_a_file():
    files = {m.name for m in pkgutil.iter_modules(variants.__path__)}
    assert files == set(variants.__all__)
    assert files >= set(EQUATIONS)  # others recombine slots, each of which is held to its own equation
    assert variants.__all__ == sorted(variants.__all__)


@pytest.mark.parametrize("name", EQUATIONS)
def test_a_variant_is_its_equation(name):
    arguments, settings = EQUATIONS[name]
    settings.lr, settings.momentum, settings.weight_decay = 0.1, 0.9, 0.2
    rule = getattr(variants, name)(**arguments)
    initial, grads = make_values(seed=8)
    reference = train_reference(settings, initial, grads)
    _, params = train(rule, initial, grads, torch.float64, lr=0.1, momentum=0.9, weight_decay=0.2)
    for n, expected in reference.values().items():
        assert error(params[n], expected) < (1e-6 if name == "saturation" else 1e-12)


@pytest.mark.parametrize("name", variants.__all__)
def test_a_variant_is_a_short_documented_file(name):
    module = importlib.import_module(f"alphagrad.variants.{name}")
    make = getattr(variants, name)
    for argument in inspect.signature(make).parameters:
        assert f"{argument}:" in make.__doc__
    assert inspect.getsource(module).count("\n") <= 40
    assert "\n::\n" in module.__doc__  # the equation
    assert "\nWhen to use it: " in module.__doc__
    assert SOURCE.search(module.__doc__)


@pytest.mark.parametrize(
    "line",
    [
        "Source: the paper, section 2.1, equation (7).",
        "Source: this project, after a remark in section 5.3 of the paper.",
        "Source: Bernstein et al. 2018, signSGD.",
        "Source: arXiv:1802.04434.",
    ],
)
def test_a_source_may_be_the_paper_this_project_or_a_citation(line):
    assert SOURCE.search(f"\n{line}\n")


@pytest.mark.parametrize("line", ["Source: ", "Source: somewhere.", "Source: the paper.", "The paper, section 2."])
def test_no_source_is_none(line):
    assert not SOURCE.search(f"\n{line}\n")


def run_example(module):
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0


@pytest.mark.parametrize("name", variants.__all__)
def test_a_variants_example_runs(name):
    run_example(importlib.import_module(f"alphagrad.variants.{name}"))


@pytest.mark.parametrize("text", [">>> 1 + 1\n3\n", "No example.\n"])
def test_a_wrong_or_missing_example_is_found(text, capsys):
    with pytest.raises(AssertionError):
        run_example(types.ModuleType("wrong", text))


@pytest.mark.parametrize("name", variants.__all__)
def test_a_variants_rule_is_a_value(name):
    arguments = EQUATIONS[name][0] if name in EQUATIONS else {}
    one, two, default = (
        getattr(variants, name)(**arguments),
        getattr(variants, name)(**arguments),
        getattr(variants, name)(),
    )
    assert isinstance(default, Rule)
    assert one == two
    assert len({one, two}) == 1
    assert repr(one) == repr(two)
    assert (repr(one) == repr(default)) == (one == default)


@pytest.mark.parametrize("lam", [0.5, (0.1, 0.9), Ramp(0.0, 1.0, 5), FromSaturation(1.0)], ids=repr)
def test_a_state_goes_with_its_printed_rule(lam):
    rule = variants.hybrid(3.0, lam)
    p = torch.nn.Parameter(torch.ones(2, 3))
    p.grad = torch.ones(2, 3)
    optimizer = AlphaGrad([p], rule=rule, batch_dims=1, momentum=0.9)
    optimizer.step()
    state = optimizer.state_dict()
    assert state["param_groups"][0]["rule"] == repr(rule)
    twin = AlphaGrad([torch.nn.Parameter(torch.ones(2, 3))], rule=variants.hybrid(3.0, lam), batch_dims=1, momentum=0.9)
    twin.load_state_dict(state)
    assert twin.param_groups[0]["rule"] == rule


def test_the_papers_table_2():
    """√d truncated, from the author's own d (paper, Table 2)."""
    for d, k1, k3 in ((9_664, 98, 294), (8_576, 93, 279)):
        info = TensorInfo(None, (1,), 0, d)
        assert abs(SqrtTotal(1.0).initial(info) - k1) < 1
        assert abs(SqrtTotal(3.0).initial(info) - k3) < 3


@pytest.mark.parametrize(("shape", "inputs"), [((5, 7), 7), ((8, 3, 2, 2), 12), ((4,), 4), ((), 1), ((1, 9), 9)])
def test_fan_in(shape, inputs):
    assert fan_in(shape) == inputs
    if len(shape) > 1:
        assert torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))[0] == inputs


@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.3])
def test_quantile_meets_its_fraction_on_gaussian_gradients(fraction):
    g = torch.randn(200_000)
    alpha = Quantile(fraction, 2.5).initial(TensorInfo(None, (200_000,), 0, 200_000))
    measured = (alpha * g / g.norm()).abs().gt(2.5).double().mean().item()
    assert measured == pytest.approx(fraction, abs=4 * (fraction / 200_000) ** 0.5)


D = 2_000
GRADIENTS = {
    "gaussian": lambda rng: rng.standard_normal(D),
    "heavy tails": lambda rng: rng.standard_t(4, D),
    "sparse": lambda rng: rng.standard_normal(D) * (rng.random(D) < 0.4),
    "unequal": lambda rng: rng.standard_normal(D) * np.logspace(-2, 2, D),
    "shrinking": lambda rng: rng.standard_normal(D) * 10.0 ** rng.uniform(-20, 20),
}


@pytest.mark.parametrize("every", [*long(1), 3])
@pytest.mark.parametrize("start", [0.1, *long(100.0, 3e4)])
@pytest.mark.parametrize("gradient", GRADIENTS.values(), ids=GRADIENTS)
def test_the_controller_holds_the_saturation_in_its_band(gradient, start, every):
    """C11: S comes into [0.05, 0.25] and stays there, whatever α it starts from."""
    rng = np.random.default_rng(0)
    p = torch.nn.Parameter(torch.zeros(D))
    policy = Saturation(Constant(start), every=every)
    optimizer = AlphaGrad([p], lr=0.1, rule=Rule(alpha=policy), eps=0.0)
    history = []
    for _ in range(200 * every + 50):
        p.grad = torch.as_tensor(gradient(rng), dtype=torch.float32)
        optimizer.step()
        history.append(optimizer.state[p]["saturation"].item())
    # one gradient's S scatters around its mean by less than 0.03
    assert min(history[-50:]) > policy.low - 0.03
    assert max(history[-50:]) < policy.high + 0.03
    assert policy.low < np.mean(history[-50:]) < policy.high
    assert not policy.low < history[0] < policy.high or start == 100.0


@pytest.mark.parametrize(("start", "bound"), [(30.0, 40.0), (300.0, 7.0)])
def test_the_controllers_alpha_stays_within_its_bounds(start, bound):
    """A gradient of a single direction has S = 0 or S = 1 and lets α run: to the bound, not beyond."""
    p = torch.nn.Parameter(torch.zeros(400))
    tau = 2.5 if start == 30.0 else 0.1
    policy = Saturation(Constant(start), tau=tau, factor=1.5, min_alpha=7.0, max_alpha=40.0)
    optimizer = AlphaGrad([p], rule=Rule(alpha=policy))
    for _ in range(20):
        p.grad = torch.ones(400)
        optimizer.step()
    assert optimizer.state[p]["alpha"].item() == bound


def test_each_tensor_has_its_own_controller():
    rng = np.random.default_rng(0)
    wide, narrow = torch.nn.Parameter(torch.zeros(4_000)), torch.nn.Parameter(torch.zeros(400))
    optimizer = AlphaGrad([wide, narrow], rule=Rule(alpha=Saturation(SqrtDim(0.1))))
    for _ in range(100):
        for p in (wide, narrow):
            p.grad = torch.as_tensor(rng.standard_normal(p.numel()), dtype=torch.float32)
        optimizer.step()
    for p in (wide, narrow):
        # S in the band means α/√d in [1.28, 2.17] for Gaussian components
        assert 1.2 < optimizer.state[p]["alpha"].item() / p.numel() ** 0.5 < 2.2
