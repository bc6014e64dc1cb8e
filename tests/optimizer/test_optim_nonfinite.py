"""NaN and inf in gradients: skip, raise, propagate, GradScaler; and no step waits for the device."""

import copy
import itertools

import pytest
import torch
from cases import (
    ALPHAS,
    MOMENTA,
    NORMALIZATIONS,
    SHAPES,
    SLOTS,
    TRANSFORMS,
    WITHOUT_ALPHA,
    as_parameters,
    assert_same,
    covering,
    error,
    in_groups,
    make_values,
    rule_of,
    settings_of,
    train,
    train_reference,
)
from tiers import each_once, one_in
from torch.utils._python_dispatch import TorchDispatchMode

from alphagrad import AlphaGrad, Rule
from alphagrad.alpha import Constant
from alphagrad.normalization import PerTensor, Unnormalized
from alphagrad.transform import Identity, Tanh

BAD = {"nan": float("nan"), "inf": float("inf"), "-inf": -float("inf")}
# which tensors share the norm of a.weight
UNITS = {"tensor": 1, "none": 1, "module": 2, "group": 3, "blend": 3, "global": 4}


def snapshot(optimizer, params):
    """Copies of the parameters and of their state."""
    states = [dict(optimizer.state[p]) for p in params.values()]
    return copy.deepcopy(({n: p.detach() for n, p in params.items()}, states))


def spoil(grads, value, at=1, name="a.weight"):
    grads = copy.deepcopy(grads)
    grads[at][name][0, 0] = value
    return grads


@pytest.mark.parametrize("foreach", [False, True], ids=["loop", "foreach"])
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("momentum", MOMENTA.values(), ids=MOMENTA)
@pytest.mark.parametrize(
    ("normalization", "alpha"), each_once(list(NORMALIZATIONS), ["constant", "schedule_cosine", "saturation"])
)
def test_skip_follows_the_reference(normalization, alpha, momentum, bad, foreach):
    """The tensors that share the bad norm miss the step as if it had not been; the others take it."""
    slots = (normalization, alpha, "tanh")
    initial, grads = make_values(seed=2)
    grads = spoil(grads, bad)
    reference = train_reference(settings_of(*slots, lr=0.1, weight_decay=0.3, **momentum), initial, grads)
    rule = rule_of(*slots)
    optimizer, params = train(rule, initial, grads, lr=0.1, weight_decay=0.3, foreach=foreach, **momentum)
    for t in reference.tensors:
        assert error(params[t.name], t.value) < 1e-6
        assert optimizer.skipped()[t.name].item() == t.skipped
    assert sum(t.skipped for t in reference.tensors) == UNITS[normalization]


@pytest.mark.parametrize("slots", one_in(3, SLOTS))
def test_skip_keeps_every_rule_finite_and_still(slots):
    initial, grads = make_values(seed=2)
    params = as_parameters(initial, torch.float32)
    optimizer = AlphaGrad(in_groups(params), lr=0.1, rule=rule_of(*slots), momentum=0.9, nesterov=True)
    for i, step_grads in enumerate(grads):
        before = snapshot(optimizer, params)
        for n, p in params.items():
            p.grad = torch.full(SHAPES[n], BAD["nan"]) if i == 1 else torch.tensor(step_grads[n], dtype=torch.float32)
        optimizer.step()
        after = snapshot(optimizer, params)
        assert all(p.isfinite().all() for p in params.values())
        if i == 1:
            assert_same(before[0], after[0])
            for old, new in zip(before[1], after[1], strict=True):
                assert new.pop("skipped") == 1
                assert old.pop("skipped") == 0
                assert_same(old, new)


