"""What torch's suite for its own optimizers (``TestOptimRenewed`` of test/test_optim.py) asks, of six rules.

:data:`WHERE` has every test of that class: held here under torch's name, proved elsewhere, or not applicable, and why.
"""

import ast
import copy
import enum
import itertools
import re
import typing
from pathlib import Path

import pytest
import torch
from torch.nn import Linear, Parameter, Sequential, Sigmoid
from torch.optim import SGD, lr_scheduler
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from alphagrad import AlphaGrad, Rule, variants
from alphagrad.alpha import Saturation, Schedule, SqrtDim, SqrtTotal
from alphagrad.normalization import Blend, Global
from alphagrad.transform import SinTanh
from alphagrad.values import Ramp

HERE, NOT = "here", "does not apply: "
CONTRACT, KERNELS = "test_optim_torch_contract::", "test_optim_kernels::"
WHERE = {
    "test_optim_infos_do_not_specify_global_cliquey_kwargs": NOT + "of torch's table of optimizers, not of one of them",
    "test_errors": HERE,  # but for the words about SGD's momentum, and rules that ask for names
    "test_forloop_goes_right_direction": HERE,
    "test_forloop_goes_right_direction_multigpu": NOT + "needs two GPUs",
    "test_param_group_with_lrscheduler_goes_right_direction": HERE,
    "test_tensor_lr": f"{CONTRACT}test_lr_may_be_a_tensor",
    "test_rosenbrock_sparse": NOT + f"{CONTRACT}test_sparse_gradients_are_refused_and_named",
    "test_complex": NOT + f"{CONTRACT}test_complex_parameters_are_refused",
    "test_complex_2d": NOT + f"{CONTRACT}test_complex_parameters_are_refused",
    "test_foreach_matches_forloop": f"{CONTRACT}test_loop_and_foreach_agree_to_the_last_bit",
    "test_mixed_device_dtype": HERE,  # types; two devices need two GPUs
    "test_set_default_dtype_works_with_foreach": HERE,  # but for step, which is float32 under any default
    "test_foreach_large_tensor": NOT + "needs 72 GB of GPU memory",
    "test_peak_memory_foreach": NOT + "reads the statistics of CUDA's allocator",
    "test_fused_matches_forloop": f"{KERNELS}test_a_kernel_is_the_plain_step_for_every_rule; float64 and float16 are "
    f"refused: {KERNELS}test_what_no_kernel_covers_is_left_to_the_plain_step",
    "test_fused_error_on_params_on_meta": HERE,
    "test_fused_large_tensor": NOT + f"needs 64 GB of memory; {KERNELS}test_every_size_of_tensor",
    "test_fused_does_not_step_if_foundinf": HERE,
    "test_cpu_load_state_dict": HERE,  # from one execution to another; capturable is no argument, as in SGD
    "test_param_groups_weight_decay": f"{CONTRACT}test_settings_of_groups_follow_the_reference",
    "test_param_groups_lr": HERE,
    "test_step_is_noop_when_params_have_no_grad": f"{CONTRACT}test_no_gradient_at_all_is_no_step",
    "test_step_is_noop_for_zero_grads": HERE,
    "test_step_with_empty_param_group": HERE,
    "test_step_iteration": HERE,
    "test_grads_are_never_inplaced_into": HERE,
    "test_optimizer_can_be_printed": f"{CONTRACT}test_a_training_loop_warns_of_nothing",
    "test_state_dict_deterministic": HERE,
    "test_can_load_older_state_dict": f"{CONTRACT}test_an_older_state_takes_newer_settings_from_the_defaults",
    "test_can_load_from_to_named_state_dict": HERE,
    "test_save_load_equality_with_weights_only": f"{CONTRACT}test_a_loaded_state_goes_on_the_same",
    "test_load_nontensor_step": "test_optim_loops::test_a_count_that_is_a_number_is_taken",
    "test_state_dict_with_cuda_params": NOT + "needs CUDA",
    "test_state_dict_pre_hook": "test_optim_torch_renewed::test_state_dict_pre_post_hook",
    "test_state_dict_post_hook": "test_optim_torch_renewed::test_state_dict_pre_post_hook",
    "test_state_dict_pre_post_hook": HERE,
    "test_load_state_dict_pre_hook_and_prepend": HERE,
    "test_load_state_dict_post_hook": "test_optim_torch_renewed::test_load_state_dict_pre_post_hook",
    "test_load_state_dict_pre_post_hook": HERE,
    "test_step_post_hook": f"{CONTRACT}test_step_hooks_are_called_in_order",
    "test_step_pre_hook": f"{CONTRACT}test_step_hooks_are_called_in_order",
    "test_step_all_hooks": HERE,
    "test_deepcopy_copies_all_public_attrs": HERE,
    "test_second_order_optims_return_consistent_types": NOT + "of LBFGS, whose step calls the closure several times",
    "test_fused_cpu_matches_cuda": NOT + "there is no kernel for CUDA",
    "test_defaults_changed_to_foreach": "test_optim_settings::test_foreach_is_one_call_for_all_tensors",
    "test_non_empty_state": HERE,
    "test_adamw_serialization": NOT + "of Adam and AdamW, which load each other's states",
}

