"""observe.signals against direct computation."""

import pytest
import torch
from cases import (
    ALPHAS,
    NORMALIZATIONS,
    SHAPES,
    TRANSFORMS,
    WITHOUT_ALPHA,
    as_parameters,
    assert_same,
    in_groups,
    make_values,
    rule_of,
    settings_of,
)
from reference import Reference, saturation_of
from tiers import each_once

from alphagrad import AlphaGrad, Rule, signals
from alphagrad.alpha import Constant, SqrtDim
from alphagrad.normalization import Unnormalized
from alphagrad.transform import Sign


def stacked(seeds):
    data = [make_values(seed) for seed in seeds]
    params = {n: torch.nn.Parameter(torch.stack([torch.tensor(d[0][n]) for d in data])) for n in SHAPES}
    steps = zip(*(d[1] for d in data), strict=True)
    return data, params, [{n: torch.stack([torch.tensor(g[n]) for g in step]) for n in SHAPES} for step in steps]


@pytest.mark.parametrize("transform", ["tanh", "hybrid_saturation", "identity"])
@pytest.mark.parametrize(("normalization", "alpha"), each_once(list(NORMALIZATIONS), list(ALPHAS)))
def test_signals_are_what_the_next_step_does(normalization, alpha, transform):
    """Before each of four steps, in two runs: ‖g‖, α and S(α) of every tensor."""
    slots = (normalization, None if transform in WITHOUT_ALPHA else alpha, transform)
    data, params, steps = stacked((1, 2))
    optimizer = AlphaGrad(in_groups(params), lr=0.1, rule=rule_of(*slots), batch_dims=1)
    settings = settings_of(*slots, lr=0.1)
    groups = [settings, settings]
    references = [Reference([(n, v, n == "b.weight") for n, v in initial.items()], groups) for initial, _ in data]
    for i, grads in enumerate(steps):
        for n, p in params.items():
            p.grad = grads[n].clone()
        measured = signals(optimizer, tau=0.6)
        assert set(measured) == set(SHAPES)
        for run, reference in enumerate(references):
            own = data[run][1][i]
            for t in reference.tensors:
                row = measured[t.name]
                assert row["grad_norm"][run].item() == pytest.approx(reference.norm([t], own), rel=1e-12)
                if slots[1] is None:
                    assert set(row) == {"grad_norm"}
                    continue
                steepness = reference.steepness(t, settings)
                scaled = own[t.name] / reference.divisor(t, reference.tensors, own, settings) * steepness
                assert row["alpha"][run].item() == pytest.approx(steepness, rel=1e-6)
                assert row["saturation"][run].item() == pytest.approx(saturation_of(scaled, 0.6))
            reference.step(own)
        optimizer.step()


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_looking_changes_nothing(transform):
    initial, grads = make_values()
    ends = []
    for look in (False, True):
        params = as_parameters(initial, torch.float32)
        rule = rule_of("blend", None if transform in WITHOUT_ALPHA else "saturation", transform)
        optimizer = AlphaGrad(in_groups(params), lr=0.1, rule=rule, momentum=0.9)
        for step_grads in grads:
            for n, p in params.items():
                p.grad = torch.tensor(step_grads[n], dtype=torch.float32)
            if look:
                signals(optimizer)
            optimizer.step()
        ends.append(params)
    assert_same(*ends)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_norms_of_any_scale(scale):
    p = torch.nn.Parameter(torch.zeros(4))
    p.grad = torch.full((4,), scale)
    row = signals(AlphaGrad([p], eps=0.0, rule=Rule(alpha=SqrtDim(3.0))))["parameter 0"]
    assert row["grad_norm"].item() == pytest.approx(2 * scale, rel=1e-6)
    assert row["saturation"].item() == 1.0
    assert row["alpha"].item() == 6.0


@pytest.mark.parametrize("batch_dims", [0, 1])
def test_scalars_have_signals_too(batch_dims):
    p = torch.nn.Parameter(torch.zeros((3,) * batch_dims))
    p.grad = torch.full_like(p, 2.0)
    row = signals(AlphaGrad([p], batch_dims=batch_dims, rule=Rule(Unnormalized(), Constant(2.0))))["parameter 0"]
    for key, value in (("grad_norm", 2.0), ("alpha", 2.0), ("saturation", 1.0)):
        assert torch.equal(row[key], torch.full_like(p.detach(), value)), key


def test_numbers_for_each_run():
    p = torch.nn.Parameter(torch.zeros(2, 4))
    p.grad = torch.ones(2, 4)
    row = signals(AlphaGrad([p], batch_dims=1, rule=Rule(alpha=Constant((2.0, 50.0)))))["parameter 0"]
    assert row["alpha"].tolist() == [2.0, 50.0]
    assert row["saturation"].tolist() == [0.0, 1.0]


def test_half_precision_is_measured_in_float32():
    p = torch.nn.Parameter(torch.zeros(10_000, dtype=torch.float16))
    p.grad = torch.full((10_000,), 1e3, dtype=torch.float16)
    row = signals(AlphaGrad([p]))["parameter 0"]
    assert row["grad_norm"].item() == 1e5
    assert row["grad_norm"].dtype == torch.float32


def test_no_gradients_no_signals():
    assert signals(AlphaGrad([torch.nn.Parameter(torch.zeros(2))])) == {}


def test_parameters_without_names_and_without_alpha():
    params = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    for p in params:
        p.grad = torch.ones(2)
    measured = signals(AlphaGrad(params, rule=Rule(alpha=None, transform=Sign())))
    assert list(measured) == ["parameter 0", "parameter 1"]
    assert all(set(row) == {"grad_norm"} for row in measured.values())


def test_names_without_gradients_keep_their_numbers():
    """The second of two parameters is "parameter 1", also where the first has no gradient."""
    params = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    params[1].grad = torch.tensor([1.0, float("nan")])
    optimizer = AlphaGrad(params)
    assert list(signals(optimizer)) == ["parameter 1"]
    optimizer.step()
    assert list(optimizer.skipped()) == ["parameter 1"]
