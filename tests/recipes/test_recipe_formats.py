"""Number formats of supervised training: rounding, resuming, non-finite gradients, and what is lost."""

import copy
import io
import math

import pytest
import torch
from alphagrad.recipes.supervised import precision as precision_module
from alphagrad.recipes.supervised.learner import Training
from alphagrad.recipes.supervised.looped import LoopLearner
from alphagrad.recipes.supervised.narrowed import Narrowed
from alphagrad.recipes.supervised.parallel import Parallel
from alphagrad.recipes.supervised.precision import Numbers, check_rounding
from test_recipe_parallel import STEPS, Model, batch, objective
from torch import nn

from alphagrad import AlphaGrad
from alphagrad.harness.driver import Observation, OptimizerSpec
from alphagrad.harness.stack import RunSpec, RunStack

CPU = torch.device("cpu")
ALONE = Parallel()
FORMATS = [
    ("float32", "nearest"),
    ("amp_bfloat16", "nearest"),
    ("amp_float16", "nearest"),
    ("amp_float16_unscaled", "nearest"),
    ("bfloat16", "nearest"),
    ("bfloat16", "stochastic"),
    ("bfloat16", "kahan"),
]
OPTIMIZERS = {
    "alphagrad": lambda params, lr=0.05: AlphaGrad(params, lr=lr, momentum=0.9, fused=False),
    **{
        f"{dtype}_momentum": lambda params, lr=0.05, dtype=dtype: AlphaGrad(
            params, lr=lr, momentum=0.9, momentum_dtype=dtype, fused=False
        )
        for dtype in ("bfloat16", "float16")
    },
    "adam": lambda params, lr=0.01: torch.optim.Adam(params, lr=lr),
}


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """One thread, and no timing of products."""
    monkeypatch.setattr(Numbers, "warn_if_slow", lambda numbers: None)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def learner_of(precision, rounding, optimizer="alphagrad", scale=1.0, **settings):
    def scaled(outputs, targets):
        loss, measures = objective(outputs, targets)
        return scale * loss, measures

    spec = OptimizerSpec(optimizer, lambda params: OPTIMIZERS[optimizer](params, **settings))
    training = Training(Model, scaled, frozenset(), None, 1, compile=False)
    return LoopLearner(RunStack([RunSpec(0, spec)]), training, Numbers(precision, CPU, rounding), ALONE)


def train(learner, first=0, last=STEPS, observe=None):
    """Takes steps; returns the signals of the last one."""
    signals = []
    for step in range(first, last):
        learner.scale_lr(1 - step / STEPS)
        _, signals = learner.step(*batch(step, ALONE), observe)
    return signals[0] if signals else {}


