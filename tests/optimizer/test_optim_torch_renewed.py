"""What torch's suite for its own optimizers (``TestOptimRenewed`` of test/test_optim.py) asks, of six rules.

:data:`WHERE` has every test of that class: held here under torch's name, proved elsewhere, or not applicable, and why.
"""

# ruff: noqa: F811

import copy
import itertools
import re
from pathlib import Path

import pytest
import torch
from renewed import RULES, TORCH, assert_equal, descend, how, layer, make, named, path, rule, settings, third  # noqa: F401
from torch.nn import Linear, Parameter

from alphagrad import AlphaGrad

OWN = ("test_optim_torch_renewed.py", "test_optim_torch_renewed_state.py")
"""The files that hold them under torch's names."""
HERE, NOT = "here", "does not apply: "
CONTRACT, STATES, TENSORS = (f"test_optim_torch_{name}::" for name in ("contract", "states", "tensors"))
KERNELS, LAYOUTS = "test_optim_kernels::", "test_optim_kernels_layouts::"
WHERE = {
    "test_optim_infos_do_not_specify_global_cliquey_kwargs": NOT + "of torch's table of optimizers, not of one of them",
    "test_errors": HERE,  # but for the words about SGD's momentum, and rules that ask for names
    "test_forloop_goes_right_direction": HERE,
    "test_forloop_goes_right_direction_multigpu": NOT + "needs two GPUs",
    "test_param_group_with_lrscheduler_goes_right_direction": HERE,
    "test_tensor_lr": f"{CONTRACT}test_lr_may_be_a_tensor",
    "test_rosenbrock_sparse": NOT + f"{TENSORS}test_sparse_gradients_are_refused_and_named",
    "test_complex": NOT + f"{TENSORS}test_complex_parameters_are_refused",
    "test_complex_2d": NOT + f"{TENSORS}test_complex_parameters_are_refused",
    "test_foreach_matches_forloop": f"{CONTRACT}test_loop_and_foreach_agree_to_the_last_bit",
    "test_mixed_device_dtype": HERE,  # types; two devices need two GPUs
    "test_set_default_dtype_works_with_foreach": HERE,  # but for step, which is float32 under any default
    "test_foreach_large_tensor": NOT + "needs 72 GB of GPU memory",
    "test_peak_memory_foreach": NOT + "reads the statistics of CUDA's allocator",
    "test_fused_matches_forloop": f"{KERNELS}test_a_kernel_is_the_plain_step_for_every_rule; float64 and float16 are "
    f"refused: {LAYOUTS}test_what_no_kernel_covers_is_left_to_the_plain_step",
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
    "test_optimizer_can_be_printed": f"{TENSORS}test_a_training_loop_warns_of_nothing",
    "test_state_dict_deterministic": HERE,
    "test_can_load_older_state_dict": f"{STATES}test_an_older_state_takes_newer_settings_from_the_defaults",
    "test_can_load_from_to_named_state_dict": HERE,
    "test_save_load_equality_with_weights_only": f"{STATES}test_a_loaded_state_goes_on_the_same",
    "test_load_nontensor_step": "test_optim_states::test_a_count_that_is_a_number_is_taken",
    "test_state_dict_with_cuda_params": NOT + "needs CUDA",
    "test_state_dict_pre_hook": "test_optim_torch_renewed_state::test_state_dict_pre_post_hook",
    "test_state_dict_post_hook": "test_optim_torch_renewed_state::test_state_dict_pre_post_hook",
    "test_state_dict_pre_post_hook": HERE,
    "test_load_state_dict_pre_hook_and_prepend": HERE,
    "test_load_state_dict_post_hook": "test_optim_torch_renewed_state::test_load_state_dict_pre_post_hook",
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


def assert_right_direction(losses, given):
    assert (losses[1] > losses[0]) == given.get("maximize", False), (losses, given)


def test_every_test_of_torch_has_its_place():
    folder = Path(__file__).parent
    here = {test for file in OWN for test in re.findall(r"^def (test_\w+)", (folder / file).read_text(), re.MULTILINE)}
    for name, where in WHERE.items():
        assert (name in here) == (where == HERE), name
        assert where == HERE or where.startswith(NOT) or "::" in where, name
        for file, test in re.findall(r"(\w+)::(\w+)", where):
            assert f"\ndef {test}(" in (folder / f"{file}.py").read_text(), where


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
