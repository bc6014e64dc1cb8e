"""``batch_dims=1`` on [R, ...] is R optimizers; a bad gradient in one run is that run's own affair."""

import numpy as np
import pytest
import torch
from cases import DECAYS, MOMENTA, NORMALIZATIONS, SHAPES, SLOTS, assert_same, in_groups, make_values, rule_of
from tiers import each_once, long

from alphagrad import AlphaGrad, Rule
from alphagrad.alpha import Constant, FanIn, Saturation, SqrtDim, SqrtTotal
from alphagrad.normalization import PerTensor
from alphagrad.transform import Hybrid, ScaledTanh, SinTanh, Tanh

RUNS = 3


def stack(seeds, dtype):
    """Parameters [R, ...] by name, and for each step gradients [R, ...]."""
    data = [make_values(seed) for seed in seeds]
    params = {n: torch.nn.Parameter(torch.tensor(np.stack([d[0][n] for d in data]), dtype=dtype)) for n in SHAPES}
    steps = [
        {n: torch.tensor(np.stack([grads[n] for grads in step]), dtype=dtype) for n in SHAPES}
        for step in zip(*(d[1] for d in data), strict=True)
    ]
    return params, steps


def run_all(params, steps, **kwargs):
    optimizer = AlphaGrad(in_groups(params), **kwargs)
    for grads in steps:
        for name, p in params.items():
            p.grad = grads[name].clone()
        optimizer.step()
    return optimizer


def one_run(params, steps, run):
    """Run ``run`` of a stack, as parameters and gradients of its own."""
    own = {n: torch.nn.Parameter(p.detach()[run].clone()) for n, p in params.items()}
    return own, [{n: g[run] for n, g in grads.items()} for grads in steps]


