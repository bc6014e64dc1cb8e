"""What torch's suite asks of states, names and hooks, of six rules."""

# ruff: noqa: F811

import copy
import itertools

import pytest
import torch
from renewed import assert_equal, descend, how, layer, make, named, rule, settings, third  # noqa: F401
from torch.optim import SGD
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from alphagrad import AlphaGrad


@pytest.fixture(params=itertools.product([True, False], repeat=2), ids=str)
def pair(request, rule, how):
    """Makes two optimizers, each with names or without; where the rule needs names, both have them."""
    namings = [n or rule.normalization.needs_names for n in request.param]

    def make(*both, **given):
        return [
            AlphaGrad(named(params) if naming else params, rule=rule, **how, **given)
            for params, naming in zip(both, namings, strict=True)
        ]

    return make, namings


def test_state_dict_deterministic(pair, settings):
    for given in settings[:2]:
        (params, loss), (twins, twin_loss) = layer(), layer()
        one, other = pair[0](params, twins, **given)
        descend(one, loss, 2)
        for p, q in zip(params, twins, strict=True):
            q.data.copy_(p)
        other.load_state_dict(copy.deepcopy(one.state_dict()))
        descend(one, loss, 2)
        descend(other, twin_loss, 2)
        assert_equal(params, twins)
        assert_equal(list(one.state.values()), list(other.state.values()))
        groups = one.state_dict()["param_groups"]
        other.param_groups.extend(other.param_groups)  # a parameter that comes twice has one number
        for group in (*groups, *(theirs := other.state_dict()["param_groups"])):
            group.pop("param_names", None)
        assert groups * 2 == theirs


def test_can_load_from_to_named_state_dict(pair, settings):
    make, namings = pair
    for given in settings[:1]:
        params, loss = layer()
        one, other = make(params, params, **given)
        descend(one, loss, 2)
        other.load_state_dict(copy.deepcopy(one.state_dict()))
        descend(other, loss, 1)
        names = other.state_dict()["param_groups"][0].get("param_names")
        assert names == (["layer.0", "layer.1"] if any(namings) else None)


def test_state_dict_pre_post_hook(make):
    optimizer = make(layer()[0])
    optimizer.register_state_dict_pre_hook(lambda o: o.state.update(test=1))
    assert optimizer.state_dict()["state"]["test"] == 1
    optimizer.register_state_dict_post_hook(lambda o, state: {**state, "ran": state["state"].pop("test")})
    state = optimizer.state_dict()
    assert state["ran"] == 1
    assert "test" not in state["state"]


def set_rate(lr):
    """A load hook that returns another state with this rate."""

    def hook(optimizer, state):
        state = copy.deepcopy(state)
        state["param_groups"][0]["lr"] = lr
        return state

    return hook


def test_load_state_dict_pre_hook_and_prepend(make):
    optimizer = make(layer()[0])
    optimizer.register_load_state_dict_pre_hook(lambda o, state: state["param_groups"][0].update(lr=0.002))
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.002
    optimizer.register_load_state_dict_pre_hook(set_rate(0.003), prepend=True)
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.002


@pytest.mark.parametrize("prepared", [False, True])
def test_load_state_dict_pre_post_hook(make, prepared):
    params, loss = layer()
    optimizer = make(params)
    if prepared:
        optimizer.register_load_state_dict_pre_hook(set_rate(0.003))
    optimizer.register_load_state_dict_post_hook(lambda o: o.state.update(rate=o.param_groups[0]["lr"]))
    for _ in range(2):  # what the hook puts into the state is in nobody's way
        descend(optimizer, loss, 1)
        optimizer.load_state_dict(optimizer.state_dict())
        assert optimizer.state["rate"] == (0.003 if prepared else 0.001)


def test_step_all_hooks(make):
    seen = []
    note = lambda name: lambda *_: seen.append(name)  # noqa: E731
    params = [torch.tensor([1.0, 1.0])]
    ours, sgd = make(params), SGD(params)
    hooks = [
        register_optimizer_step_pre_hook(note("all before")),
        register_optimizer_step_post_hook(note("all after")),
        *(o.register_step_pre_hook(note("before")) for o in (ours, sgd)),
        *(o.register_step_post_hook(note("after")) for o in (ours, sgd)),
    ]
    try:
        for optimizer in (ours, sgd, ours):
            optimizer.step()
    finally:
        for hook in hooks:
            hook.remove()
    ours.step()
    assert seen == ["all before", "before", "after", "all after"] * 3


def test_deepcopy_copies_all_public_attrs(make, settings):
    public = lambda o: {name for name in vars(o) if not name.startswith("_")}  # noqa: E731
    for given in settings:
        params, loss = layer()
        optimizer = make(params, **given)
        descend(optimizer, loss, 1)
        assert public(copy.deepcopy(optimizer)) == public(optimizer) == public(SGD(params))


def test_non_empty_state(make, settings):
    for given in settings:
        params, loss = layer()
        optimizer = make(params, **given)
        descend(optimizer, loss, 1)
        assert len(optimizer.state) == 2
        assert all(optimizer.state.values())
