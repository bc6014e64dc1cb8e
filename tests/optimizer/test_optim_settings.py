"""Every argument of the optimizer and of every slot changes the trajectory; bad values are named."""

import inspect
import math

import numpy as np
import pytest
import torch
from cases import as_parameters, assert_same, in_groups, make_values, train
from reference import ramp

import alphagrad.alpha
import alphagrad.normalization
import alphagrad.transform
import alphagrad.values
from alphagrad import AlphaGrad, Rule, variants
from alphagrad.alpha import Constant, FanIn, Quantile, Saturation, Schedule, SqrtDim, SqrtTotal
from alphagrad.normalization import Blend, PerGroup, PerModule
from alphagrad.transform import FromSaturation, Hybrid, Identity, ScaledTanh, Sign, SinTanh, Tanh
from alphagrad.values import Ramp

SMOOTH = Rule(alpha=Constant(2.0))
NAN, INF = float("nan"), float("inf")


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


CONTROLLED = {"start": Constant(2.0), "low": 0.3, "high": 0.5, "tau": 0.5, "factor": 1.5}
CONTROLLED |= {"every": 1, "min_alpha": 1e-3, "max_alpha": 1e6}
HYBRID = lambda lam: Rule(alpha=Constant(2.0), transform=Hybrid(lam))  # noqa: E731


def controlled(**change):
    return Rule(alpha=Saturation(**{**CONTROLLED, **change}))


def scheduled(**change):
    return Rule(alpha=Schedule(**{"start": 1.0, "end": 9.0, "steps": 3, "kind": "linear", **change}))


def ramped(**change):
    return HYBRID(Ramp(**{"start": 0.1, "end": 0.9, "steps": 3, "kind": "linear", **change}))


SLOT_ARGUMENTS = {
    (Rule, "normalization"): (SMOOTH, Rule(PerGroup(), Constant(2.0))),
    (Rule, "alpha"): (SMOOTH, Rule(alpha=SqrtDim(2.0))),
    (Rule, "transform"): (SMOOTH, Rule(alpha=Constant(2.0), transform=Hybrid(0.5))),
    (Blend, "rho"): (Rule(Blend(0.2), Constant(2.0)), Rule(Blend(0.8), Constant(2.0))),
    (Constant, "value"): (SMOOTH, Rule(alpha=Constant(3.0))),
    (SqrtDim, "k"): (Rule(alpha=SqrtDim(1.0)), Rule(alpha=SqrtDim(2.0))),
    (SqrtTotal, "k"): (Rule(alpha=SqrtTotal(1.0)), Rule(alpha=SqrtTotal(2.0))),
    (SqrtTotal, "total"): (Rule(alpha=SqrtTotal(1.0)), Rule(alpha=SqrtTotal(1.0, 50))),
    (Quantile, "fraction"): (Rule(alpha=Quantile(0.05)), Rule(alpha=Quantile(0.5))),
    (Quantile, "tau"): (Rule(alpha=Quantile(0.05, 2.5)), Rule(alpha=Quantile(0.05, 1.0))),
    (FanIn, "k"): (Rule(alpha=FanIn(1.0)), Rule(alpha=FanIn(2.0))),
    (Schedule, "start"): (scheduled(), scheduled(start=2.0)),
    (Schedule, "end"): (scheduled(), scheduled(end=2.0)),
    (Schedule, "steps"): (scheduled(), scheduled(steps=7)),
    (Schedule, "kind"): (scheduled(), scheduled(kind="cosine")),
    (Saturation, "start"): (controlled(), controlled(start=Constant(1.0))),
    (Saturation, "low"): (controlled(), controlled(low=0.0)),
    (Saturation, "high"): (controlled(), controlled(high=1.0)),
    (Saturation, "tau"): (controlled(), controlled(tau=1.0)),
    (Saturation, "factor"): (controlled(), controlled(factor=2.0)),
    (Saturation, "every"): (controlled(), controlled(every=3)),
    (Saturation, "min_alpha"): (controlled(), controlled(min_alpha=1.9)),
    (Saturation, "max_alpha"): (controlled(low=0.8, high=0.9), controlled(low=0.8, high=0.9, max_alpha=2.1)),
    (ScaledTanh, "beta"): (
        Rule(alpha=Constant(2.0), transform=ScaledTanh(1.0)),
        Rule(alpha=Constant(2.0), transform=ScaledTanh(0.5)),
    ),
    (SinTanh, "kappa"): (
        Rule(alpha=Constant(2.0), transform=SinTanh(1.0)),
        Rule(alpha=Constant(2.0), transform=SinTanh(2.0)),
    ),
    (Hybrid, "lam"): (HYBRID(0.5), HYBRID(0.2)),
    (FromSaturation, "tau"): (HYBRID(FromSaturation(0.5)), HYBRID(FromSaturation(1.0))),
    (Ramp, "start"): (ramped(), ramped(start=0.5)),
    (Ramp, "end"): (ramped(), ramped(end=0.5)),
    (Ramp, "steps"): (ramped(), ramped(steps=7)),
    (Ramp, "kind"): (ramped(), ramped(kind="exponential")),
}
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


