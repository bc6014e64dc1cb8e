"""Every argument of the optimizer and of every slot changes the trajectory."""

import inspect
import math

import pytest
import torch
from cases import as_parameters, assert_same, in_groups, make_values, train
from reference import ramp
from settings_cases import INF, SLOT_ARGUMENTS, SMOOTH

import alphagrad.alpha
import alphagrad.normalization
import alphagrad.transform
import alphagrad.values
from alphagrad import AlphaGrad, Rule, variants
from alphagrad.alpha import Constant
from alphagrad.transform import Tanh
from alphagrad.values import Ramp


def trajectory(optimizer_settings, bad=False):
    """Parameters and state after a few steps; ``bad`` puts an inf into one gradient."""
    initial, grads = make_values(seed=5)
    if bad:
        grads[1]["a.weight"][0, 0] = INF
    _, params = train(optimizer_settings.pop("rule", SMOOTH), initial, grads, **{"lr": 0.1, **optimizer_settings})
    return {n: p.detach() for n, p in params.items()}


def same(one, other):
    return all(torch.equal(one[n], other[n]) for n in one)


# argument → settings before, settings after
ARGUMENTS = {
    "lr": ({}, {"lr": 0.2}),
    "rule": ({}, {"rule": Rule(alpha=Constant(3.0))}),
    "momentum": ({}, {"momentum": 0.5}),
    "dampening": ({"momentum": 0.5}, {"momentum": 0.5, "dampening": 0.1}),
    "nesterov": ({"momentum": 0.5}, {"momentum": 0.5, "nesterov": True}),
    "weight_decay": ({}, {"weight_decay": 0.1}),
    "eps": ({}, {"eps": 0.1}),
    "maximize": ({}, {"maximize": True}),
    "nonfinite": ({}, {"nonfinite": "propagate"}),
}
ELSEWHERE = {
    "params": "what is optimised",
    "batch_dims": "test_batch_dims_changes_the_trajectory",
    "foreach": "test_foreach_is_one_call_for_all_tensors",
    "fused": "test_optim_kernels",
    "rounding": "test_optim_rounding",
    "momentum_dtype": "test_optim_rounding",
    "compile": "test_compile_runs_the_step_under_torch_compile",
    "differentiable": "refused, in BAD_SETTINGS",
}


def test_every_argument_of_the_optimizer_has_a_case():
    arguments = set(inspect.signature(AlphaGrad).parameters)
    assert arguments == set(ARGUMENTS) | set(ELSEWHERE)


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_every_argument_changes_the_trajectory(argument):
    before, after = ARGUMENTS[argument]
    bad = argument == "nonfinite"
    assert same(trajectory(dict(before), bad), trajectory(dict(before), bad))
    assert not same(trajectory(dict(before), bad), trajectory(dict(after), bad))


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_every_argument_may_be_set_for_one_group(argument):
    """The group that says so follows the new value, the other one the old."""
    before, after = ARGUMENTS[argument]
    initial, grads = make_values(seed=5)
    if argument == "nonfinite":
        for step in grads[1]:
            grads[1][step] = grads[1][step] * INF
    base = {"lr": 0.1, "rule": SMOOTH, **before}
    _, plain = train(initial=initial, grads=grads, **base)
    _, mixed = train(initial=initial, grads=grads, group_settings=({}, after), **base)
    changed = {n for n in plain if not torch.equal(plain[n], mixed[n])}
    assert changed == {"b.weight"}


def test_batch_dims_changes_the_trajectory():
    ends = []
    for batch_dims in (0, 1):
        p = torch.nn.Parameter(torch.zeros(2, 3))
        p.grad = torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 40.0]])
        AlphaGrad([p], lr=0.1, rule=SMOOTH, batch_dims=batch_dims).step()
        ends.append(p.detach())
    assert not torch.equal(*ends)


@pytest.mark.parametrize(
    ("settings", "calls"),
    [({"foreach": True}, 2), ({"foreach": False}, 4), ({"fused": False}, 2), ({"foreach": False, "fused": False}, 4)],
)
def test_foreach_is_one_call_for_all_tensors(settings, calls, monkeypatch):
    """Two groups of three and one tensors, in plain torch."""
    seen = []
    bend = Tanh.__call__
    monkeypatch.setattr(Tanh, "__call__", lambda *args: seen.append(len(args[1])) or bend(*args))
    initial, grads = make_values()
    train(SMOOTH, initial, grads[:1], **settings)
    assert len(seen) == calls
    assert sum(seen) == 4


def test_compile_runs_the_step_under_torch_compile(monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "compile", lambda f, **kwargs: seen.append(kwargs) or f)
    initial, grads = make_values()
    train(SMOOTH, initial, grads, compile=False)
    assert seen == []
    train(SMOOTH, initial, grads, compile=True, fused=False)
    assert len(seen) == 1
    # a kernel is compiled already
    train(SMOOTH, initial, grads, compile=True)
    assert len(seen) == 2


