"""What torch asks of its own optimizers (torch.testing._internal.common_optimizers and test_optim)."""

import itertools

import pytest
import torch
from cases import (
    MOMENTA,
    SHAPES,
    SLOTS,
    as_parameters,
    assert_same,
    error,
    in_groups,
    make_values,
    rule_of,
    settings_of,
    train,
    train_reference,
)
from contract import give, go, half_way, stateful, twin_of
from reference import Reference
from tiers import long
from torch.optim import lr_scheduler

from alphagrad import AlphaGrad, Rule
from alphagrad.alpha import Constant, SqrtDim
from alphagrad.normalization import PerModule


def test_no_state_without_momentum_and_one_buffer_with_it():
    """C4: what is the size of a tensor is the buffer and nothing else."""
    for settings, buffers in (({}, 0), ({"momentum": 0.9}, 1), ({"momentum": 0.9, "dampening": 0.1}, 1)):
        p = torch.nn.Parameter(torch.zeros(7, 7))
        p.grad = torch.ones(7, 7)
        optimizer = AlphaGrad([p], **settings)
        optimizer.step()
        assert sum(v.numel() >= p.numel() for v in optimizer.state[p].values()) == buffers
        assert sum(v.numel() for v in optimizer.state[p].values()) <= buffers * 49 + 2


@pytest.mark.parametrize("every", [5, *long(1)])
def test_loop_and_foreach_agree_to_the_last_bit(every):
    """Of every combination of slots, or of one in five."""
    initial, grads = make_values()
    for slots, momentum in zip(SLOTS[::every], itertools.cycle(MOMENTA.values())):
        _, loop = train(rule_of(*slots), initial, grads, foreach=False, weight_decay=0.1, **momentum)
        _, foreach = train(rule_of(*slots), initial, grads, foreach=True, weight_decay=0.1, **momentum)
        assert_same(loop, foreach)


@pytest.mark.parametrize(
    "lr", [torch.tensor(0.1), torch.tensor([0.1]), torch.tensor(0.1, dtype=torch.float64)], ids=str
)
@stateful
def test_lr_may_be_a_tensor(settings, lr):
    initial, grads = make_values()
    rule = settings.get("rule", Rule())
    rest = {k: v for k, v in settings.items() if k != "rule"}
    _, number = train(rule, initial, grads, lr=0.1, weight_decay=0.1, **rest)
    _, tensor = train(rule, initial, grads, lr=lr, weight_decay=0.1, **rest)
    assert_same(number, tensor)


SCHEDULERS = {
    "step": lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.7),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 4),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, [lambda t: 1 / (t + 1), lambda t: 1.0]),
    "linear": lambda o: lr_scheduler.LinearLR(o, 0.25, total_iters=3),
    "one_cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.2, total_steps=6, cycle_momentum=False),
    "chained": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.1, 2), lr_scheduler.ExponentialLR(o, 0.5)], [2]
    ),
}


@pytest.mark.parametrize("tensor_lr", [False, True], ids=["number", "tensor"])
@pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS)
def test_lr_schedulers_set_the_rate(scheduler, tensor_lr):
    """Against the reference, told the rates that SGD under the same scheduler would use."""
    initial, grads = make_values()
    params = as_parameters(initial, torch.float64)
    sgd = torch.optim.SGD(in_groups(twin_of(params)), lr=0.1, momentum=0.9)
    # a scheduler fills a tensor in place, so each group needs its own
    rates = [torch.tensor(0.1) if tensor_lr else 0.1 for _ in range(2)]
    groups = [{**group, "lr": lr} for group, lr in zip(in_groups(params), rates, strict=True)]
    optimizer = AlphaGrad(groups, momentum=0.9)
    settings = [settings_of("tensor", "constant", "tanh", momentum=0.9) for _ in range(2)]
    for s in settings:
        s.alpha = ("constant", {"value": 100.0})
    reference = Reference([(n, v, 0 if n != "b.weight" else 1) for n, v in initial.items()], settings)
    schedulers = scheduler(sgd), scheduler(optimizer)
    for step_grads in grads:
        for s, group in zip(settings, sgd.param_groups, strict=True):
            s.lr = float(group["lr"])
        reference.step(step_grads)
        give(params, step_grads)
        sgd.step()
        optimizer.step()
        for s in schedulers:
            s.step()
    for n, expected in reference.values().items():
        assert error(params[n], expected) < (1e-6 if tensor_lr else 1e-12)


def test_reduce_on_plateau_and_cycled_momentum():
    optimizer, params, rest = half_way({"momentum": 0.9})
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=0)
    plateau.step(1.0)
    plateau.step(2.0)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.01, 0.01])
    cycle = lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=6)
    assert optimizer.param_groups[0]["momentum"] == 0.95
    go(optimizer, params, rest)
    cycle.step()
    assert optimizer.param_groups[0]["momentum"] < 0.95


def test_settings_of_groups_follow_the_reference():
    initial, grads = make_values()
    own = {"lr": 0.02, "momentum": 0.5, "nesterov": True, "weight_decay": 0.0, "eps": 0.3, "maximize": True}
    slots = ("group", "constant", "tanh"), ("group", "sqrt_dim", "scaled_tanh")
    shared = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.2}
    pair = settings_of(*slots[0], **shared), settings_of(*slots[1], **own)
    reference = train_reference(pair, initial, grads)
    groups = {}, {"rule": rule_of(*slots[1]), **own}
    _, params = train(rule_of(*slots[0]), initial, grads, torch.float64, groups, **shared)
    for n, expected in reference.values().items():
        assert error(params[n], expected) < 1e-12


