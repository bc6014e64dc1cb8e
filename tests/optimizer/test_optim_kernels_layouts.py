"""Every layout of tensors, what changes under the optimizer, and what no kernel covers."""

import copy
import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import (
    assert_same,
    error,
    in_groups,
    make_values,
    rule_of,
    train,
)
from kernel_steps import trained

from alphagrad import AlphaGrad, Rule
from alphagrad.alpha import Constant
from alphagrad.transform import Hybrid, Identity, SinTanh, Tanh


def strided(t):
    wide = torch.zeros(*t.shape, 2, dtype=t.dtype)
    wide[..., 0] = t
    return wide[..., 0]


LAYOUTS = {
    "plain": lambda t: t.clone(),
    "transposed": lambda t: t.transpose(0, 2).contiguous().transpose(0, 2),
    "channels last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "strided": strided,
    "expanded": lambda t: t[:1, :1, :1, :1].expand(t.shape),
}


@pytest.mark.parametrize(("of_param", "of_grad"), list(itertools.product(list(LAYOUTS)[:4], LAYOUTS)))
def test_every_layout(of_param, of_grad):
    rule = Rule(alpha=Constant(3.0))
    make = {"layout": LAYOUTS[of_param], "grad_layout": LAYOUTS[of_grad], "rule": rule, "momentum": 0.9}
    (plain,), (fused,) = (trained([(4, 3, 2, 5)], **make, **how) for how in ({"fused": False}, {}))
    assert error(fused.contiguous(), plain.detach().contiguous().double().numpy()) < 1e-6
    assert fused.stride() == plain.stride()


def test_rows_of_a_matrix_are_a_stack():
    """The runs of a stack may lie apart, as the slices of one matrix [R, D] do; run k is the run alone, bit for bit."""
    generator = torch.Generator().manual_seed(0)
    matrix, grads = (torch.randn(3, 50, generator=generator) for _ in range(2))
    alone = []
    for k in range(3):
        own = [torch.nn.Parameter(x.clone()) for x in (matrix[k, :20], matrix[k, 20:].view(6, 5))]
        for p, g in zip(own, (grads[k, :20], grads[k, 20:].view(6, 5)), strict=True):
            p.grad = g.clone()
        AlphaGrad(own, lr=0.1, momentum=0.9, fused=True).step()
        alone.append(torch.cat([p.detach().flatten() for p in own]))
    views = [matrix[:, :20], matrix[:, 20:].view(3, 6, 5)]
    for view, g in zip(views, (grads[:, :20], grads[:, 20:].view(3, 6, 5)), strict=True):
        view.grad = g
    AlphaGrad(views, lr=0.1, momentum=0.9, batch_dims=1, fused=True).step()
    assert torch.equal(matrix, torch.stack(alone))