RULES = {
    "base": variants.alphagrad(),
    "module_wise": variants.module_wise(),
    "global_sqrt_total": Rule(Global(), SqrtTotal(1.0)),
    "blend_saturation": Rule(Blend(0.3), Saturation(SqrtDim(1.0), 0.3, 0.5, tau=1.0, every=2)),
    "hybrid_ramp": variants.hybrid(lam=Ramp(0.1, 0.9, 5)),
    "sin_tanh_schedule": Rule(alpha=Schedule(2.0, 50.0, 10, "cosine"), transform=SinTanh(1.2)),
}
HOW = {"kernel": {}, "foreach": {"foreach": True}, "loop": {"foreach": False}}


def torchs_own():
    """What torch tests SGD with, from the source of ``torch.testing._internal.common_optimizers`` as installed.

    To import it would freeze the flags of ``torch.backends`` for the whole process.
    """
    path = Path(torch.__file__).parent / "testing" / "_internal" / "common_optimizers.py"
    tree = ast.parse(path.read_text())
    wanted = {"OptimizerInput", "OptimizerErrorEnum", "ErrorOptimizerInput", "_get_device_type"}
    wanted |= {"get_error_inputs_for_all_optims", "optim_inputs_func_sgd", "optim_error_inputs_func_sgd"}
    definitions = [node for node in tree.body if getattr(node, "name", None) in wanted]
    found = {**vars(enum), **vars(typing), **vars(lr_scheduler), "torch": torch, "Parameter": Parameter}
    exec(compile(ast.Module(definitions, []), str(path), "exec"), found)
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "OptimizerInfo"]
    (sgd,) = (call for call in calls if ast.unparse(call.args[0]) == "SGD")
    (schedulers,) = (k.value for k in sgd.keywords if k.arg == "scheduler_inputs")
    found["scheduler_inputs"] = eval(compile(ast.Expression(schedulers), str(path), "eval"), found)
    return found


TORCH = torchs_own()


@pytest.fixture(params=RULES.values(), ids=RULES)
def rule(request):
    return request.param


@pytest.fixture(params=HOW.values(), ids=HOW)
def how(request):
    return request.param


@pytest.fixture
def third(rule, how):
    """Every third one, from another start in each case: every rule meets all, and so does every execution."""
    start = list(RULES.values()).index(rule) + list(HOW.values()).index(how)
    return lambda cases: cases[start % 3 :: 3]


@pytest.fixture
def settings(third):
    """SGD's settings in torch's tests, all of which AlphaGrad has; tensors among them are new each time."""
    return third([given.kwargs for given in TORCH["optim_inputs_func_sgd"]("cpu")])


@pytest.fixture
def make(rule, how):
    """Makes an optimizer with the rule, executed so; parameters get names."""
    return lambda params, **given: AlphaGrad(named(params), **{"rule": rule, **how, **given})


def named(params):
    """Parameters, or groups of them, with names of one module."""
    counter = itertools.count()
    if isinstance(params[0], dict):
        return [{**group, "params": [(f"layer.{next(counter)}", p) for p in group["params"]]} for group in params]
    return [(f"layer.{next(counter)}", p) for p in params]


