"""Steps in the backward pass end where steps after it do, and gradients do not stay."""

import copy
import io

import pytest
import torch
from cases import rule_of
from torch.optim import lr_scheduler

from alphagrad import AlphaGrad, InBackward, Rule
from alphagrad.alpha import SqrtTotal
from alphagrad.normalization import PerTensor, Unnormalized

ALLOWED = {
    "base": Rule(),
    "controlled": rule_of("tensor", "saturation", "hybrid_saturation"),
    "scheduled": rule_of("none", "schedule_cosine", "sin_tanh"),
    "sqrt_total with a total": Rule(alpha=SqrtTotal(1.0, 500)),
}
REFUSED = {
    **{n: rule_of(n, "constant", "tanh") for n in ("module", "group", "global", "blend")},
    "sqrt_total": Rule(alpha=SqrtTotal()),
}


def network():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


def train(kind, rule, steps=4, model=None, optimizer=None, **settings):
    model = model or network()
    groups = [{"params": model[0].named_parameters()}, {"params": model[2].named_parameters(), "lr": 0.02}]
    optimizer = optimizer or kind(groups, lr=0.1, rule=rule, momentum=0.9, weight_decay=0.1, **settings)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.9)
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.full((3, 4), float(step + 1))).square().sum().backward()
        optimizer.step()
        scheduler.step()
    return model, optimizer


@pytest.mark.parametrize("settings", [{}, {"fused": False}], ids=["kernel", "plain"])
@pytest.mark.parametrize("rule", ALLOWED.values(), ids=ALLOWED)
def test_the_update_is_that_of_a_step_after_the_backward_pass(rule, settings):
    after, _ = train(AlphaGrad, rule, **settings)
    during, optimizer = train(InBackward, rule, **settings)
    for p, q in zip(after.parameters(), during.parameters(), strict=True):
        assert torch.equal(p, q)
        assert q.grad is None
    assert set(optimizer.skipped()) == {"weight", "bias"}


@pytest.mark.parametrize("rule", REFUSED.values(), ids=REFUSED)
def test_rules_that_span_tensors_are_refused(rule):
    with pytest.raises(ValueError, match=r"^rule: .*measures across tensors.*PerTensor"):
        InBackward(network().named_parameters(), rule=rule)
    optimizer = InBackward([("m.v", torch.nn.Parameter(torch.ones(2)))])
    with pytest.raises(ValueError, match=r"^rule: "):
        optimizer.add_param_group({"params": [("m.w", torch.nn.Parameter(torch.ones(2)))], "rule": rule})


def test_compile_is_refused():
    with pytest.raises(ValueError, match=r"^compile: "):
        InBackward(network().parameters(), compile=True)


def test_gradients_do_not_gather():
    """While a layer's backward runs, at most its neighbour's gradients are alive: 40 layers, never more than a few."""
    model = torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(40)))
    InBackward(model.parameters(), lr=0.01)
    alive = []
    for layer in model:
        layer.register_full_backward_hook(lambda *_: alive.append(sum(p.grad is not None for p in model.parameters())))
    model(torch.ones(2, 8)).sum().backward()
    assert len(alive) == 40
    assert max(alive) <= 4


def test_a_state_goes_on():
    rule = ALLOWED["controlled"]
    model, optimizer = train(InBackward, rule, steps=3)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    twin = copy.deepcopy(network())
    twin.load_state_dict(model.state_dict())
    groups = [{"params": twin[0].named_parameters()}, {"params": twin[2].named_parameters()}]
    fresh = InBackward(groups, rule=rule)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    for m in (model, twin):
        m(torch.ones(3, 4)).sum().backward()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)


def test_it_can_be_ended():
    model = network()
    optimizer = InBackward(model.parameters(), lr=0.1)
    optimizer.remove()
    before = [p.detach().clone() for p in model.parameters()]
    model(torch.ones(1, 4)).sum().backward()
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    optimizer.step()
    assert not any(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def test_nonfinite_gradients_are_refused_one_by_one():
    p = torch.nn.Parameter(torch.ones(2))
    InBackward([("w", p)], nonfinite="raise")
    with pytest.raises(FloatingPointError, match="non-finite gradient in w"):
        (p * float("inf")).sum().backward()
    assert torch.equal(p, torch.ones(2))


def test_normalisations_know_whether_they_span_tensors():
    assert not PerTensor.spans_tensors
    assert not Unnormalized.spans_tensors
