"""Quantisation-aware training: torch's own numbers, resuming, what is not finite, and what is refused."""

from __future__ import annotations

import copy
import io
import math

import pytest
import torch
from alphagrad.recipes.supervised.learner import Training
from alphagrad.recipes.supervised.looped import LoopLearner
from alphagrad.recipes.supervised.parallel import Parallel
from alphagrad.recipes.supervised.precision import Numbers
from alphagrad.recipes.supervised.quantized import Inputs, integers, quantized, rounded
from image_cases import ADAM, OURS, Recorder, recipe
from test_recipe_formats import OPTIMIZERS, assert_equal, parameters, train
from test_recipe_parallel import Model, batch, objective
from tiers import each_once
from torch import nn
from torch.ao.quantization import MovingAverageMinMaxObserver

from alphagrad.harness import metrics
from alphagrad.harness.driver import OptimizerSpec
from alphagrad.harness.stack import RunSpec, RunStack

WIDTHS = ("int8", "int4_weights")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("most", [127, 7])
@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 3, 3)])
def test_weights_are_rounded_as_torch_does_it(most, shape):
    torch.manual_seed(0)
    ours = torch.randn(shape, requires_grad=True)
    torchs = ours.detach().clone().requires_grad_()
    scale = torchs.detach().flatten(1).abs().amax(1) / most
    zero = torch.zeros(shape[0], dtype=torch.int32)
    slope = torch.randn(shape)
    found = rounded(ours, most)
    expected = torch.fake_quantize_per_channel_affine(torchs, scale, zero, 0, -most, most)
    (found * slope).sum().backward()
    (expected * slope).sum().backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(ours.grad, slope)
    torch.testing.assert_close(ours.grad, torchs.grad)
    whole, steps = integers(ours, most)
    assert torch.equal(found, whole * steps)
    assert whole.abs().flatten(1).amax(1).eq(most).all()


@pytest.mark.parametrize("shift", [0.0, 5.0, -5.0], ids=["both signs", "above 0", "below 0"])
def test_inputs_are_torchs_observer_and_rounding(shift):
    torch.manual_seed(0)
    ours = Inputs().train()
    observer = MovingAverageMinMaxObserver(0.01, dtype=torch.qint8, qscheme=torch.per_tensor_affine)
    for size in (1.0, 0.5, 3.0):
        x = (size * torch.randn(6, 4) + shift).requires_grad_()
        twin = x.detach().clone().requires_grad_()
        found = ours(x)
        observer(twin)
        scale, zero = observer.calculate_qparams()
        expected = torch.fake_quantize_per_tensor_affine(twin, scale[0], zero[0].int(), -128, 127)
        torch.testing.assert_close(found, expected)
        found.square().sum().backward()
        expected.square().sum().backward()
        torch.testing.assert_close(x.grad, twin.grad)
    assert (x.grad == 0).any()  # what was cut off
    seen = copy.deepcopy(ours.state_dict())
    ours.eval()(100 * torch.randn(6, 4))
    assert_equal(ours.state_dict(), seen)


def test_zero_is_among_the_integers():
    """So that the padding of a convolution, and what ReLU has cut, are exact."""
    for shift in (-3.0, 0.0, 2.0):
        inputs = Inputs().train()
        inputs(torch.linspace(-1, 1, 50) + shift)
        assert inputs.eval()(torch.zeros(1)) == 0


def test_what_is_not_finite_is_seen_and_leaves_no_trace():
    inputs = Inputs().train()
    inputs(torch.tensor([-1.0, 2.0]))
    for bad in (math.nan, math.inf):
        assert not inputs(torch.tensor([0.5, bad]))[1].isfinite() or bad == math.inf
        assert (inputs.low, inputs.high) == (-1.0, 2.0)
    assert inputs.eval()(torch.tensor([math.nan])).isnan()
    assert rounded(torch.tensor([[1.0, math.nan], [1.0, 2.0]]), 127).isnan().sum() == 2  # the row, not the other


@pytest.mark.parametrize("width", WIDTHS)
def test_parameters_stay_as_they_were(width):
    plain, own = Model(), Model()
    own.load_state_dict(plain.state_dict())
    quantized(own, width)
    assert_equal(dict(own.named_parameters()), dict(plain.named_parameters()))
    x = torch.randn(4, 5)
    assert not torch.equal(own(x), plain(x))
    torch.testing.assert_close(own(x), plain(x), atol=0.02 if width == "int8" else 0.4, rtol=0)


def learner_of(width, optimizer="alphagrad"):
    training = Training(lambda: quantized(Model(), width), objective, frozenset(), None, 1, compile=False)
    stack = RunStack([RunSpec(0, OptimizerSpec(optimizer, OPTIMIZERS[optimizer]))])
    return LoopLearner(stack, training, Numbers("float32", torch.device("cpu")), Parallel())