def test_skips_are_counted_up():
    p = torch.nn.Parameter(torch.zeros(3))
    optimizer = AlphaGrad([p])
    for bad in (1.0, BAD["nan"], BAD["inf"], 2.0, BAD["-inf"]):
        p.grad = torch.tensor([1.0, bad, 0.0])
        optimizer.step()
    assert optimizer.state[p]["skipped"].item() == 3
    assert {k: v.item() for k, v in optimizer.skipped().items()} == {"parameter 0": 3}
    assert optimizer.state_dict()["state"][0]["skipped"].item() == 3


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_raise_names_the_parameter_and_changes_nothing(normalization, bad):
    initial, grads = make_values(seed=2)
    params = as_parameters(initial, torch.float32)
    rule = rule_of(normalization, "saturation", "tanh")
    optimizer = AlphaGrad(in_groups(params), lr=0.1, rule=rule, momentum=0.9, weight_decay=0.1, nonfinite="raise")
    for i, step_grads in enumerate(spoil(grads, bad, at=2)):
        for n, p in params.items():
            p.grad = torch.tensor(step_grads[n], dtype=torch.float32)
        before = snapshot(optimizer, params)
        if i == 2:
            with pytest.raises(FloatingPointError, match=r"non-finite gradient in a\.weight$"):
                optimizer.step()
            after = snapshot(optimizer, params)
            assert_same(before[0], after[0])
            for old, new in zip(before[1], after[1], strict=True):
                assert_same(old, new)
        else:
            optimizer.step()
            assert not torch.equal(before[0]["a.weight"], params["a.weight"])


def test_raise_is_silent_on_good_gradients():
    initial, grads = make_values()
    rule = rule_of("tensor", "constant", "tanh")
    _, skip = train(rule, initial, grads, lr=0.1)
    _, strict = train(rule, initial, grads, lr=0.1, nonfinite="raise")
    assert_same(skip, strict)


# torch.sign(nan) is 0, so sign has nothing to let through
@pytest.mark.parametrize("slots", [s for s in SLOTS if s[1] in (None, "constant") and s[2] != "sign"])
def test_propagate_lets_nan_through(slots):
    initial, grads = make_values(seed=2)
    optimizer, params = train(rule_of(*slots), initial, spoil(grads, BAD["nan"]), lr=0.1, nonfinite="propagate")
    assert params["a.weight"].isnan().any()
    assert optimizer.skipped() == {}


@pytest.mark.long
def test_propagate_equals_skip_on_good_gradients():
    initial, grads = make_values()
    for slots in SLOTS:
        _, skip = train(rule_of(*slots), initial, grads, lr=0.1, momentum=0.9)
        _, through = train(rule_of(*slots), initial, grads, lr=0.1, momentum=0.9, nonfinite="propagate")
        assert_same(skip, through)


# every normalisation, α and transform once; foreach on meta is slow
REPRESENTATIVE = [
    *((n, "saturation", "tanh") for n in NORMALIZATIONS),
    *(("tensor", a, "hybrid_ramp") for a in ALPHAS),
    *(("tensor", None if t in WITHOUT_ALPHA else "constant", t) for t in TRANSFORMS),
]


class NoWaiting(TorchDispatchMode):
    """Fails on whatever makes the host wait for a device, or copies from the host to it."""

    FORBIDDEN = ("_local_scalar_dense", "item", "is_nonzero", "nonzero", "equal", "lift_fresh", "masked_select")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.__name__.split(".")[0] not in self.FORBIDDEN, f"{func} in a step"
        result = func(*args, **(kwargs or {}))
        devices = {t.device.type for t in [*args, result] if isinstance(t, torch.Tensor)}
        assert len(devices) < 2, f"{func} copies between {devices}"
        return result


def test_no_waiting_catches_what_it_should():
    x = torch.ones(2)
    for wait in (lambda: x.sum().item(), lambda: bool(x.sum() > 0), lambda: torch.as_tensor(0.1), lambda: x.to("meta")):
        with pytest.raises(AssertionError), NoWaiting():
            wait()