def parameters(learner):
    return {name: p.detach().clone() for name, p in learner.runs[0].module.named_parameters()}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize(
    ("precision", "rounding", "optimizer"),
    [
        *((*form, optimizer) for form in FORMATS for optimizer in ("alphagrad", "adam")),
        *(("float32", "nearest", f"{dtype}_momentum") for dtype in ("bfloat16", "float16")),
        ("amp_float16_unscaled", "nearest", "float16_momentum"),
        ("bfloat16", "kahan", "bfloat16_momentum"),
    ],
)
def test_it_goes_on_to_the_bit(precision, rounding, optimizer):
    whole = learner_of(precision, rounding, optimizer)
    train(whole)
    half = learner_of(precision, rounding, optimizer)
    train(half, last=STEPS // 2)
    file = io.BytesIO()
    torch.save(half.state_dict(), file)
    file.seek(0)
    again = learner_of(precision, rounding, optimizer)
    again.load_state_dict(torch.load(file, weights_only=True))
    train(again, first=STEPS // 2)
    assert_equal(parameters(whole), parameters(again))
    for name, slot in whole.result(0)["optimizer"].items():
        for key, value in slot.items():
            assert torch.equal(value, again.result(0)["optimizer"][name][key]), (name, key)


@pytest.mark.parametrize("optimizer", ["alphagrad", "adam"])
@pytest.mark.parametrize(("precision", "rounding"), FORMATS)
def test_a_gradient_that_is_not_finite(precision, rounding, optimizer):
    """AlphaGrad leaves the tensors as they are and counts; Adam's become NaN, which is seen; a scaler drops steps."""
    learner = learner_of(precision, rounding, optimizer)
    train(learner, last=2)
    before = parameters(learner)
    inputs, targets = batch(2, ALONE)
    learner.step(torch.full_like(inputs, math.nan), targets, None)
    dropped = precision == "amp_float16"
    if dropped or optimizer == "alphagrad":
        assert_equal(parameters(learner), before)
        assert learner.finite() == [True]
        names = [name for name, _ in Model().named_parameters()]
        assert learner.skipped() == [{"skipped/network": 1.0} if dropped else {f"skipped/{n}": 1.0 for n in names}]
        train(learner, first=3)
        assert any(not torch.equal(p, before[name]) for name, p in parameters(learner).items())
    else:
        assert learner.finite() == [False]


@pytest.mark.filterwarnings("ignore:lr. steps of")
def test_small_steps_survive_as_they_are_rounded():
    """A rate of 1e-4 against neighbours 4e-3 apart: lost to the nearest, kept by the others, under any optimizer."""
    for optimizer in ("alphagrad", "adam"):
        moved = {}
        for precision, rounding in (("float32", "nearest"), *FORMATS[4:]):
            learner = learner_of(precision, rounding, optimizer, lr=1e-4)
            with torch.no_grad():
                for p in learner.runs[0].params.values():
                    p.fill_(1.0)
            inputs, targets = batch(0, ALONE)
            for _ in range(20):
                learner.step(inputs, targets, None)
            moved[precision, rounding] = torch.cat([p.double().flatten() - 1 for p in parameters(learner).values()])
        length = moved["float32", "nearest"].norm()
        assert length > 5e-3
        assert not moved["bfloat16", "nearest"].any()
        for rounding in ("stochastic", "kahan"):
            assert length / 3 < moved["bfloat16", rounding].norm() < 3 * length


def test_stochastic_rounding_is_right_on_average():
    params = {"w": nn.Parameter(torch.ones(20_000, dtype=torch.bfloat16))}
    narrowed = Narrowed(params, "stochastic")
    params["w"].grad = torch.ones_like(params["w"])
    torch.manual_seed(0)
    for _ in range(20):
        narrowed.widen()
        assert narrowed.wides["w"].grad.dtype == torch.float32
        narrowed.wides["w"].add_(1e-3)
        narrowed.narrow()
    assert float(params["w"].detach().double().mean()) == pytest.approx(1.02, abs=5e-4)


def test_a_float32_optimizer_is_what_kahan_comes_near_to():
    """What was rounded away is in the state, and parameter plus rest is the float32 sum."""
    params = {"w": nn.Parameter(torch.ones(3, dtype=torch.bfloat16))}
    narrowed = Narrowed(params, "kahan")
    params["w"].grad = torch.ones_like(params["w"])
    for _ in range(10):
        narrowed.widen()
        narrowed.wides["w"].add_(1e-3)
        narrowed.narrow()
    total = params["w"].double() + narrowed.state_dict()["w"].double()
    torch.testing.assert_close(total, torch.full((3,), 1.01, dtype=torch.float64), rtol=0, atol=1e-4)


def losses(signals, quantity):
    return {name: value for name, value in signals.items() if name.startswith(f"{quantity}/")}


def test_when_a_scale_is_needed():
    """Losses 1e-8 times as large: float16 without a scale loses the gradient, with one or as bfloat16 it does not."""
    seen = {}
    for precision in ("amp_float16", "amp_float16_unscaled", "amp_bfloat16"):
        learner = learner_of(precision, "nearest", scale=1e-8)
        seen[precision] = train(learner, observe=Observation(20, 0.5))["underflow/last.weight"]
    assert seen["amp_float16_unscaled"] == 1
    assert seen["amp_float16"] < 0.9
    assert seen["amp_bfloat16"] < 0.2


@pytest.mark.filterwarnings("ignore:lr. steps of")
def test_what_is_lost_is_counted():
    observe = Observation(20, 0.5)
    learner = learner_of("bfloat16", "nearest", lr=1e-6)
    signals = train(learner, last=1, observe=observe)
    assert set(losses(signals, "lost")) == {f"lost/{name}" for name, _ in Model().named_parameters()}
    assert signals["lost/norm.weight"] == 1  # its elements are 1
    assert not any(losses(signals, "overflow").values())
    learner = learner_of("bfloat16", "kahan", "adam", lr=1.0)
    assert not any(losses(train(learner, last=1, observe=observe), "lost").values())
    learner = learner_of("amp_float16_unscaled", "nearest", scale=1e8)
    assert losses(train(learner, last=1, observe=observe), "overflow")["overflow/last.weight"] > 0
    assert not losses(train(learner_of("float32", "nearest"), last=1, observe=observe), "lost")


@pytest.mark.filterwarnings("ignore:lr. steps of")
def test_what_is_lost_is_counted_over_all_tensors():
    """Whatever is observed of single ones: the mean of all elements, and of those with a gradient."""
    sizes = {name: p.numel() for name, p in Model().named_parameters()}
    seen = [train(learner_of("bfloat16", "nearest", lr=1e-4), last=1, observe=Observation(n, 0.5)) for n in (1, 20)]
    assert [len(losses(signals, "lost")) for signals in seen] == [1, len(sizes)]
    for quantity in ("overflow", "underflow"):
        each = losses(seen[1], quantity)
        mean = sum(sizes[name.partition("/")[2]] * share for name, share in each.items()) / sum(sizes.values())
        assert seen[0][f"{quantity}_all/network"] == seen[1][f"{quantity}_all/network"] == pytest.approx(mean)
    assert seen[0]["lost_all/network"] == seen[1]["lost_all/network"]
    each = losses(seen[1], "lost").values()
    assert min(each) < seen[1]["lost_all/network"] < max(each)


@pytest.mark.filterwarnings("ignore:lr. steps of")
def test_what_a_compensation_holds_is_not_lost():
    """Steps of 1e-4 beside neighbours 4e-3 apart: all parameters stand still, and nothing is lost."""
    lost = {}
    for rounding in ("nearest", "kahan"):
        learner = learner_of("bfloat16", rounding, "adam", lr=1e-4)
        with torch.no_grad():
            for p in learner.runs[0].params.values():
                p.fill_(1.0)
        before = parameters(learner)
        signals = train(learner, last=1, observe=Observation(20, 0.5))
        assert_equal(parameters(learner), before)
        lost[rounding] = (max(losses(signals, "lost").values()), signals["lost_all/network"])
    assert lost == {"nearest": (1.0, 1.0), "kahan": (0.0, 0.0)}


def test_dropped_steps_go_on_being_counted():
    learner, again = learner_of("amp_float16", "nearest"), learner_of("amp_float16", "nearest")
    inputs, targets = batch(0, ALONE)
    for _ in range(3):
        learner.step(torch.full_like(inputs, math.inf), targets, None)
    again.load_state_dict(learner.state_dict())
    again.step(torch.full_like(inputs, math.nan), targets, None)
    assert again.skipped() == [{"skipped/network": 4.0}]


def test_observing_changes_nothing():
    for precision, rounding in FORMATS:
        seen, unseen = learner_of(precision, rounding), learner_of(precision, rounding)
        train(seen, observe=Observation(20, 0.5))
        train(unseen)
        assert_equal(parameters(seen), parameters(unseen))


@pytest.mark.parametrize("precision", ["float32", "amp_bfloat16", "amp_float16"])
def test_a_rounding_where_nothing_is_rounded(precision):
    with pytest.raises(
        ValueError, match=rf"recipe\.rounding=kahan: is for recipe\.precision=bfloat16, got {precision}"
    ):
        check_rounding(precision, "kahan")
    check_rounding(precision, "nearest")


def test_a_device_without_units(monkeypatch):
    monkeypatch.setattr(precision_module.torch.cuda, "is_bf16_supported", lambda emulated: False)
    monkeypatch.setattr(precision_module.torch.cuda, "get_device_name", lambda device: "Tesla P4")
    for precision in ("bfloat16", "amp_bfloat16"):
        with pytest.raises(ValueError, match=f"recipe.precision={precision}: Tesla P4 has no bfloat16"):
            Numbers(precision, torch.device("cuda")).check()
    Numbers("amp_float16", torch.device("cuda")).check()


def test_sharded_parameters_are_rounded_to_the_nearest():
    training = Training(Model, objective, frozenset(), None, 1, compile=False)
    stack = RunStack([RunSpec(0, OptimizerSpec("adam", OPTIMIZERS["adam"]))])
    with pytest.raises(ValueError, match=r"recipe\.rounding=kahan: needs whole parameters"):
        LoopLearner(stack, training, Numbers("bfloat16", CPU, "kahan"), Parallel(kind="fsdp"))


def test_a_name_of_a_dtype():
    p = nn.Parameter(torch.zeros(3))
    p.grad = torch.ones(3)
    optimizer = AlphaGrad([p], momentum=0.9, momentum_dtype="bfloat16")
    optimizer.step()
    assert optimizer.state[p]["momentum_buffer"].dtype == torch.bfloat16
    again = AlphaGrad([p], momentum=0.9, momentum_dtype=torch.bfloat16)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    with pytest.raises(ValueError, match="momentum_dtype: must be None or one of float32, float64, bfloat16, float16"):
        AlphaGrad([p], momentum_dtype="int8")