POSITIVE = (0.0, -1.0, NAN, INF, "x", "1", None, (1.0, -1.0), ())
BAD_PARTS = [
    *((Constant, {"value": v}, "value") for v in POSITIVE),
    *((cls, {"k": v}, "k") for cls in (SqrtDim, SqrtTotal, FanIn) for v in POSITIVE),
    *((SqrtTotal, {"total": v}, "total") for v in (0, -3)),
    *((Quantile, {"fraction": v}, "fraction") for v in (0.0, 1.0, -0.1, NAN)),
    *((Quantile, {"tau": v}, "tau") for v in (0.0, -1.0, INF, NAN)),
    *((Schedule, {s: v}, s) for s in ("start", "end") for v in (0.0, -1.0, INF, NAN)),
    *((Schedule, {"steps": v}, "steps") for v in (0, -1)),
    (Schedule, {"kind": "square"}, "kind"),
    (Saturation, {"start": Schedule()}, "start"),
    (Saturation, {"start": Saturation()}, "start"),
    (Saturation, {"start": 3.0}, "start"),
    *((Saturation, {"low": v}, "low") for v in (-0.1, 0.3, NAN)),
    *((Saturation, {"high": v}, "high") for v in (0.01, 1.1, NAN)),
    *((Saturation, {"tau": v}, "tau") for v in (0.0, -1.0, NAN, INF)),
    *((Saturation, {"factor": v}, "factor") for v in (1.0, 0.5, NAN, INF)),
    *((Saturation, {"every": v}, "every") for v in (0, -1)),
    *((Saturation, {"min_alpha": v}, "min_alpha") for v in (0.0, -1.0, 1e7, NAN)),
    *((Saturation, {"max_alpha": v}, "max_alpha") for v in (1e-4, NAN)),
    *((ScaledTanh, {"beta": v}, "beta") for v in POSITIVE),
    *((SinTanh, {"kappa": v}, "kappa") for v in POSITIVE),
    *((Hybrid, {"lam": v}, "lam") for v in (-0.1, 1.1, NAN, "x", None, (0.5, 2.0))),
    (Hybrid, {"lam": Ramp(0.0, 2.0, 3)}, "lam"),
    *((FromSaturation, {"tau": v}, "tau") for v in (0.0, -1.0, NAN, INF)),
    *((Ramp, {"start": v, "end": 1.0, "steps": 2}, "start") for v in (NAN, INF)),
    *((Ramp, {"start": 1.0, "end": v, "steps": 2}, "end") for v in (NAN, INF)),
    (Ramp, {"start": 0.0, "end": 1.0, "steps": 2, "kind": "exponential"}, "start"),
    (Ramp, {"start": 1.0, "end": 1.0, "steps": 0}, "steps"),
    (Ramp, {"start": 1.0, "end": 1.0, "steps": 2, "kind": ""}, "kind"),
    *((Blend, {"rho": v}, "rho") for v in (-0.1, 1.1, NAN)),
]