def check(rules, stacked_rule, foreach=False, lrs=None, **settings):
    """One stack under ``stacked_rule`` against a run alone for each of ``rules``."""
    params, steps = stack(range(RUNS), torch.float64)
    singles = [one_run(params, steps, run) for run in range(RUNS)]
    lr = 0.1 if lrs is None else torch.tensor(lrs, dtype=torch.float64)
    together = run_all(params, steps, rule=stacked_rule, batch_dims=1, foreach=foreach, lr=lr, **settings)
    for run, (own, own_steps) in enumerate(singles):
        own_lr = 0.1 if lrs is None else lrs[run]
        alone = run_all(own, own_steps, rule=rules[run], foreach=foreach, lr=own_lr, **settings)
        for name, p in own.items():
            torch.testing.assert_close(params[name].detach()[run], p.detach(), rtol=1e-12, atol=1e-14)
            for key, value in alone.state[p].items():
                torch.testing.assert_close(together.state[params[name]][key][run], value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("share", [pytest.param(1, marks=pytest.mark.slow), *long(4), 16])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_a_stack_is_its_runs_for_every_combination(normalization, share):
    """Every combination of slots, one in four, or by default one in sixteen; with each momentum."""
    for k, slots in enumerate(SLOTS):
        # shifted by k // 4: a plain stride could meet the same α policies again and again
        if slots[0] == normalization and (k + k // 4) % share == 0:
            foreach = k % 2 == 0
            for i, momentum in enumerate(MOMENTA.values()):
                decay = list(DECAYS.values())[(i + foreach) % 2]
                check([rule_of(*slots)] * RUNS, rule_of(*slots), foreach, **momentum, **decay)


PER_RUN = (0.5, 3.0, 40.0)
FRACTIONS = (0.0, 0.3, 1.0)
SLOTS_WITH_RUNS = {
    "alpha": lambda v: Rule(alpha=Constant(v)),
    "sqrt_dim.k": lambda v: Rule(alpha=SqrtDim(v)),
    "sqrt_total.k": lambda v: Rule(alpha=SqrtTotal(v)),
    "fan_in.k": lambda v: Rule(alpha=FanIn(v)),
    "saturation.start": lambda v: Rule(alpha=Saturation(Constant(v), 0.3, 0.5, tau=0.5)),
    "beta": lambda v: Rule(alpha=Constant(2.0), transform=ScaledTanh(v)),
    "kappa": lambda v: Rule(alpha=Constant(2.0), transform=SinTanh(v)),
}


@pytest.mark.parametrize("foreach", [False, True], ids=["loop", "foreach"])
@pytest.mark.parametrize("kind", [tuple, list, torch.tensor])
@pytest.mark.parametrize("slot", SLOTS_WITH_RUNS)
def test_each_run_has_its_own_number(slot, kind, foreach):
    values = tuple(np.float32(PER_RUN).tolist())
    make = SLOTS_WITH_RUNS[slot]
    check([make(v) for v in values], make(kind(values)), foreach, lrs=[0.1, 0.02, 0.5], momentum=0.9, weight_decay=0.3)


@pytest.mark.parametrize("foreach", [False, True], ids=["loop", "foreach"])
def test_each_run_has_its_own_lambda(foreach):
    make = lambda v: Rule(alpha=Constant(2.0), transform=Hybrid(v))  # noqa: E731
    check([make(v) for v in FRACTIONS], make(FRACTIONS), foreach, nesterov=True, momentum=0.5)


def test_rule_with_tensors_hashes_like_its_numbers():
    assert Rule(alpha=Constant(torch.tensor([1.0, 2.0]))) == Rule(alpha=Constant((1.0, 2.0)))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("momentum", MOMENTA.values(), ids=MOMENTA)
@pytest.mark.parametrize(
    ("normalization", "alpha"), each_once(list(NORMALIZATIONS), ["constant", "schedule_linear", "saturation"])
)
def test_a_bad_gradient_touches_its_own_run_alone(normalization, alpha, momentum, bad):
    """The run skips that step, state included; the others go on as if nothing had happened."""
    settings = {"rule": rule_of(normalization, alpha, "tanh"), "batch_dims": 1, "lr": 0.1, "weight_decay": 0.5}
    clean, steps = stack(range(RUNS), torch.float32)
    dirty = {n: torch.nn.Parameter(p.detach().clone()) for n, p in clean.items()}
    spoiled = [{n: g.clone() for n, g in grads.items()} for grads in steps]
    for n in SHAPES:
        spoiled[1][n].view(RUNS, -1)[1, 0] = bad
    run_all(clean, steps, **settings, **momentum)
    optimizer = AlphaGrad(in_groups(dirty), **settings, **momentum)
    for i, grads in enumerate(spoiled):
        before = {n: p.detach().clone() for n, p in dirty.items()}
        states = {n: {k: v.clone() for k, v in optimizer.state[p].items()} for n, p in dirty.items()}
        for n, p in dirty.items():
            p.grad = grads[n]
        optimizer.step()
        if i == 1:
            for n, p in dirty.items():
                assert torch.equal(p.detach()[1], before[n][1])
                state = {k: v[1] for k, v in optimizer.state[p].items() if k != "skipped"}
                assert_same(state, {k: v[1] for k, v in states[n].items() if k != "skipped"})
    for n, p in dirty.items():
        assert optimizer.state[p]["skipped"].tolist() == [0, 1, 0]
        assert torch.equal(p.detach()[::2], clean[n].detach()[::2])
        assert not torch.equal(p.detach()[1], clean[n].detach()[1])


def test_one_bad_tensor_of_a_run_leaves_the_runs_other_tensors_moving():
    params, steps = stack(range(RUNS), torch.float32)
    start = {n: p.detach().clone() for n, p in params.items()}
    steps[0]["a.bias"][2] = float("nan")
    optimizer = run_all(params, steps[:1], rule=Rule(PerTensor(), Constant(3.0), Tanh()), batch_dims=1)
    moved = {
        n: (p.detach() != start[n]).flatten(1).any(1).tolist() if p.dim() > 1 else (p != start[n]).tolist()
        for n, p in params.items()
    }
    assert moved == {n: [True, True, n != "a.bias"] for n in SHAPES}
    assert optimizer.skipped()["a.bias"].tolist() == [0, 0, 1]


@pytest.mark.parametrize("slots", [("tensor", "constant", "tanh"), ("blend", "saturation", "hybrid_saturation")])
@pytest.mark.parametrize("shape", [(RUNS,), (RUNS, 0), (RUNS, 1), (1, 4)])
def test_stacks_of_scalars_empties_and_a_single_run(shape, slots):
    p = torch.nn.Parameter(torch.ones(shape))
    p.grad = torch.ones(shape)
    AlphaGrad([p], lr=0.1, rule=rule_of(*slots), batch_dims=1, momentum=0.9).step()
    assert p.isfinite().all()
    assert (p < 1).all()


@pytest.mark.parametrize(
    ("setting", "kwargs"),
    [
        (r"alpha\.value", {"rule": Rule(alpha=Constant((1.0, 2.0)))}),
        (r"alpha\.start", {"rule": Rule(alpha=Saturation(SqrtDim((1.0, 2.0))))}),
        (r"transform\.beta", {"rule": Rule(transform=ScaledTanh((1.0, 2.0)))}),
        (r"transform\.kappa", {"rule": Rule(transform=SinTanh((1.0, 2.0)))}),
        (r"transform\.lam", {"rule": Rule(transform=Hybrid((0.1, 0.2)))}),
    ],
)
@pytest.mark.parametrize("batch_dims", [0, 1])
def test_numbers_for_another_number_of_runs_are_refused(setting, kwargs, batch_dims):
    p = torch.nn.Parameter(torch.ones(RUNS, 2))
    with pytest.raises(ValueError, match=setting):
        AlphaGrad([p], batch_dims=batch_dims, **kwargs)


def test_learning_rates_for_another_number_of_runs_are_refused():
    p = torch.nn.Parameter(torch.ones(RUNS, 2))
    with pytest.raises(ValueError, match="lr"):
        AlphaGrad([p], lr=torch.tensor([0.1, 0.2]), batch_dims=1)


def test_a_stack_has_one_number_of_runs():
    three, four = torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(4, 2))
    with pytest.raises(ValueError, match="batch_dims"):
        AlphaGrad([three, four], batch_dims=1)
    with pytest.raises(ValueError, match="batch_dims"):
        AlphaGrad([{"params": [three], "batch_dims": 1}, {"params": [four], "batch_dims": 0}])
