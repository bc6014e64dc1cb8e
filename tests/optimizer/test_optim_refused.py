"""Bad values of the optimizer and of every slot are named."""

import inspect

import numpy as np
import pytest
import torch
from settings_cases import INF, NAN, SLOT_ARGUMENTS, SMOOTH

from alphagrad import AlphaGrad, Rule
from alphagrad.alpha import Constant, FanIn, Quantile, Saturation, Schedule, SqrtDim, SqrtTotal
from alphagrad.normalization import Blend, PerGroup, PerModule
from alphagrad.transform import FromSaturation, Hybrid, Identity, ScaledTanh, Sign, SinTanh, Tanh
from alphagrad.values import Ramp

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
