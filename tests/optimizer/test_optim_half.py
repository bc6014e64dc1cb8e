"""bf16 and fp16 parameters: norms and updates in float32, rounded once."""

import numpy as np
import pytest
import torch
from cases import (
    MOMENTA,
    SHAPES,
    SLOTS,
    as_parameters,
    covering,
    in_groups,
    make_values,
    rule_of,
    settings_of,
    train,
    train_reference,
)

from alphagrad import AlphaGrad, Rule
from alphagrad.normalization import PerTensor
from alphagrad.transform import Identity

HALVES = {torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}


def rounded(dtype):
    return lambda x: torch.as_tensor(x).to(dtype).double().numpy()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_precision_follows_the_reference_rounded_once(dtype):
    """Every rule once, with every pair of its parts and settings; the test below has all combinations."""
    cases = covering(HALVES, (False, True), MOMENTA)
    assert_rounded_once(
        dtype, [(slots, MOMENTA[name], foreach) for slots, half, foreach, name in cases if half == dtype]
    )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("momentum", MOMENTA.values(), ids=MOMENTA)
def test_half_precision_in_every_combination(dtype, momentum):
    assert_rounded_once(dtype, [(slots, momentum, i % 2 == 0) for i, slots in enumerate(SLOTS)])


def assert_rounded_once(dtype, cases):
    """Nearly every element is the reference's own; the rest fell on the other side of a tie, one ulp away."""
    rounding = rounded(dtype)
    initial, grads = make_values(seed=6)
    initial = {n: rounding(v) for n, v in initial.items()}
    grads = [{n: rounding(g) for n, g in step.items()} for step in grads]
    differing = total = 0
    for slots, momentum, foreach in cases:
        settings = settings_of(*slots, lr=0.1, weight_decay=0.3, **momentum)
        reference = train_reference(settings, initial, grads, rounding)
        _, params = train(rule_of(*slots), initial, grads, dtype, lr=0.1, weight_decay=0.3, foreach=foreach, **momentum)
        for name, expected in reference.values().items():
            got = params[name].detach().double().numpy()
            np.testing.assert_allclose(got, expected, rtol=2 * HALVES[dtype], atol=HALVES[dtype] * 1e-2, err_msg=name)
            differing += int((got != expected).sum())
            total += expected.size
            assert params[name].dtype == dtype
    assert differing / total < 0.005


@pytest.mark.parametrize("size", [1e-7, 1e-4, 1.0, 6e4])
def test_fp16_norms_neither_overflow_nor_underflow(size):
    """4,096 elements: the norm of the largest is 3.8e6, the squares of the smallest are below 1e-13."""
    p = torch.nn.Parameter(torch.zeros(4096, dtype=torch.float16))
    p.grad = torch.full((4096,), size, dtype=torch.float16)
    AlphaGrad([p], lr=64.0, rule=Rule(PerTensor(), None, Identity()), eps=0.0).step()
    assert torch.equal(p, torch.full_like(p, -1.0))


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_bf16_keeps_float32s_range(size):
    p = torch.nn.Parameter(torch.zeros(4096, dtype=torch.bfloat16))
    p.grad = torch.full((4096,), size, dtype=torch.bfloat16)
    AlphaGrad([p], lr=64.0, rule=Rule(PerTensor(), None, Identity()), eps=0.0).step()
    assert torch.equal(p, torch.full_like(p, -1.0))


def test_bf16_norm_sums_every_element():
    """A sum of squares in bf16 would stop growing at 256 equal terms."""
    p = torch.nn.Parameter(torch.zeros(65_536, dtype=torch.bfloat16))
    p.grad = torch.ones_like(p)
    AlphaGrad([p], lr=256.0, rule=Rule(PerTensor(), None, Identity()), eps=0.0).step()
    assert torch.equal(p, torch.full_like(p, -1.0))


def test_fp16_gradients_are_unscaled_in_float32():
    """g·2¹⁶ fits fp16 and g itself does not: dividing in fp16 would lose it."""
    p = torch.nn.Parameter(torch.zeros(2, dtype=torch.float16))
    p.grad = torch.tensor([1e-3, 2e-3], dtype=torch.float16)
    optimizer = AlphaGrad([p], lr=1.0, rule=Rule(PerTensor(), None, Identity()), eps=0.0)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(2.0**16), torch.tensor(0.0)
    optimizer.step()
    torch.testing.assert_close(p.float(), -torch.tensor([1.0, 2.0]) / 5**0.5, rtol=1e-3, atol=0)


@pytest.mark.parametrize("normalization", ["tensor", "module", "group", "global", "blend"])
def test_dtypes_of_one_group_share_its_norm(normalization):
    """Each tensor lands where it would in float64, to its own precision."""
    dtypes = dict(zip(SHAPES, (torch.float32, torch.bfloat16, torch.float64, torch.float16), strict=True))
    initial, grads = make_values(seed=7)
    initial = {n: rounded(torch.bfloat16)(v) for n, v in initial.items()}
    grads = [{n: rounded(torch.bfloat16)(rounded(torch.float16)(g)) for n, g in grads[0].items()}]
    reference = train_reference(settings_of(normalization, "sqrt_dim", "tanh", lr=0.1), initial, grads)
    params = {n: p.detach().to(dtypes[n]) for n, p in as_parameters(initial, torch.float64).items()}
    params = {n: torch.nn.Parameter(p) for n, p in params.items()}
    optimizer = AlphaGrad(in_groups(params), lr=0.1, rule=rule_of(normalization, "sqrt_dim", "tanh"))
    for n, p in params.items():
        p.grad = torch.as_tensor(grads[0][n]).to(dtypes[n])
    optimizer.step()
    for n, expected in reference.values().items():
        precision = {torch.float32: 1e-6, torch.float64: 1e-12}.get(dtypes[n]) or HALVES[dtypes[n]]
        np.testing.assert_allclose(params[n].detach().double().numpy(), expected, rtol=precision, atol=0)
