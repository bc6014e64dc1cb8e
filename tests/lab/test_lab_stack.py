"""A stack of runs is the runs alone: optimizers, clipping, generators, state, signals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from stacks import SHAPES, gradients, of_run, parameters
from torch import nn

from alphagrad import variants
from alphagrad.harness import driver, sharing
from alphagrad.harness.driver import Observation, OptimizerSpec
from alphagrad.harness.sharing import StackOptimizer
from alphagrad.harness.stack import RunSpec, RunStack
from alphagrad.instruments.meter import largest
from alphagrad.lab.config import build, compose
from alphagrad.optimizer import AlphaGrad

CONF = Path(__file__).resolve().parents[2] / "conf"
OPTIMIZERS = sorted(f.stem for f in (CONF / "optimizer").glob("*.yaml") if not f.stem.startswith("_"))
LR = ("optimizer.lr=0.05",)


@pytest.fixture(scope="module")
def spec_of():
    """``spec_of("adam", "optimizer.eps=1")`` → the :class:`OptimizerSpec` of a configuration."""
    with compose.hydra_initialized():
        yield lambda name, *overrides: build.optimizer_spec(
            compose.compose([f"optimizer={name}", *(o for o in (*LR, *overrides))]), torch.device("cpu")
        )


def alone(spec: OptimizerSpec, params: dict[str, torch.Tensor], grads: list[dict[str, torch.Tensor]]):
    """One run without a stack, gradients in the parameters' own layout: parameters and optimizer."""
    own = {name: p.clone() for name, p in params.items()}
    optimizer = spec.build(list(own.items()))
    for step in grads:
        for name, p in own.items():
            p.grad = step[name].contiguous().clone()
        if spec.clip_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(list(own.values()), spec.clip_grad_norm)
        optimizer.step()
    return own, optimizer


def assert_stack_is_its_runs(specs: list[OptimizerSpec], observe: Observation | None = None, steps: int = 7) -> None:
    runs = len(specs)
    start, grads = parameters(runs), gradients(runs, steps)
    params = start.clone()
    optimizer = StackOptimizer(specs, params)
    for step in grads:
        given = step.flat.clone()
        optimizer.step(given, observe)
        assert torch.equal(given, step.flat)  # the caller's stay as they are
    for run, spec in enumerate(specs):
        expected, single = alone(spec, of_run(start, run), [of_run(step, run) for step in grads])
        for name, p in expected.items():
            torch.testing.assert_close(params[name][run], p, rtol=2e-6, atol=2e-6)
        assert not torch.equal(expected["2.weight"], start["2.weight"][run])
        state = optimizer.state_of(run)
        for name, p in expected.items():
            reference = single.state[p]
            assert set(state[name]) == set(reference)
            for key, value in reference.items():
                # Shampoo's inverse roots of nearly singular matrices magnify the last bit
                rtol, atol = (1e-3, 1e-5) if spec.name == "shampoo" else (1e-5, 1e-6)
                torch.testing.assert_close(state[name][key], value, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_three_runs_of_every_optimizer(spec_of, name):
    assert_stack_is_its_runs([spec_of(name)] * 3)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_stack_of_one(spec_of, name):
    assert_stack_is_its_runs([spec_of(name)], steps=3)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_observing_changes_nothing(spec_of, name):
    assert_stack_is_its_runs([spec_of(name)] * 2, Observation(tensors=3, tau=2.5), steps=4)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("alphagrad", ("normalization=blend",)),
        ("alphagrad", ("normalization=global",)),
        ("saturation", ("alpha.every=2", "optimizer.dampening=0.3")),
        ("alphagrad", ("alpha=schedule", "alpha.steps=5")),
        ("hybrid", ("transform=hybrid_adaptive",)),
        ("hybrid", ("transform=hybrid_scheduled", "transform.lam.steps=4")),
        ("alphagrad", ("optimizer.momentum=0", "optimizer.weight_decay=0.1")),
        ("sgd", ("optimizer.nesterov=true", "optimizer.weight_decay=0.1")),
        ("adam", ("optimizer.amsgrad=true", "optimizer.weight_decay=0.1")),
        ("rmsprop", ("optimizer.centered=true", "optimizer.momentum=0.5")),
        ("shampoo", ("optimizer.momentum=0.5", "optimizer.preconditioning_compute_steps=2")),
        ("lars", ("optimizer.weight_decay=0.1", "optimizer.nesterov=true")),
    ],
)
def test_three_runs_of_other_settings(spec_of, name, overrides):
    assert_stack_is_its_runs([spec_of(name, *overrides)] * 3)