@pytest.mark.parametrize(("cls", "kwargs", "setting"), BAD_PARTS)
def test_a_bad_value_in_a_slot_is_named(cls, kwargs, setting):
    with pytest.raises(ValueError, match=rf"\b{setting}\b.*:"):
        cls(**kwargs)


def test_every_argument_of_a_slot_has_a_bad_value():
    tried = {(cls, setting) for cls, _, setting in BAD_PARTS}
    assert tried == {case for case in SLOT_ARGUMENTS if case[0] is not Rule}


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({"normalization": "tensor"}, TypeError, "normalization: .*'tensor'"),
        ({"alpha": 3.0}, TypeError, "alpha: .*3.0"),
        ({"transform": "tanh"}, TypeError, "transform: .*'tanh'"),
        ({"alpha": None}, ValueError, "alpha: Tanh.*needs"),
        ({"transform": Sign()}, ValueError, "alpha: Sign.*does not use"),
        ({"transform": Identity()}, ValueError, "alpha: Identity.*does not use"),
    ],
)
def test_a_slot_holds_its_own_kind(kwargs, error, text):
    with pytest.raises(error, match=text):
        Rule(**kwargs)


BAD_SETTINGS = {
    "lr": [-1.0, NAN, INF, "0.1", None, True, torch.tensor([0.1, 0.2]), torch.tensor(-1.0), torch.tensor(NAN)],
    "momentum": [-0.5, 1.0, 2.0, NAN, "0.9", None],
    "dampening": [-0.5, 1.0, NAN, "0", None],
    "weight_decay": [-0.1, NAN, INF, "0", None],
    "eps": [-1e-8, NAN, INF, "0", None],
    "nonfinite": ["ignore", "", None, True],
    "batch_dims": [-1, 1.0, "1", None, True],
    "differentiable": [True],
    "maximize": ["no", 1, None],
    "nesterov": [True, "no"],
    "foreach": ["no", 1],
    "fused": ["no", 1],
    "rounding": ["up", "", None, True],
    "momentum_dtype": ["int8", torch.int8, torch.complex64, 16],
    "compile": ["no", 1, None],
}


@pytest.mark.parametrize(("setting", "value"), [(s, v) for s, values in BAD_SETTINGS.items() for v in values])
def test_a_bad_setting_is_named(setting, value):
    p = torch.nn.Parameter(torch.zeros(2))
    with pytest.raises(ValueError, match=f"^{setting}:"):
        AlphaGrad([p], **{setting: value})
    with pytest.raises(ValueError, match=f"^{setting}:"):
        AlphaGrad([{"params": [p], setting: value}])


def test_every_argument_has_a_bad_value():
    assert set(BAD_SETTINGS) == set(inspect.signature(AlphaGrad).parameters) - {"params", "rule"}


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({"rule": "tanh"}, TypeError, "rule: .*'tanh'"),
        ({"rule": Tanh()}, TypeError, "rule: .*Tanh"),
        ({"dampening": 0.1}, ValueError, "dampening: .*momentum"),
        ({"nesterov": True, "momentum": 0.9, "dampening": 0.1}, ValueError, "nesterov: .*dampening"),
        ({"fused": True, "foreach": True}, ValueError, "fused: .*foreach"),
        ({"batch_dims": 2}, ValueError, "batch_dims: .*1 dimensions"),
        ({"rule": Rule(PerModule())}, ValueError, "params: PerModule.*named_parameters"),
        ({"alpha": 3.0}, TypeError, "alpha"),
        ({"betas": (0.9, 0.99)}, TypeError, "betas"),
        ({"capturable": True}, TypeError, "capturable"),
    ],
)
def test_settings_that_do_not_go_together_are_named(kwargs, error, text):
    with pytest.raises(error, match=text):
        AlphaGrad([torch.nn.Parameter(torch.zeros(2))], **kwargs)


