"""What torch asks of its own optimizers (torch.testing._internal.common_optimizers and test_optim)."""

import copy
import io
import itertools
import pickle
import warnings

import pytest
import torch
from cases import (
    MOMENTA,
    SHAPES,
    SLOTS,
    as_parameters,
    assert_same,
    covering,
    error,
    in_groups,
    make_values,
    rule_of,
    settings_of,
    train,
    train_reference,
)
from reference import Reference
from torch.optim import lr_scheduler

from alphagrad import AlphaGrad, Rule
from alphagrad.alpha import Constant, Saturation, SqrtDim
from alphagrad.normalization import PerModule
from alphagrad.transform import Hybrid
from alphagrad.values import Ramp

# one setting for each kind of state: none, buffer, buffer and step, step, controller
STATEFUL = {
    "stateless": {},
    "momentum": {"momentum": 0.9, "nesterov": True},
    "dampening": {"momentum": 0.9, "dampening": 0.3},
    "schedule": {"rule": rule_of("tensor", "schedule_cosine", "hybrid_ramp")},
    "saturation": {"rule": rule_of("blend", "saturation", "tanh"), "momentum": 0.9},
}
stateful = pytest.mark.parametrize("settings", STATEFUL.values(), ids=STATEFUL)


def give(params, grads):
    for n, p in params.items():
        p.grad = torch.tensor(grads[n], dtype=torch.float64).to(p.dtype)


def go(optimizer, params, steps):
    for grads in steps:
        give(params, grads)
        optimizer.step()


def half_way(settings, dtype=torch.float32):
    """An optimizer after two of four steps, its parameters, and the gradients that remain."""
    initial, grads = make_values(seed=9)
    params = as_parameters(initial, dtype)
    optimizer = AlphaGrad(in_groups(params), lr=0.1, **settings)
    go(optimizer, params, grads[:2])
    return optimizer, params, grads[2:]


def twin_of(params):
    return {n: torch.nn.Parameter(p.detach().clone()) for n, p in params.items()}


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


def test_no_state_without_momentum_and_one_buffer_with_it():
    """C4: what is the size of a tensor is the buffer and nothing else."""
    for settings, buffers in (({}, 0), ({"momentum": 0.9}, 1), ({"momentum": 0.9, "dampening": 0.1}, 1)):
        p = torch.nn.Parameter(torch.zeros(7, 7))
        p.grad = torch.ones(7, 7)
        optimizer = AlphaGrad([p], **settings)
        optimizer.step()
        assert sum(v.numel() >= p.numel() for v in optimizer.state[p].values()) == buffers
        assert sum(v.numel() for v in optimizer.state[p].values()) <= buffers * 49 + 2


def test_loop_and_foreach_agree_to_the_last_bit():
    initial, grads = make_values()
    for slots, momentum in zip(SLOTS, itertools.cycle(MOMENTA.values())):
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


def strided(t):
    """The same values, every second element of a larger tensor."""
    wide = torch.zeros(*t.shape, 2, dtype=t.dtype)
    wide[..., 0] = t
    return wide[..., 0]