def layer(contiguous=True):
    """A weight and a bias, the same in each call, and a loss that both should lower."""
    torch.manual_seed(1)
    weight, bias, x = torch.randn(10, 5, 2), torch.randn(10, 2), torch.randn(5)
    params = [Parameter(p[..., 0].contiguous() if contiguous else p[..., 0]) for p in (weight, bias)]
    return params, lambda: (params[0].mv(x) + params[1]).pow(2).sum()


def descend(optimizer, loss, steps=5, schedulers=()):
    """Takes steps; the loss before the first and after the last."""

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    start = loss().item()
    for _ in range(steps):
        value = optimizer.step(closure).detach()
        for scheduler in schedulers:
            scheduler.step(*([value] if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else []))
    return start, loss().item()


def assert_right_direction(losses, given):
    assert (losses[1] > losses[0]) == given.get("maximize", False), (losses, given)


def assert_equal(one, other, tolerance=0.0):
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_every_test_of_torch_has_its_place():
    here = {name for name in globals() if name.startswith("test_")}
    for name, where in WHERE.items():
        assert (name in here) == (where == HERE), name
        assert where == HERE or where.startswith(NOT) or "::" in where, name
        for file, test in re.findall(r"(\w+)::(\w+)", where):
            assert f"\ndef {test}(" in (Path(__file__).parent / f"{file}.py").read_text(), where


@pytest.mark.parametrize("name", [name for name in RULES if not RULES[name].normalization.needs_names])
def test_errors(name):
    inputs = TORCH["optim_error_inputs_func_sgd"]("cpu", torch.float32)
    assert len(inputs) >= 7
    for given in inputs:
        kwargs = given.optimizer_error_input.kwargs
        text = "^momentum: .*-0.5" if "momentum" in kwargs else given.error_regex
        expected = pytest.warns if issubclass(given.error_type, Warning) else pytest.raises
        with expected(given.error_type, match=text):
            AlphaGrad(given.optimizer_error_input.params, rule=RULES[name], **kwargs)


@pytest.mark.parametrize("contiguous", [True, False], ids=["contiguous", "strided"])
def test_forloop_goes_right_direction(make, settings, third, contiguous):
    for given, constructors in itertools.product(settings, [(), *third(TORCH["scheduler_inputs"])[:1]]):
        params, loss = layer(contiguous)
        optimizer = make(params, **copy.deepcopy(given))
        assert_right_direction(descend(optimizer, loss, schedulers=[c(optimizer) for c in constructors]), given)


def test_param_group_with_lrscheduler_goes_right_direction(make, third):
    for constructors in third(TORCH["scheduler_inputs"]):
        (weight, bias), loss = layer()
        optimizer = make([{"params": [weight]}, {"params": [bias], "lr": 0.01}])
        assert_right_direction(descend(optimizer, loss, schedulers=[c(optimizer) for c in constructors]), {})


def path(rule, dtype=torch.float32, **given):
    """Parameters and state of a network after each of five steps: one without gradients, two with a frozen layer."""
    torch.manual_seed(1)
    model = Sequential(Linear(2, 3, dtype=dtype), Sigmoid(), Linear(3, 1, dtype=dtype), Sigmoid())
    model.single = Parameter(torch.tensor(0.5, dtype=dtype))
    x = torch.arange(0.1, 0.65, 0.1, dtype=dtype).view(3, 2)
    optimizer = AlphaGrad(model.named_parameters(), rule=rule, **given)
    points = []
    for step in range(5):
        optimizer.zero_grad()
        model[2].requires_grad_(step not in (2, 3))
        if step != 1:
            (model(x).sum() + model.single).backward()
        optimizer.step()
        points.append([t.detach().clone() for p in model.parameters() for t in (p, *optimizer.state[p].values())])
    return points


def test_mixed_device_dtype(make, settings):
    """Parameters of all types in one group, and one without a gradient."""
    for given in settings:
        ends = []
        for execution in ({}, {"foreach": False}):
            torch.manual_seed(1)
            dtypes = (torch.float64, torch.float32, torch.float16, torch.bfloat16) * 2
            params = [torch.rand(2, 3).to(dtype).requires_grad_() for dtype in dtypes]
            for p in params:
                p.grad = torch.rand(2, 3).to(p.dtype)
            optimizer = make([*params, torch.ones(2, dtype=torch.int64)], **{**given, "lr": 0.05}, **execution)
            for _ in range(2):
                optimizer.step()
            ends.append(params)
        for p, q in zip(*ends, strict=True):
            assert_equal(p, q, 8 * torch.finfo(p.dtype).eps)