def test_a_default_may_need_what_only_groups_say():
    ps = [torch.nn.Parameter(torch.zeros(2, 3)) for _ in range(2)]
    for own, given in (({"momentum": 0.9}, {"dampening": 0.1}), ({"batch_dims": 1}, {"lr": torch.tensor([0.1, 0.2])})):
        AlphaGrad([{"params": [p], **own} for p in ps], **given)


@pytest.mark.parametrize(("key", "meant"), [("weight_decy", "weight_decay"), ("momentm", "momentum"), ("Lr", "lr")])
def test_a_misspelt_setting_of_a_group_is_warned_of(key, meant):
    p = torch.nn.Parameter(torch.zeros(2))
    with pytest.warns(UserWarning, match=f"^{key}: .* did you mean {meant}[?]"):
        optimizer = AlphaGrad([{"params": [p], key: 0.1}])
    assert optimizer.param_groups[0][key] == 0.1


@pytest.mark.parametrize("key", ["name", "lr_scale", "base_momentum", "max_momentum", "max_lr", "initial_lr", "tag", 7])
def test_a_key_that_is_nobodys_setting_is_kept(key, recwarn):
    """Wrappers, schedulers and timm's layer decay put theirs into the groups."""
    p = torch.nn.Parameter(torch.zeros(2))
    optimizer = AlphaGrad([{"params": [p], key: 0.5}])
    again = AlphaGrad(optimizer.param_groups)
    again.load_state_dict(optimizer.state_dict())
    assert [o.param_groups[0][key] for o in (optimizer, again)] == [0.5, 0.5]
    assert not recwarn.list


def test_no_rule_is_the_default_rule():
    p, q = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    optimizer = AlphaGrad([{"params": [p], "rule": None}], rule=SMOOTH)
    optimizer.add_param_group({"params": [q], "rule": None})
    assert [g["rule"] for g in optimizer.param_groups] == [SMOOTH, SMOOTH]


@pytest.mark.parametrize("setting", ["lr", "momentum", "weight_decay", "eps"])
def test_numbers_of_numpy_are_numbers(setting, tmp_path):
    """They move the parameters as Python's do, and the saved state loads with ``weights_only``."""
    value = np.float32(0.25)
    moved = []
    for number in (value, float(value)):
        for where in ("argument", "group"):
            p = torch.nn.Parameter(torch.ones(3))
            given = {"lr": 0.1, setting: number}
            optimizer = AlphaGrad([p], **given) if where == "argument" else AlphaGrad([{"params": [p], **given}])
            p.grad = torch.tensor([1.0, -2.0, 0.5])
            optimizer.step()
            moved.append(p.detach())
            torch.save(optimizer.state_dict(), tmp_path / "state.pt")
            assert torch.load(tmp_path / "state.pt", weights_only=True)["param_groups"][0][setting] == float(value)
    assert all(torch.equal(m, moved[0]) for m in moved)


def test_compile_holds_for_the_whole_optimizer():
    with pytest.raises(ValueError, match=r"^compile:"):
        AlphaGrad([{"params": [torch.nn.Parameter(torch.zeros(2))], "compile": True}])


def test_a_refused_group_leaves_the_optimizer_as_it_was():
    a, b = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    optimizer = AlphaGrad([a], lr=0.1)
    for group in ({"params": [b]}, {"params": [torch.nn.Parameter(torch.zeros(2))], "lr": -1.0}):
        with pytest.raises(ValueError, match=r"complex|lr"):
            optimizer.add_param_group(group)
    assert len(optimizer.param_groups) == 1
    a.grad = torch.ones(2)
    optimizer.step()
    assert (a < 0).all()


def test_rules_are_values():
    rules = [Rule(PerGroup(), SqrtTotal(2.0, 7), SinTanh((1.0, 2.0))) for _ in range(2)]
    assert rules[0] == rules[1]
    assert len(set(rules)) == 1
    assert repr(rules[0]) == repr(rules[1])
    with pytest.raises(AttributeError):
        rules[0].alpha = Constant()


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