VARIANT_ARGUMENTS = {
    ("alphagrad", "alpha"): ({"alpha": 2.0}, {"alpha": 3.0}),
    ("group_wise", "alpha"): ({"alpha": 2.0}, {"alpha": 3.0}),
    ("hybrid", "alpha"): ({"alpha": 2.0}, {"alpha": 3.0}),
    ("hybrid", "lam"): ({"alpha": 2.0}, {"alpha": 2.0, "lam": 0.1}),
    ("module_wise", "alpha"): ({"alpha": 2.0}, {"alpha": 3.0}),
    ("saturation", "k"): ({"k": 1.0}, {"k": 2.0}),
    ("saturation", "low"): ({}, {"low": 0.0}),
    ("saturation", "high"): ({"k": 9.0, "high": 0.2}, {"k": 9.0, "high": 1.0}),
    ("saturation", "tau"): ({"low": 0.2, "tau": 2.5}, {"low": 0.2, "tau": 0.1}),
    ("scaled_tanh", "alpha"): ({"alpha": 2.0}, {"alpha": 3.0}),
    ("scaled_tanh", "beta"): ({"alpha": 2.0}, {"alpha": 2.0, "beta": 0.5}),
    ("sin_tanh", "alpha"): ({"alpha": 2.0}, {"alpha": 3.0}),
    ("sin_tanh", "kappa"): ({"alpha": 2.0}, {"alpha": 2.0, "kappa": 2.0}),
    ("sqrt_dim", "k"): ({"k": 1.0}, {"k": 2.0}),
    ("tanh_only", "alpha"): ({"alpha": 2.0}, {"alpha": 3.0}),
}


def parts():
    """Every class that may stand in a rule."""
    modules = (alphagrad.normalization, alphagrad.alpha, alphagrad.transform, alphagrad.values, alphagrad.rule)
    for module in modules:
        for cls in vars(module).values():
            if inspect.isclass(cls) and cls.__module__ == module.__name__ and hasattr(cls, "__dataclass_fields__"):
                yield cls


def test_every_argument_of_every_slot_has_a_case():
    arguments = {(cls, name) for cls in parts() for name in inspect.signature(cls).parameters}
    assert arguments == set(SLOT_ARGUMENTS)


@pytest.mark.parametrize("case", SLOT_ARGUMENTS, ids=lambda c: f"{c[0].__name__}.{c[1]}")
def test_every_argument_of_every_slot_changes_the_trajectory(case):
    before, after = SLOT_ARGUMENTS[case]
    assert not same(trajectory({"rule": before}), trajectory({"rule": after}))
    assert before != after
    assert repr(before) != repr(after)


def test_every_argument_of_every_variant_has_a_case():
    arguments = {
        (name, arg) for name in variants.__all__ for arg in inspect.signature(getattr(variants, name)).parameters
    }
    assert arguments == set(VARIANT_ARGUMENTS)


@pytest.mark.parametrize("case", VARIANT_ARGUMENTS, ids=".".join)
def test_every_argument_of_every_variant_changes_the_trajectory(case):
    make = getattr(variants, case[0])
    before, after = VARIANT_ARGUMENTS[case]
    assert not same(trajectory({"rule": make(**before)}), trajectory({"rule": make(**after)}))


@pytest.mark.parametrize("kind", Ramp.KINDS)
def test_ramps_stay_at_their_end(kind):
    values = Ramp(2.0, 50.0, 3, kind).at(torch.arange(9, dtype=torch.float32)).tolist()
    assert values == pytest.approx([ramp(2.0, 50.0, 3, kind, t) for t in range(9)], rel=1e-12)
    assert values[3:] == pytest.approx([50.0] * 6, rel=1e-12)


def test_ramps_keep_their_digits_where_the_end_is_far_above_the_start():
    """The first steps of a cosine from 1 to 1e6 over 10,000 updates, to 1e-12."""
    at = Ramp(1.0, 1e6, 10_000, "cosine").at(torch.arange(5, dtype=torch.float32)).tolist()
    expected = [1.0 + (1e6 - 1) * math.sin(math.pi * t / 20_000) ** 2 for t in range(5)]
    assert at == pytest.approx(expected, rel=1e-9)


def test_defaults_stand_for_groups_that_do_not_say():
    initial, _ = make_values()
    optimizer = AlphaGrad(in_groups(as_parameters(initial, torch.float32)), momentum=0.9)
    assert [g["momentum"] for g in optimizer.param_groups] == [0.9, 0.9]
    assert optimizer.defaults["rule"] == Rule()


def test_same_inputs_same_outputs():
    assert_same(trajectory({"momentum": 0.9}), trajectory({"momentum": 0.9}))