@pytest.mark.parametrize("first", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 2, 3))])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_no_step_waits_for_the_device(device, first):
    """``meta`` stands for an accelerator: it has no values to wait for.

    The momenta take turns; the slow tests begin with another, so that each rule is seen with each of them.
    """
    momenta = itertools.islice(itertools.cycle(MOMENTA.values()), first, None)
    for slots, momentum in zip(REPRESENTATIVE, momenta):  # noqa: B905
        params = {n: torch.nn.Parameter(torch.zeros(shape, device=device)) for n, shape in SHAPES.items()}
        optimizer = AlphaGrad(in_groups(params), rule=rule_of(*slots), weight_decay=0.1, **momentum)
        for p in params.values():
            p.grad = torch.ones_like(p)
        for _ in range(2):
            with NoWaiting():
                optimizer.step()


def scaled_training(scale_of, momentum, unscale=False, bad=None, settings=None):
    """Trains with gradients multiplied by a GradScaler's scale; returns optimizer, parameters and scaler."""
    initial, grads = make_values(seed=4)
    params = as_parameters(initial, torch.float32)
    optimizer = AlphaGrad(in_groups(params), **{"lr": 0.1, "eps": 1.0, **momentum, **(settings or {})})
    scaler = torch.amp.GradScaler("cpu", init_scale=scale_of, growth_interval=10_000)
    for i, step_grads in enumerate(grads):
        for n, p in params.items():
            p.grad = torch.tensor(step_grads[n], dtype=torch.float32) * scaler.scale(torch.tensor(1.0))
        if i == bad:
            params["a.bias"].grad[0] = BAD["inf"]
        if unscale:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    return optimizer, params, scaler


@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("momentum", MOMENTA.values(), ids=MOMENTA)
def test_grad_scaler_divides_the_scale_out(momentum, unscale):
    """ε = 1 makes the update depend on the gradient's size, so a scale left in would show."""
    initial, grads = make_values(seed=4)
    _, plain = train(Rule(), initial, grads, lr=0.1, eps=1.0, **momentum)
    _, scaled, _ = scaled_training(1024.0, momentum, unscale)
    assert_same(plain, scaled)


@pytest.mark.parametrize("nonfinite", ["skip", "raise", "propagate"])
@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("slots", [("tensor", "constant", "tanh"), ("global", "saturation", "hybrid_ramp")])
def test_grad_scaler_drops_a_whole_step(slots, unscale, nonfinite):
    """Every tensor misses the step, whatever ``nonfinite`` says, and the scale goes down."""
    settings = {"rule": rule_of(*slots), "nonfinite": nonfinite, "weight_decay": 0.1}
    initial, grads = make_values(seed=4)
    rest = [g for i, g in enumerate(grads) if i != 1]
    expected_optimizer, expected = train(initial=initial, grads=rest, lr=0.1, eps=1.0, momentum=0.9, **settings)
    optimizer, params, scaler = scaled_training(1024.0, {"momentum": 0.9}, unscale, bad=1, settings=settings)
    assert_same(params, expected)
    for p, q in zip(params.values(), expected.values(), strict=True):
        assert_same(dict(optimizer.state[p]), dict(expected_optimizer.state[q]))
    assert scaler.get_scale() == 512.0
    assert all(not count.any() for count in optimizer.skipped().values())


def test_gradients_are_left_as_they_were():
    initial, grads = make_values()
    for slots, foreach in covering((False, True)):
        _, params = train(rule_of(*slots), initial, grads, foreach=foreach, momentum=0.9, weight_decay=0.1)
        for n, p in params.items():
            assert torch.equal(p.grad, torch.tensor(grads[-1][n], dtype=torch.float32))


@pytest.mark.parametrize("d", [100, 10_000])
@pytest.mark.parametrize("rule", [Rule(PerTensor(), None, Identity()), Rule(Unnormalized(), Constant(1.0), Tanh())])
def test_the_largest_finite_gradient_is_not_mistaken_for_an_infinite_one(rule, d):
    """100 elements of 1e37 have norm 1e38, which fits float32; 10,000 of them have 1e39, which does not."""
    p = torch.nn.Parameter(torch.zeros(d))
    p.grad = torch.full((d,), 1e37)
    optimizer = AlphaGrad([p], lr=1.0, rule=rule)
    optimizer.step()
    assert optimizer.state[p]["skipped"].item() == 0
    assert (p < 0).all()