@pytest.mark.parametrize("normalization", ["tensor", "module", "group", "global", "blend"])
def test_parameters_without_gradients_count_for_nothing(normalization):
    """They stay, they are not in any norm, and their own steps are not counted."""
    initial, grads = make_values()
    grads = [dict(g) for g in grads]
    del grads[0]["a.bias"], grads[1]["b.weight"], grads[2]["a.weight"]
    slots = (normalization, "schedule_linear", "tanh")
    reference = train_reference(settings_of(*slots, lr=0.1, momentum=0.9, dampening=0.2), initial, grads)
    params = as_parameters(initial, torch.float64)
    optimizer = AlphaGrad(in_groups(params), lr=0.1, rule=rule_of(*slots), momentum=0.9, dampening=0.2)
    for step_grads in grads:
        for n, p in params.items():
            p.grad = torch.tensor(step_grads[n]) if n in step_grads else None
        optimizer.step()
    for n, expected in reference.values().items():
        assert error(params[n], expected) < 1e-12


def test_no_gradient_at_all_is_no_step():
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = AlphaGrad([p], momentum=0.9, weight_decay=0.5)
    assert optimizer.step() is None
    assert torch.equal(p, torch.ones(2))
    assert not optimizer.state_dict()["state"]


@pytest.mark.parametrize("order", [0, 1])
def test_a_group_may_be_empty(order):
    p = torch.nn.Parameter(torch.ones(2))
    groups = [{"params": []}, {"params": [p]}]
    optimizer = AlphaGrad(groups[::-1] if order else groups, lr=0.1)
    p.grad = torch.ones(2)
    optimizer.step()
    assert (p < 1).all()
    only = AlphaGrad([{"params": []}])
    only.step()
    only.load_state_dict(only.state_dict())
    with pytest.raises(ValueError, match="empty parameter list"):
        AlphaGrad([])


def test_groups_may_be_added_later():
    initial, grads = make_values()
    params = as_parameters(initial, torch.float64)
    first, second = in_groups(params)
    optimizer = AlphaGrad([first], lr=0.1, momentum=0.9)
    optimizer.add_param_group({**second, "lr": 0.02})
    go(optimizer, params, grads)
    pair = (
        settings_of("tensor", "constant", "tanh", lr=0.1, momentum=0.9),
        settings_of("tensor", "constant", "tanh", lr=0.02, momentum=0.9),
    )
    for s in pair:
        s.alpha = ("constant", {"value": 100.0})
    for n, expected in train_reference(pair, initial, grads).values().items():
        assert error(params[n], expected) < 1e-12


def test_named_parameters_only_add_names():
    initial, grads = make_values()
    params = as_parameters(initial, torch.float32)
    twins = twin_of(params)
    named = AlphaGrad(params.items(), lr=0.1)
    bare = AlphaGrad(twins.values(), lr=0.1)
    go(named, params, grads)
    go(bare, twins, grads)
    assert_same(params, twins)
    assert named.state_dict()["param_groups"][0]["param_names"] == list(SHAPES)
    bare.load_state_dict(named.state_dict())


def test_module_wise_takes_a_models_own_names():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    optimizer = AlphaGrad(model.named_parameters(), lr=0.1, rule=Rule(PerModule(), Constant(1.0)))
    before = [p.detach().clone() for p in model.parameters()]
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    for layer, old in ((model[0], before[:2]), (model[2], before[2:])):
        norm = torch.cat([layer.weight.grad.flatten(), layer.bias.grad]).norm()
        for p, start in zip((layer.weight, layer.bias), old, strict=True):
            torch.testing.assert_close(p.detach(), start - 0.1 * torch.tanh(p.grad / norm))


def test_closures_run_with_gradients_on_and_return_their_loss():
    p = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = AlphaGrad([p], lr=0.1, rule=Rule(alpha=SqrtDim(1.0)))
    calls = []

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        calls.append(loss.item())
        return loss

    with torch.no_grad():
        losses = [optimizer.step(closure).item() for _ in range(5)]
    assert losses == calls
    assert losses == sorted(losses, reverse=True)
    assert p.requires_grad


def test_step_hooks_are_called_in_order():
    p = torch.nn.Parameter(torch.ones(2))
    p.grad = torch.ones(2)
    optimizer = AlphaGrad([p], lr=0.1)
    seen = []
    hooks = [
        optimizer.register_step_pre_hook(lambda o, args, kwargs: seen.append(("before", p.sum().item()))),
        optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append(("after", p.sum().item()))),
    ]
    optimizer.step()
    assert [name for name, _ in seen] == ["before", "after"]
    assert seen[0][1] == 2.0
    assert seen[1][1] < 2.0
    for hook in hooks:
        hook.remove()
    optimizer.step()
    assert len(seen) == 2


@pytest.mark.parametrize("momentum", MOMENTA.values(), ids=MOMENTA)
def test_momentum_is_torchs_sgd_on_the_normalised_gradient(momentum):
    """With ``none`` and a vanishing bend the two are one algorithm; decay apart, which SGD couples."""
    alpha = 1e-7
    initial, grads = make_values()
    params = as_parameters(initial, torch.float64)
    sgd = torch.optim.SGD(list(params.values()), lr=0.1 * alpha, **momentum)
    go(sgd, params, grads)
    rule = Rule(rule_of("none", "constant", "tanh").normalization, Constant(alpha))
    _, ours = train(rule, initial, grads, torch.float64, lr=0.1, **momentum)
    for n, p in params.items():
        start = torch.tensor(initial[n])
        torch.testing.assert_close(ours[n].detach() - start, p.detach() - start, rtol=1e-6, atol=1e-14)
