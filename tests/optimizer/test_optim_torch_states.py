"""What torch asks of an optimizer's state: saved, loaded, copied, pickled, of an older version."""

import copy
import io
import pickle

import pytest
import torch
from cases import (
    assert_same,
    in_groups,
)
from contract import go, half_way, stateful, twin_of

from alphagrad import AlphaGrad, Rule
from alphagrad.alpha import Constant


def assert_states_equal(one, other):
    one, other = one.state_dict()["state"], other.state_dict()["state"]
    assert one.keys() == other.keys()
    for i in one:
        assert_same(one[i], other[i])
        assert {k: v.dtype for k, v in one[i].items()} == {k: v.dtype for k, v in other[i].items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@stateful
def test_a_loaded_state_goes_on_the_same(settings, dtype):
    """Through torch.save and weights_only, into a fresh optimizer: every dtype of the state survives."""
    optimizer, params, rest = half_way(settings, dtype)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    twins = twin_of(params)
    fresh = AlphaGrad(in_groups(twins), lr=123.0, rule=settings.get("rule"))
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert_states_equal(optimizer, fresh)
    go(optimizer, params, rest)
    go(fresh, twins, rest)
    assert_same(params, twins)
    assert_states_equal(optimizer, fresh)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
@stateful
def test_copies_go_on_the_same(settings, copier):
    optimizer, params, rest = half_way(settings)
    names = [n for g in optimizer.param_groups for n in g["param_names"]]
    twin = copier(optimizer)
    twins = dict(zip(names, [p for g in twin.param_groups for p in g["params"]], strict=True))
    twins = {n: twins[n] for n in params}
    assert twin.param_groups[0]["rule"] == optimizer.param_groups[0]["rule"]
    go(optimizer, params, rest)
    go(twin, twins, rest)
    assert_same(params, twins)
    assert_states_equal(optimizer, twin)


@stateful
def test_state_dict_is_plain_and_stays_as_it_was(settings):
    optimizer, params, _ = half_way(settings)
    state = optimizer.state_dict()
    kept = copy.deepcopy(state)
    AlphaGrad(in_groups(twin_of(params)), rule=settings.get("rule")).load_state_dict(state)
    assert state["param_groups"] == kept["param_groups"]
    assert all(isinstance(g["rule"], str) for g in state["param_groups"])
    for i in kept["state"]:
        assert_same(state["state"][i], kept["state"][i])


@stateful
def test_an_older_state_takes_newer_settings_from_the_defaults(settings):
    """Group entries and state entries that an older version did not write."""
    optimizer, params, rest = half_way(settings)
    state = copy.deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        for newer in ("rule", "nonfinite", "batch_dims", "foreach", "compile", "differentiable", "maximize"):
            del group[newer]
    for entry in state["state"].values():
        del entry["skipped"]
    twins = twin_of(params)
    fresh = AlphaGrad(in_groups(twins), rule=settings.get("rule"), maximize=True)
    fresh.load_state_dict(state)
    assert all(g["maximize"] and g["rule"] == fresh.defaults["rule"] for g in fresh.param_groups)
    for group in fresh.param_groups:
        group["maximize"] = False
    go(optimizer, params, rest)
    go(fresh, twins, rest)
    assert_same(params, twins)


def test_an_empty_older_state_starts_afresh():
    optimizer, params, rest = half_way({"momentum": 0.9})
    state = optimizer.state_dict()
    optimizer.load_state_dict({**state, "state": {}})
    twins = twin_of(params)
    go(optimizer, params, rest)
    go(AlphaGrad(in_groups(twins), lr=0.1, momentum=0.9), twins, rest)
    assert_same(params, twins)


def test_an_older_pickle_takes_newer_settings_from_the_defaults():
    optimizer, _, _ = half_way({})
    state = optimizer.__getstate__()
    for group in state["param_groups"]:
        del group["nonfinite"]
    optimizer.__setstate__(state)
    assert all(g["nonfinite"] == "skip" for g in optimizer.param_groups)


def test_a_state_of_another_rule_is_refused():
    optimizer, params, _ = half_way({"rule": Rule(alpha=Constant(3.0))})
    other = AlphaGrad(in_groups(twin_of(params)), rule=Rule(alpha=Constant(4.0)))
    with pytest.raises(ValueError, match=r"^rule: .*3\.0.*4\.0"):
        other.load_state_dict(optimizer.state_dict())


def test_a_state_of_other_groups_is_refused():
    optimizer, params, _ = half_way({})
    fewer = AlphaGrad(list(twin_of(params).values()))
    with pytest.raises(ValueError, match="different number of parameter groups"):
        fewer.load_state_dict(optimizer.state_dict())
    smaller = AlphaGrad([{"params": [torch.nn.Parameter(torch.ones(1))]} for _ in range(2)])
    with pytest.raises(ValueError, match="doesn't match the size"):
        smaller.load_state_dict(optimizer.state_dict())


def test_state_dict_hooks_are_called():
    optimizer, _, _ = half_way({"momentum": 0.9})
    seen = []
    optimizer.register_state_dict_pre_hook(lambda o: seen.append("before"))
    optimizer.register_state_dict_post_hook(lambda o, s: seen.append("after"))
    optimizer.register_load_state_dict_pre_hook(lambda o, s: seen.append("load before"))
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append("load after"))
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == ["before", "after", "load before", "load after"]


@pytest.mark.parametrize(("setting", "value"), [("momentum", 7.0), ("nonfinite", "bogus"), ("lr", -1.0)])
def test_a_state_with_a_wrong_setting_is_refused(setting, value):
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = AlphaGrad([p])
    state = optimizer.state_dict()
    state["param_groups"][0][setting] = value
    with pytest.raises(ValueError, match=f"^{setting}: "):
        optimizer.load_state_dict(state)
    assert optimizer.param_groups[0][setting] != value


def test_a_state_does_not_change_whether_the_step_is_compiled():
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = AlphaGrad([p])
    optimizer.load_state_dict(AlphaGrad([p], compile=True).state_dict())
    assert optimizer.param_groups[0]["compile"] is False