def test_mixed_optimizers_in_one_stack(spec_of):
    adam, ours, muon_, lion = (spec_of(n) for n in ("adam", "alphagrad", "muon", "lion"))
    other = spec_of("alphagrad", "alpha.value=7")
    assert_stack_is_its_runs([adam, adam, ours, other, muon_, muon_, lion, adam, ours])


def test_neighbours_with_equal_settings_share_an_optimizer(spec_of):
    specs = [spec_of("alphagrad"), spec_of("alphagrad"), spec_of("lamb"), spec_of("lamb"), spec_of("adam")]
    optimizer = StackOptimizer(list(specs), parameters(5))
    assert [len(m.drivers) for m in optimizer.neighbours] == [1, 2, 1]
    assert [(m.rows.start, m.rows.stop) for m in optimizer.neighbours] == [(0, 2), (2, 4), (4, 5)]


@pytest.mark.parametrize("name", ["alphagrad", "adam", "sgd", "shampoo", "tanh_only"])
def test_clipping_is_each_runs_own(spec_of, name):
    # the runs' gradients span three decades: the bound lies between them
    assert_stack_is_its_runs([spec_of(name, "optimizer.clip_grad_norm=1.0")] * 4)


def test_clip_grad_norm_is_torchs():
    runs, bound = 5, 0.7
    (grads,) = gradients(runs, 1)
    clipped = grads.clone()
    sharing.clip_grad_norm_(clipped.flat, bound)
    below = 0
    for run in range(runs):
        params = [torch.zeros(s).requires_grad_() for s in SHAPES.values()]
        for p, g in zip(params, grads.values(), strict=True):
            p.grad = g[run].clone()
        below += int(torch.nn.utils.clip_grad_norm_(params, bound) < bound)
        for p, name in zip(params, SHAPES, strict=True):
            torch.testing.assert_close(clipped[name][run], p.grad, rtol=1e-6, atol=0)
    assert 0 < below < runs  # both cases were met


def test_learning_rates_of_a_stack(spec_of):
    specs = [
        spec_of("adam", "optimizer.lr=0.1"),
        spec_of("lamb", "optimizer.lr=0.2"),
        spec_of("lamb", "optimizer.lr=0.2"),
    ]
    optimizer = StackOptimizer(list(specs), parameters(3))
    assert optimizer.learning_rates() == [0.1, 0.2, 0.2]
    optimizer.scale_lr(0.5)
    optimizer.scale_lr(0.25)  # of what was configured, not of the last
    assert optimizer.learning_rates() == pytest.approx([0.025, 0.05, 0.05])


def make_stack(*seeds: int) -> RunStack:
    spec = OptimizerSpec("adam", torch.optim.Adam)
    return RunStack([RunSpec(seed, spec) for seed in seeds])


def test_streams_belong_to_seed_and_name():
    together = make_stack(5, 6, 7).generators("exploration")
    drawn = [rng.random(4) for rng in together]
    for position, seed in enumerate((5, 6, 7)):
        (single,) = make_stack(seed).generators("exploration")
        np.testing.assert_array_equal(drawn[position], single.random(4))
    (moved,) = (make_stack(9, 8, 6).generators("exploration")[2],)
    np.testing.assert_array_equal(moved.random(4), drawn[1])


def test_streams_differ():
    names = ("initialization", "environment", "minibatch", "exploration", "evaluation")
    rows = [rng.random(3) for seed in range(4) for n in names for rng in make_stack(seed).generators(n)]
    assert len({tuple(row) for row in rows}) == 20
    # a seed as large as the settings allow
    assert make_stack(2**63 - 1).generators("a")[0].random() >= 0


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


def test_initialisation_is_the_runs_own():
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    together = make_stack(3, 11, 4).initialize(network)
    assert torch.equal(torch.random.get_rng_state(), before)  # the process's generator is left alone
    torch.manual_seed(7)
    for position, seed in enumerate((3, 11, 4)):
        for name, p in make_stack(seed).initialize(network).items():
            assert torch.equal(together[name][position], p[0])
            assert not p.requires_grad
    assert not torch.equal(together["0.weight"][0], together["0.weight"][1])
    assert list(together) == [name for name, _ in network().named_parameters()]
    # torch's own initialisation: bounded by 1/√fan_in and filling that range
    assert together["0.weight"].abs().max() <= 0.5
    assert together["0.weight"].abs().max() > 0.4