@pytest.mark.parametrize("optimizer", ["alphagrad", "bfloat16_momentum", "adam"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_goes_on_to_the_bit(width, optimizer):
    whole, half, again = (learner_of(width, optimizer) for _ in range(3))
    train(whole)
    train(half, last=3)
    file = io.BytesIO()
    torch.save(half.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    train(again, first=3)
    assert_equal(whole.result(0)["model"], again.result(0)["model"])
    assert any("low" in name for name in whole.result(0)["model"]) == (width == "int8")


@pytest.mark.parametrize("optimizer", ["alphagrad", "adam"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_gradient_that_is_not_finite(width, optimizer):
    learner = learner_of(width, optimizer)
    train(learner, last=2)
    before = parameters(learner)
    inputs, targets = batch(2, Parallel())
    learner.step(torch.full_like(inputs, math.nan), targets, None)
    if optimizer == "adam":
        assert learner.finite() == [False]
        return
    assert_equal(parameters(learner), before)
    assert learner.skipped()[0]
    train(learner, first=3)
    assert learner.finite() == [True]
    assert any(not torch.equal(p, before[name]) for name, p in parameters(learner).items())


@pytest.mark.parametrize(("model", "width"), each_once(["mlp", "cnn"], list(WIDTHS)))
def test_what_is_evaluated_is_the_quantised_network(model, width):
    """Run k of a stack is the run alone; a network of integers times their scales has the accuracy that was told."""
    image = recipe(model, quantization=width, shape={"norm": "batch"} if model == "cnn" else None)
    runs = [RunSpec(0, ADAM), RunSpec(1, OURS)]
    log = Recorder(2)
    together = image.train(RunStack(runs), log)
    for k, run in enumerate(runs):
        (alone,) = image.train(RunStack([run]), Recorder())
        assert_equal(together[k]["model"], alone["model"])
    network = image.networks()["model"]
    network.load_state_dict(together[1]["model"])
    integral = recipe(model, shape={"norm": "batch"} if model == "cnn" else None).networks()["model"]
    with torch.no_grad():
        for name, layer in network.named_modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                whole, scale = integers(layer.weight, layer.most)
                assert len(whole.unique()) <= 2 * layer.most + 1
                layer.weight.copy_(whole * scale)
                twin = integral.get_submodule(name)
                twin.load_state_dict({k: v for k, v in layer.state_dict().items() if "inputs" not in k})
                if width == "int8":
                    twin.register_forward_pre_hook(lambda _, x, layer=layer: layer.inputs.eval()(x[0]))
            elif isinstance(layer, nn.BatchNorm2d):
                integral.get_submodule(name).load_state_dict(layer.state_dict())
        hits = [integral.eval()(x).argmax(-1) == y for x, y in image.data.test(torch.device("cpu"), 1000)]
    told = list(log.of(1, metrics.EVAL_ACCURACY).values())[-1]
    assert torch.cat(hits).double().mean() == pytest.approx(told, abs=1e-9)


REFUSED = {
    "model=vit_tiny": (
        {"model": "vit_tiny", "shape": {"patch": 4}},
        r"model\.name=vit_tiny has .*MultiheadAttention, .*; use mlp, cnn",
    ),
    "precision": ({"precision": "bfloat16"}, r"is for recipe\.precision=float32, got bfloat16"),
    "ema": ({"ema": 0.9}, r"use recipe\.ema=null, got 0\.9"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_quantise_is_refused(case):
    settings, told = REFUSED[case]
    with pytest.raises(ValueError, match=rf"^recipe\.quantization=int8: .*{told}") as caught:
        recipe(quantization="int8", **settings)
    assert "\n" not in str(caught.value)


def test_more_processes_are_refused(monkeypatch):
    monkeypatch.setattr("alphagrad.recipes.image.processes", lambda: 2)
    with pytest.raises(ValueError, match=r"recipe\.quantization=int8: is for one process, got 2"):
        recipe(quantization="int8")


@pytest.mark.parametrize("width", WIDTHS)
def test_rounding_is_not_stacked(width):
    """The last bit of a sum would move a weight by a whole step."""
    assert not recipe(quantization=width).vmaps(8)
    with pytest.raises(ValueError, match=rf"recipe\.stack=vmap: cannot be with recipe\.quantization={width}"):
        recipe(quantization=width, stack="vmap")


def test_an_average_of_weights_is_quantised():
    image = recipe(quantization="int4_weights", ema=0.9)
    (result,) = image.train(RunStack([RunSpec(0, OURS)]), Recorder())
    assert result["average"].keys() == result["model"].keys()


def test_residual_networks_quantise():
    assert recipe("resnet18", shape={"stem": "small"}, quantization="int8").settings.quantization == "int8"