def test_what_changes_under_the_optimizer_is_noticed():
    """Types, memory, state and settings may change between steps, behind the same objects."""
    rule = rule_of("tensor", "saturation", "tanh")
    ends = []
    for how in ({"fused": False}, {}):
        generator = torch.Generator().manual_seed(0)
        p = torch.nn.Parameter(torch.randn(40, 30, generator=generator))
        optimizer = AlphaGrad([p], lr=0.1, rule=rule, momentum=0.9, **how)

        def step(change=lambda: None, p=p, optimizer=optimizer, generator=generator):
            change()
            p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
            optimizer.step()

        step()
        step(lambda p=p: setattr(p, "data", p.data.clone()))
        step(lambda p=p, o=optimizer: o.state[p].update(alpha=torch.tensor(7.0)))
        step(lambda o=optimizer: o.param_groups[0].update(lr=0.01, momentum=0.5, weight_decay=0.3))
        step(lambda p=p: setattr(p, "data", p.data.t().contiguous().t()))
        step(lambda o=optimizer: o.load_state_dict(copy.deepcopy(o.state_dict())))
        step(lambda p=p: setattr(p, "data", p.data.double()))
        step(lambda o=optimizer: o.param_groups[0].update(rule=Rule(alpha=Constant(3.0))))
        ends.append(p.detach())
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("every", [pytest.param(23, marks=pytest.mark.long), pytest.param(1, marks=pytest.mark.slow)])
def test_the_triton_kernels_do_the_same_in_tritons_interpreter(every):
    """One rule in so many, both half precisions, stacks, and gradients that are not finite."""
    pytest.importorskip("triton", reason="Triton comes with torch on Linux alone")
    program = Path(__file__).with_name("interpreted.py")
    ended = subprocess.run([sys.executable, program, str(every)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert int(ended.stdout.split()[0]) > 50


def test_autograd_notices_the_change():
    p = torch.nn.Parameter(torch.ones(3))
    loss = (p * p).sum()
    p.grad = torch.ones(3)
    AlphaGrad([p], lr=0.1, fused=True).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


class Twice(Tanh):
    """A user's own transform."""

    def __call__(self, scaled, unit, numbers):
        return [2 * u for u in super().__call__(scaled, unit, numbers)]


NOT_COVERED = {
    "a user's own transform": (torch.float32, Rule(transform=Twice()), {}),
    "float64": (torch.float64, Rule(), {}),
    "float16": (torch.float16, Rule(), {}),
    "a sine of large angles": (torch.float32, Rule(transform=SinTanh(2e6)), {}),
    "stochastic rounding": (torch.bfloat16, Rule(), {"rounding": "stochastic"}),
}


@pytest.mark.parametrize(("dtype", "rule", "settings"), NOT_COVERED.values(), ids=NOT_COVERED)
def test_what_no_kernel_covers_is_left_to_the_plain_step(dtype, rule, settings):
    p, q = (torch.nn.Parameter(torch.ones(4, dtype=dtype)) for _ in range(2))
    ends = []
    for x, how in ((p, {}), (q, {"fused": False})):
        torch.manual_seed(0)
        x.grad = torch.tensor([1.0, -2.0, 3.0, -4.0], dtype=dtype)
        AlphaGrad([x], lr=0.1, rule=rule, **how, **settings).step()
        ends.append(x.detach())
    assert torch.equal(*ends)
    with pytest.raises(RuntimeError, match=r"^fused=True: no kernel covers"):
        AlphaGrad([p], rule=rule, fused=True, **settings).step()


def test_subclasses_of_tensors_are_left_to_the_plain_step():
    class Own(torch.Tensor):
        pass

    p = torch.ones(3).as_subclass(Own)
    p.grad = torch.ones(3)
    AlphaGrad([p], lr=0.1).step()
    assert (p < 1).all()


def test_without_numba_the_plain_step_runs(monkeypatch):
    from alphagrad import kernels

    monkeypatch.setattr(kernels, "has", lambda package: False)
    initial, grads = make_values()
    _, expected = train(Rule(), initial, grads, fused=False)
    _, got = train(Rule(), initial, grads)
    assert_same(expected, got)
    with pytest.raises(RuntimeError, match="needs numba"):
        train(Rule(), initial, grads, fused=True)


def test_hybrids_keep_both_their_terms():
    """λ = 0 is the identity and λ = 1 the tanh, exactly as those transforms give them."""
    initial, grads = make_values()
    for lam, twin in ((0.0, Rule(alpha=None, transform=Identity())), (1.0, Rule(alpha=Constant(2.0)))):
        _, hybrid = train(Rule(alpha=Constant(2.0), transform=Hybrid(lam)), initial, grads, fused=True)
        _, expected = train(twin, initial, grads, fused=True)
        for name in expected:
            assert error(hybrid[name], expected[name].detach().double().numpy()) < 1e-6


def test_groups_without_gradients_and_new_groups():
    params = {n: torch.nn.Parameter(torch.tensor(v, dtype=torch.float32)) for n, v in make_values()[0].items()}
    optimizer = AlphaGrad(in_groups(params), lr=0.1, rule=rule_of("global", "sqrt_total", "tanh"), fused=True)
    for present in (["gain"], ["gain", "b.weight"], list(params), ["a.bias"]):
        before = {n: p.detach().clone() for n, p in params.items()}
        for n, p in params.items():
            p.grad = torch.ones_like(p) if n in present else None
        optimizer.step()
        assert {n for n, p in params.items() if not torch.equal(p, before[n])} == set(present)
