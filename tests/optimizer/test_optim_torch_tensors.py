"""Tensors of every kind: layouts, shapes, types, and those that torch refuses."""

import itertools
import warnings

import pytest
import torch
from cases import (
    MOMENTA,
    SLOTS,
    assert_same,
    covering,
    make_values,
    rule_of,
    train,
)
from tiers import long, one_in, rows_one_in
from torch.optim import lr_scheduler

from alphagrad import AlphaGrad, Rule
from alphagrad.alpha import Constant, Saturation
from alphagrad.transform import Hybrid
from alphagrad.values import Ramp


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


@pytest.mark.parametrize(("slots", "foreach"), rows_one_in(3, covering((False, True))))
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


@pytest.mark.parametrize("slots", one_in(3, SLOTS))
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


@pytest.mark.parametrize("every", [5, *long(1)])
def test_maximize_is_descent_on_the_negative(every):
    """Of every combination of slots, or of one in five."""
    initial, grads = make_values()
    negative = [{n: -g for n, g in step.items()} for step in grads]
    for slots, momentum in zip(SLOTS[::every], itertools.cycle(MOMENTA.values())):
        _, up = train(rule_of(*slots), initial, grads, maximize=True, weight_decay=0.1, **momentum)
        _, down = train(rule_of(*slots), initial, negative, weight_decay=0.1, **momentum)
        assert_same(up, down)
