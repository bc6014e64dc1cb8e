"""States of other rules, of older versions and of other optimizers, and what hooks do to them."""

import copy

import numpy as np
import pytest
import torch
from cases import assert_same, make_values, rule_of, train

from alphagrad import AlphaGrad, Rule
from alphagrad.alpha import Saturation, Schedule
from alphagrad.normalization import Blend


def test_hooks_that_change_a_state_have_the_last_word():
    """A load hook's counts and α are what is loaded, whatever torch or this class would make of them."""
    rule = rule_of("tensor", "saturation", "tanh")
    initial, grads = make_values()
    optimizer, _ = train(rule, initial, grads)
    fresh, _ = train(rule, initial, grads[:1])

    def before(o, state):
        state = copy.deepcopy(state)
        for entry in state["state"].values():
            entry.update(step=torch.tensor(41.0), alpha=torch.tensor(1.25), skipped=torch.tensor(3, dtype=torch.int32))
        return state

    seen = []
    fresh.register_load_state_dict_pre_hook(before)
    fresh.register_load_state_dict_post_hook(lambda o: seen.append([s["alpha"].item() for s in o.state.values()]))
    fresh.register_load_state_dict_post_hook(lambda o: [s["saturation"].fill_(0.5) for s in o.state.values()])
    fresh.load_state_dict(optimizer.state_dict())
    assert seen == [[1.25] * 4]
    for state in fresh.state.values():
        assert (state["step"].item(), state["alpha"].item(), state["skipped"].item()) == (41.0, 1.25, 3)
        assert state["saturation"].item() == 0.5


def test_a_count_that_is_a_number_is_taken():
    rule = rule_of("tensor", "schedule_linear", "tanh")
    initial, grads = make_values()
    optimizer, params = train(rule, initial, grads)
    state = copy.deepcopy(optimizer.state_dict())
    for entry in state["state"].values():
        entry["step"], entry["skipped"] = float(entry["step"]), int(entry["skipped"])
    fresh, twins = train(rule, initial, grads)
    fresh.load_state_dict(state)
    for o, ps in ((optimizer, params), (fresh, twins)):
        for n, p in ps.items():
            p.grad = torch.tensor(grads[0][n], dtype=torch.float32)
        o.step()
    assert_same({n: p.detach() for n, p in params.items()}, {n: p.detach() for n, p in twins.items()})


EQUAL = [
    (Rule(alpha=Schedule(10, 100, 50)), Rule(alpha=Schedule(10.0, 100.0, 50))),
    (Rule(Blend(0)), Rule(Blend(0.0))),
    (Rule(Blend(1)), Rule(Blend(np.float64(1.0)))),
    (Rule(alpha=Saturation(high=1)), Rule(alpha=Saturation(high=1.0))),
]


@pytest.mark.parametrize(("one", "other"), EQUAL, ids=lambda rule: repr(rule.alpha)[:30])
def test_equal_rules_load_each_others_states(one, other):
    initial, grads = make_values()
    a, _ = train(one, initial, grads)
    b, _ = train(other, initial, grads)
    a.load_state_dict(b.state_dict())
    b.load_state_dict(a.state_dict())


@pytest.mark.parametrize(
    "text",
    [
        "Rule(normalization=Blend(rho=np.float64(0.0)), alpha=Constant(value=100), transform=Tanh())",
        "Rule(normalization=Blend(rho=0), alpha=Constant(value=1e2), transform=Tanh())",
    ],
)
def test_states_of_older_versions_still_load(text):
    initial, grads = make_values()
    optimizer, _ = train(Rule(Blend(0.0)), initial, grads)
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group["rule"] = text
    optimizer.load_state_dict(state)
    state["param_groups"][0]["rule"] = text.replace("Blend", "Blond")
    with pytest.raises(ValueError, match=r"^rule: the state was saved under"):
        optimizer.load_state_dict(state)


@pytest.mark.parametrize("text", ["", "nonsense(", "__import__('os').abort()", "Rule()", "3"])
def test_a_rule_that_is_no_rule_is_refused(text):
    initial, grads = make_values()
    optimizer, _ = train(Rule(), initial, grads)
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group["rule"] = text
    with pytest.raises(ValueError, match=r"^rule: "):
        optimizer.load_state_dict(state)


@pytest.mark.parametrize("part", ["alpha", "saturation", "step"])
def test_a_state_without_a_part_of_its_rules_is_refused(part):
    initial, grads = make_values()
    optimizer, _ = train(rule_of("tensor", "saturation", "tanh"), initial, grads)
    state = copy.deepcopy(optimizer.state_dict())
    del state["state"][2][part]
    with pytest.raises(ValueError, match=f"^state: parameter 2 has no '{part}'.*another rule"):
        optimizer.load_state_dict(state)


def test_a_state_that_does_not_fit_is_refused():
    initial, grads = make_values()
    optimizer, params = train(Rule(), initial, grads, momentum=0.9)
    for change, text in (
        ({"momentum_buffer": torch.zeros(7)}, "'momentum_buffer' of parameter 0 has the shape"),
        ({"skipped": torch.zeros(5, dtype=torch.int32)}, "'skipped' of parameter 0 has 5 numbers"),
        ({"alpha": torch.tensor(1.0)}, "parameter 0 has an 'alpha'"),
    ):
        state = copy.deepcopy(optimizer.state_dict())
        state["state"][0].update(change)
        before = {n: p.detach().clone() for n, p in params.items()}
        with pytest.raises(ValueError, match=f"^state: .*{text}"):
            optimizer.load_state_dict(state)
        assert_same(before, {n: p.detach() for n, p in params.items()})


def test_sgds_state_is_taken():
    p, q = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    sgd = torch.optim.SGD([p], lr=0.1, momentum=0.9)
    p.grad = torch.ones(3)
    sgd.step()
    optimizer = AlphaGrad([q], momentum=0.9)
    optimizer.load_state_dict(sgd.state_dict())
    assert torch.equal(optimizer.state[q]["momentum_buffer"], torch.ones(3))
    q.grad = torch.ones(3)
    optimizer.step()