def test_set_default_dtype_works_with_foreach(rule, how, settings):
    """Neither parameters nor state depend on the default type."""
    expected = path(rule, **how, **settings[0])
    try:
        for default in (torch.float64, torch.float16):
            torch.set_default_dtype(default)
            assert_equal(path(rule, **how, **settings[0]), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_fused_error_on_params_on_meta(rule):
    with torch.device("meta"):
        model = Linear(2, 3)
    optimizer = AlphaGrad(model.named_parameters(), rule=rule, fused=True)
    for p in model.parameters():
        p.grad = torch.rand_like(p)
    with pytest.raises(RuntimeError, match="`fused=True` requires all the params to be floating point Tensors"):
        optimizer.step()
    assert not any(optimizer.state.values())
    optimizer.zero_grad()
    optimizer.step()


@pytest.mark.parametrize("scale", [None, torch.ones(1)], ids=["unscaled", "scaled"])
def test_fused_does_not_step_if_foundinf(rule, scale):
    for given in (given.kwargs for given in TORCH["optim_inputs_func_sgd"]("cpu")):
        params = [Parameter(torch.ones(1)) for _ in range(5)]
        optimizer = AlphaGrad(named(params), rule=rule, fused=True, **given)
        optimizer.grad_scale, optimizer.found_inf = scale, torch.ones(())
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
        assert all(torch.equal(p, torch.ones(1)) for p in params)
        assert all(state.get("step", 0) == 0 for state in optimizer.state.values())


def test_cpu_load_state_dict(make, settings):
    """A state says how it was made; the optimizer that loads it goes on in its own way."""
    for given, fused in itertools.product(settings, (True, False, None)):
        params, loss = layer()
        optimizer = make(params, **given)
        own = [optimizer.param_groups[0][key] for key in ("fused", "foreach")]
        descend(optimizer, loss, 1)
        state = copy.deepcopy(optimizer.state_dict())
        state["param_groups"][0].update(fused=fused, foreach=None if fused else True)
        optimizer.load_state_dict(state)
        assert [optimizer.param_groups[0][key] for key in ("fused", "foreach")] == own
        assert_right_direction(descend(optimizer, loss, 2), given)


def test_param_groups_lr(make, settings):
    for given in settings:
        params, loss = layer()
        still = Parameter(torch.randn(2))
        start = still.detach().clone()
        optimizer = make([{"params": params, "lr": 1e-3, **given}, {"params": [still]}], lr=1e-28)
        assert_right_direction(descend(optimizer, loss), given)
        still.grad = torch.ones(2)
        optimizer.step()
        assert torch.equal(still, start)


def test_step_is_noop_for_zero_grads(make, settings):
    for given in (s for s in settings if not s.get("weight_decay")):
        p = torch.randn(5, 1, requires_grad=True)
        start, p.grad = p.detach().clone(), torch.zeros(5, 1)
        assert make([p], **given).step(lambda: torch.tensor([1.0])) == 1
        assert torch.equal(p, start)


def test_step_with_empty_param_group(make):
    assert make([{"params": []}]).step(lambda: torch.tensor(3.5)) == 3.5


def test_step_iteration(make):
    """Rules that count steps count each once."""
    params, loss = layer()
    optimizer = make(params)
    descend(optimizer, loss, 4)
    assert all(state.get("step", 4) == 4 for state in optimizer.state.values())


def test_grads_are_never_inplaced_into(make, settings):
    for given in settings:
        params, loss = layer()
        optimizer = make(params, **given)
        loss().backward()
        before = [(p.grad, p.grad.clone(), p.grad._version) for p in params]
        optimizer.step()
        optimizer.step()
        for p, (grad, value, version) in zip(params, before, strict=True):
            assert p.grad is grad
            assert grad._version == version
            assert torch.equal(grad, value)


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
