"""Precision, accumulation, averaging and compilation of a supervised run, on a small module."""

import copy

import pytest
import torch
from alphagrad.recipes.supervised import precision as precision_module
from alphagrad.recipes.supervised.averaging import Average
from alphagrad.recipes.supervised.learner import Training
from alphagrad.recipes.supervised.parallel import Parallel
from alphagrad.recipes.supervised.precision import Numbers
from test_recipe_parallel import STEPS, Model, assert_same, batch, learner_of, objective, trained
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

ALONE = Parallel()


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def plain_loop(optimizer, model, precision="float32"):
    """The same training as torch's documentation writes it."""
    scaler = torch.amp.GradScaler("cpu", enabled=precision == "amp_float16")
    dtype = {"amp_bfloat16": torch.bfloat16, "amp_float16": torch.float16}.get(precision)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / STEPS)
        (x,), (y,) = batch(step, ALONE)
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            outputs = model(x.to(torch.bfloat16) if precision == "bfloat16" else x)
        optimizer.zero_grad()
        scaler.scale(nn.functional.cross_entropy(outputs.float(), y)).backward()
        scaler.step(optimizer)
        scaler.update()
    return dict(model.named_parameters())


@pytest.mark.parametrize("precision", ["float32", "amp_bfloat16", "amp_float16", "bfloat16"])
def test_a_plain_loop_makes_the_same_parameters(precision):
    learner = learner_of(ALONE, "sgd", precision=precision)
    model = copy.deepcopy(learner.runs[0].module)
    found = trained(ALONE, learner)["result"]["model"]
    expected = plain_loop(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), model, precision)
    assert {p.dtype for p in found.values()} == {torch.bfloat16 if precision == "bfloat16" else torch.float32}
    assert_same(found, {n: p.detach() for n, p in expected.items()}, precision, 1e-6)


def test_precisions_differ():
    ends = [
        trained(ALONE, optimizer="sgd", precision=p)["predicted"] for p in ("float32", "amp_bfloat16", "amp_float16")
    ]
    assert not torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


@pytest.mark.parametrize("optimizer", ["alphagrad", "sgd"])
def test_an_overflowed_step_is_dropped_and_the_scale_halved(optimizer):
    learner = learner_of(ALONE, optimizer, precision="amp_float16")
    run = learner.runs[0]
    run.training = Training(
        Model, lambda o, t: tuple(100 * v for v in objective(o, t)), frozenset(), None, 1, False, False
    )
    before = copy.deepcopy(run.module.state_dict())
    learner.step(*batch(0, ALONE), None)
    assert run.scaler.get_scale() == 2.0**15
    assert_same(dict(run.module.state_dict()), dict(before), optimizer, 0)
    for step in range(20):
        learner.step(*batch(step, ALONE), None)
    assert run.scaler.get_scale() < 2.0**15
    assert not torch.equal(run.module.state_dict()["last.weight"], before["last.weight"])
    again = learner_of(ALONE, optimizer, precision="amp_float16")
    again.load_state_dict(learner.state_dict())
    assert again.runs[0].scaler.get_scale() == run.scaler.get_scale()


@pytest.mark.parametrize("optimizer", ["adaptive", "adam"])
def test_accumulated_gradients_are_those_of_the_whole_batch(optimizer):
    assert_same(trained(ALONE, optimizer=optimizer, accumulate=4), trained(ALONE, optimizer=optimizer), optimizer)


def test_a_batch_that_cannot_be_divided_is_refused():
    with pytest.raises(ValueError, match="accumulate=3"):
        trained(ALONE, optimizer="sgd", accumulate=3)


def test_the_average_is_torchs_and_what_is_evaluated():
    learner = learner_of(ALONE, "sgd", ema=0.9, norm=True)
    torchs = AveragedModel(
        copy.deepcopy(learner.runs[0].module), multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True
    )
    torchs.update_parameters(learner.runs[0].module)  # its first update copies
    for step in range(STEPS):
        learner.step(*batch(step, ALONE), None)
        torchs.update_parameters(learner.runs[0].module)
    average = learner.result(0)["average"]
    assert average.pop("norm.num_batches_tracked") == STEPS
    expected = dict(torchs.module.state_dict())
    del expected["norm.num_batches_tracked"]  # left at 0 by torch
    assert_same(average, expected, "average", 1e-6)
    x = batch(99, ALONE)[0][0]
    torch.testing.assert_close(learner.predict(x)[0], torchs.module.eval()(x))
    learner.runs[0].module.eval()
    assert not torch.equal(learner.predict(x)[0], learner.runs[0].module(x))


def test_the_average_of_half_precision_moves():
    """A thousandth of a difference is below bfloat16's resolution."""
    start, end = torch.ones(4, dtype=torch.bfloat16), torch.full((4,), 2.0, dtype=torch.bfloat16)
    average = Average({"w": start}, 0.999)
    for _ in range(1000):
        average.update({"w": end})
    torch.testing.assert_close(average.tensors["w"], torch.full((4,), 2 - 0.999**1000), rtol=1e-4, atol=0)


def test_inputs_are_of_the_dtype_and_layout_that_the_model_wants():
    learner = learner_of(ALONE, "sgd", precision="bfloat16")
    run = learner.runs[0]
    assert run._given(torch.zeros(2, 5)).dtype == torch.bfloat16
    assert run._given(torch.zeros(2, dtype=torch.int64)).dtype == torch.int64
    images = torch.zeros(2, 3, 4, 4)
    assert run._given(images).is_contiguous()
    run.training = Training(Model, objective, frozenset(), None, 1, False, True)
    assert run._given(images).is_contiguous(memory_format=torch.channels_last)


def test_half_precision_without_autocast():
    numbers = Numbers("bfloat16", torch.device("cpu"))
    assert {p.dtype for p in numbers.convert(Model()).parameters()} == {torch.bfloat16}
    assert not numbers.scaler().is_enabled()
    with numbers.autocast():
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "amp_bfloat16"])
def test_a_compiled_run_is_the_same(precision):
    ends = [
        trained(ALONE, optimizer="adaptive", precision=precision, ema=0.5, compile=compile)["result"]["model"]
        for compile in (False, True)
    ]
    assert_same(ends[1], ends[0], precision, 1e-4 if precision == "float32" else 0.03)


FLOPS = {torch.float32: 50e9, torch.bfloat16: 1e9, torch.float16: 45e9}


@pytest.mark.parametrize(
    ("precision", "device", "warned"),
    [
        ("float32", "cpu", []),
        ("amp_float16", "cpu", []),
        ("amp_bfloat16", "cuda", []),
        ("amp_bfloat16", "cpu", ["recipe.precision=amp_bfloat16: this processor multiplies matrices 50.0"]),
        ("bfloat16", "cpu", ["recipe.precision=bfloat16: this processor multiplies matrices 50.0"]),
    ],
)
def test_slow_half_precision_is_told(monkeypatch, caplog, precision, device, warned):
    monkeypatch.setattr(precision_module, "peak_flops", lambda device, dtype, products: FLOPS[dtype])
    Numbers(precision, torch.device(device)).warn_if_slow()
    assert [m.split(" times")[0] for m in caplog.messages] == warned


def test_a_learner_tells(monkeypatch, caplog):
    monkeypatch.setattr(precision_module, "peak_flops", lambda device, dtype, products: FLOPS[dtype])
    learner_of(ALONE, "sgd", precision="bfloat16")
    assert len(caplog.messages) == 1