def test_empty_stack_and_unknown_run(spec_of):
    with pytest.raises(ValueError, match="runs: "):
        RunStack([])
    optimizer = StackOptimizer([spec_of("adam")], parameters(1))
    with pytest.raises(IndexError, match="run 1 of a stack of 1"):
        optimizer.state_of(1)


def test_observed_signals_are_what_they_say(spec_of):
    specs = [
        spec_of("adam"),
        spec_of("alphagrad", "alpha.value=9"),
        spec_of("sqrt_dim"),
        spec_of("muon"),
        spec_of("sign"),
    ]
    runs = len(specs)
    params, steps = parameters(runs), gradients(runs, 3)
    optimizer = StackOptimizer(list(specs), params)
    assert optimizer.step(steps[0].flat) == []
    before = {name: p.clone() for name, p in params.items()}
    rows = optimizer.step(steps[1].flat, Observation(tensors=2, tau=0.8))
    assert len(rows) == runs
    sizes = {"0.weight": 24, "2.weight": 30}
    for run, row in enumerate(rows):
        expected = {}
        for name, d in sizes.items():
            g = steps[1][name][run].double()
            expected[f"grad_norm/{name}"] = g.norm()
            expected[f"update_norm/{name}"] = (params[name][run] - before[name][run]).double().norm()
            if run in (1, 2):
                a = 9.0 if run == 1 else d**0.5
                expected[f"alpha/{name}"] = a
                expected[f"saturation/{name}"] = ((a * g / g.norm()).abs() > 0.8).double().mean()
        told = {k: row[k] for k in row if k.partition("/")[0] in {"grad_norm", "update_norm", "alpha", "saturation"}}
        assert told == pytest.approx({k: float(v) for k, v in expected.items()}, rel=1e-5)
    saturations = [rows[1][f"saturation/{n}"] for n in sizes]
    assert all(0 < s < 1 for s in saturations)


def test_observation_counts_skipped_gradients_of_the_run(spec_of):
    params, (grads,) = parameters(3), gradients(3, 1)
    optimizer = StackOptimizer([spec_of("alphagrad") for k in range(3)], params)
    before = params["2.weight"].clone()
    grads["2.weight"][1, 0, 0] = torch.nan
    everything = Observation(tensors=99, tau=2.5)
    assert optimizer.skipped() == [{}, {}, {}]
    rows = optimizer.step(grads.flat, everything)
    rows = optimizer.step(grads.flat, everything)
    # of every tensor, whether it is observed or not
    assert optimizer.skipped() == [{}, {"skipped/2.weight": 2}, {}]
    assert {name.partition("/")[2] for name in rows[0]} == {*SHAPES, "network"}
    assert torch.equal(params["2.weight"][1], before[1])
    assert not torch.equal(params["2.weight"][0], before[0])


def test_largest_tensors_in_the_networks_order():
    sized = {"a": torch.zeros(1, 3), "b": torch.zeros(1, 9), "c": torch.zeros(1, 5)}
    assert largest(sized, 2) == ["b", "c"]
    assert largest(sized, 9) == ["a", "b", "c"]


def test_batch_dims_spec_reaches_alphagrad(spec_of):
    optimizer = StackOptimizer([spec_of("module_wise") for k in range(2)], parameters(2))
    inner = optimizer.neighbours[0].drivers[0].optimizer
    assert isinstance(inner, AlphaGrad)
    assert inner.defaults["batch_dims"] == 1
    assert inner.defaults["rule"] == variants.module_wise()


def adagrad_over_rows(params):
    """Elementwise in name: its steps are divided by the largest gradient of the whole tensor."""

    class Rows(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure=None):
            for p in self.param_groups[0]["params"]:
                p -= p.grad / p.grad.abs().max()

    return Rows(params, lr=1.0)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "rmsprop", "signsgd", "lion"])
def test_what_is_called_elementwise_is(spec_of, name):
    assert not driver.mixes_elements(spec_of(name).build)


@pytest.mark.parametrize("name", ["lamb", "lars", "muon", "shampoo"])
def test_what_mixes_elements_is_found_out(spec_of, name):
    assert driver.mixes_elements(spec_of(name).build)


def test_a_hidden_mixture_is_found_out():
    assert driver.mixes_elements(adagrad_over_rows)