@pytest.mark.parametrize("foreach", [False, True], ids=["loop", "foreach"])
@pytest.mark.parametrize("batch_dims", [0, 1])
def test_memory_layout_does_not_matter(batch_dims, foreach):
    torch.manual_seed(1)
    start, grads = torch.randn(3, 4, 5, 6), [torch.randn(3, 4, 5, 6) for _ in range(3)]
    layouts = {
        "plain": lambda t: t.clone(),
        "transposed": lambda t: t.transpose(1, 3).contiguous().transpose(1, 3),
        "channels last": lambda t: t.contiguous(memory_format=torch.channels_last),
        "strided": strided,
    }
    ends = {}
    for of_param, make_param in layouts.items():
        for of_grad, make_grad in layouts.items():
            p = torch.nn.Parameter(make_param(start))
            optimizer = AlphaGrad([p], lr=0.1, momentum=0.9, foreach=foreach, batch_dims=batch_dims)
            for g in grads:
                p.grad = make_grad(g)
                optimizer.step()
            ends[of_param, of_grad] = p.detach().contiguous()
    for end in ends.values():
        torch.testing.assert_close(end, ends["plain", "plain"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("foreach", [False, True], ids=["loop", "foreach"])
def test_expanded_gradients(foreach):
    """A gradient whose elements share memory, as ``p.sum().backward()`` may give."""
    p, q = (torch.nn.Parameter(torch.zeros(3, 4)) for _ in range(2))
    p.grad, q.grad = torch.ones(1, 1).expand(3, 4), torch.ones(3, 4)
    AlphaGrad([p, q], lr=0.1, foreach=foreach, rule=Rule(alpha=Constant(3.0), transform=Hybrid(0.5))).step()
    assert torch.equal(p, q)
    assert torch.equal(p.grad, torch.ones(3, 4))


@pytest.mark.parametrize(("slots", "foreach"), covering((False, True)))
def test_scalars_and_empty_tensors(slots, foreach):
    """A 0-dim parameter is a tensor of one element; an empty one is in nobody's way.

    In a loop and foreach by turns, which agree to the last bit.
    """
    momentum = {"momentum": 0.9, "dampening": 0.1, "weight_decay": 0.1, "foreach": foreach, "lr": 0.1}
    ends = []
    for shapes in ({"a.s": ()}, {"a.s": (), "a.e": (0,), "b.e": (3, 0)}):
        params = {n: torch.nn.Parameter(torch.ones(shape)) for n, shape in shapes.items()}
        optimizer = AlphaGrad(params.items(), rule=rule_of(*slots), **momentum)
        for _ in range(3):
            for p in params.values():
                p.grad = torch.full_like(p, 0.5)
            optimizer.step()
        ends.append(params["a.s"].detach())
        assert all(p.isfinite().all() for p in params.values())
    assert torch.equal(*ends)
    assert ends[0] < 1


@pytest.mark.parametrize("slots", SLOTS)
def test_nothing_but_empty_tensors(slots):
    p = torch.nn.Parameter(torch.ones(0, 2))
    p.grad = torch.ones(0, 2)
    optimizer = AlphaGrad([("e", p)], rule=rule_of(*slots), momentum=0.9)
    for _ in range(2):
        optimizer.step()
    assert p.shape == (0, 2)


def test_complex_parameters_are_refused():
    with pytest.raises(ValueError, match="complex"):
        AlphaGrad([torch.nn.Parameter(torch.zeros(2, dtype=torch.complex64))])


def test_sparse_gradients_are_refused_and_named():
    p = torch.nn.Parameter(torch.zeros(3, 2))
    p.grad = torch.ones(3, 2).to_sparse()
    with pytest.raises(RuntimeError, match=r"sparse gradients \(emb\)"):
        AlphaGrad([("emb", p)]).step()
    assert torch.equal(p, torch.zeros(3, 2))


def test_wrong_parameters_are_refused_as_torch_does():
    p, q = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    with pytest.raises(TypeError, match="should be an iterable of Tensors or dicts"):
        AlphaGrad(p)
    with pytest.raises(TypeError, match="can only optimize Tensors"):
        AlphaGrad([3.0])
    with pytest.raises(ValueError, match="some parameters appear in more than one parameter group"):
        AlphaGrad([{"params": p}, {"params": p}])
    with pytest.raises(ValueError, match="Some param names are missing"):
        AlphaGrad([("weight", p), q])
    with pytest.raises(ValueError, match="cannot add param group with names"):
        AlphaGrad([{"params": [p]}, {"params": [("weight", q)]}])
    with pytest.raises(ValueError, match="can't optimize a non-leaf Tensor"):
        AlphaGrad([p * 2])
    with pytest.warns(UserWarning, match="duplicate parameters"):
        AlphaGrad([p, p])
    with pytest.raises(TypeError, match="ordered collections"):
        AlphaGrad([{"params": {p, q}}])


def test_a_training_loop_warns_of_nothing():
    model = torch.nn.Linear(3, 1)
    rule = Rule(alpha=Saturation(), transform=Hybrid(Ramp(0.0, 1.0, 5)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = AlphaGrad(model.parameters(), rule=rule, momentum=0.9)
        scheduler = lr_scheduler.StepLR(optimizer, 1)
        for _ in range(3):
            optimizer.zero_grad(set_to_none=False)
            model(torch.ones(2, 3)).sum().backward()
            optimizer.step()
            scheduler.step()
        optimizer.load_state_dict(optimizer.state_dict())
    assert "rule" in repr(optimizer)


def test_maximize_is_descent_on_the_negative():
    initial, grads = make_values()
    negative = [{n: -g for n, g in step.items()} for step in grads]
    for slots, momentum in zip(SLOTS, itertools.cycle(MOMENTA.values())):
        _, up = train(rule_of(*slots), initial, grads, maximize=True, weight_decay=0.1, **momentum)
        _, down = train(rule_of(*slots), initial, negative, weight_decay=0.1, **momentum)
        assert_same(up, down)


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
