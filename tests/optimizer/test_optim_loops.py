"""What training loops, wrappers and schedulers ask of an optimizer beyond the update."""

import copy
import warnings

import numpy as np
import pytest
import torch
from cases import MOMENTA, assert_same, in_groups, make_values, rule_of, train
from torch.optim import lr_scheduler
from torch.utils._python_dispatch import TorchDispatchMode

from alphagrad import AlphaGrad, Rule
from alphagrad.alpha import Constant, Saturation, Schedule, SqrtDim
from alphagrad.normalization import Blend, Global, PerTensor
from alphagrad.transform import Identity

HOW = pytest.mark.parametrize("how", [{}, {"fused": False}, {"foreach": False}], ids=["kernel", "foreach", "loop"])


def linear(rule, alpha=1e-7):
    """A rule that is SGD but for the factor α, which tanh does not bend."""
    return Rule(rule_of("none", "constant", "tanh").normalization, Constant(alpha))


@HOW
@pytest.mark.parametrize("skips", [(), (0,), (2,)], ids=["none", "first", "third"])
@pytest.mark.parametrize(
    "order",
    [
        [(0.9, 0.0), (0.9, 0.5), (0.9, 0.5), (0.9, 0.0)],
        [(0.0, 0.0), (0.9, 0.5), (0.9, 0.5)],
        [(0.9, 0.5), (0.9, 0.0), (0.9, 0.3), (0.0, 0.0), (0.9, 0.3)],
        [(0.9, 0.5), (0.9, 0.5)],
    ],
    ids=str,
)
def test_momentum_and_dampening_may_be_switched_at_any_time(order, skips, how):
    """As in SGD: the first buffer is undamped, whenever that is; a step that is skipped is none."""
    alpha = 1e-4
    p, q = (torch.nn.Parameter(torch.zeros(3, dtype=torch.float64)) for _ in range(2))
    p32 = torch.nn.Parameter(torch.zeros(3))
    rule = Rule(rule_of("none", "constant", "tanh").normalization, Constant(alpha))
    sgd = torch.optim.SGD([q], lr=alpha)
    for mine, tolerance in ((p, 1e-6), (p32, 1e-5)):
        q.data.zero_()
        sgd.state.clear()
        ours = AlphaGrad([mine], lr=1.0, rule=rule, **how)
        for i, (momentum, dampening) in enumerate(order):
            for o in (ours, sgd):
                o.param_groups[0].update(momentum=momentum, dampening=dampening)
            # a gradient of 0 fills a buffer too
            g = torch.tensor([0.0, 0.0, 0.0] if i == 0 else [1.0, -2.0, 0.5 * i])
            mine.grad = g.to(mine.dtype)
            if i in skips:
                mine.grad = torch.full_like(mine, float("nan"))
            else:
                q.grad = g.double()
                sgd.step()
            ours.step()
        torch.testing.assert_close(mine.detach().double(), q.detach(), rtol=tolerance, atol=1e-14)


@HOW
@pytest.mark.parametrize("normalization", ["tensor", "global"])
def test_a_zero_gradient_says_nothing_about_alpha(normalization, how):
    """A frozen or dead tensor would otherwise drive α to its limit."""
    p, other = (torch.nn.Parameter(torch.zeros(10)) for _ in range(2))
    policy = Saturation(Constant(10.0), 0.3, 0.5, tau=0.5, factor=1.5)
    optimizer = AlphaGrad([p, other], rule=Rule(rule_of(normalization, None, "sign").normalization, policy), **how)
    other.grad = torch.ones(10) * 1e-3
    for step in range(20):
        p.grad = torch.zeros(10) if step != 10 else torch.tensor([1.0] + [1e-6] * 9)
        optimizer.step()
        assert optimizer.state[p]["alpha"].item() == pytest.approx(10.0 if step < 10 else 15.0)


@HOW
@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
def test_scale_and_infinity_may_have_one_dimension(shape, how):
    initial, grads = make_values()
    _, plain = train(Rule(), initial, grads[:1], lr=0.1, eps=1.0, **how)
    for found in (0.0, 1.0):
        params = {n: torch.nn.Parameter(torch.tensor(v, dtype=torch.float32)) for n, v in initial.items()}
        optimizer = AlphaGrad(in_groups(params), lr=0.1, eps=1.0, **how)
        optimizer.grad_scale, optimizer.found_inf = torch.full(shape, 8.0), torch.full(shape, found)
        for n, p in params.items():
            p.grad = 8 * torch.tensor(grads[0][n], dtype=torch.float32)
        optimizer.step()
        for n, p in params.items():
            assert torch.equal(p, plain[n] if not found else torch.tensor(initial[n], dtype=torch.float32))


NUMBERS = [np.float32(0.5), np.float64(0.5), np.float16(0.5)]


@pytest.mark.parametrize("number", [*NUMBERS, np.int64(0), np.int32(0), np.uint8(0)], ids=repr)
@pytest.mark.parametrize("setting", ["lr", "momentum", "weight_decay", "eps"])
def test_numbers_of_numpy_are_numbers(setting, number):
    p = torch.nn.Parameter(torch.ones(2))
    for optimizer in (AlphaGrad([p], **{setting: number}), AlphaGrad([{"params": [p], setting: number}])):
        assert type(optimizer.param_groups[0][setting]) in (int, float)
        p.grad = torch.ones(2)
        optimizer.step()


def test_integers_and_truths_of_numpy_are_taken():
    p = torch.nn.Parameter(torch.ones(2, 3))
    given = {"batch_dims": np.int64(1), "maximize": np.bool_(True), "nesterov": np.False_, "momentum": np.float32(0.5)}
    optimizer = AlphaGrad([p], **given)
    assert optimizer.param_groups[0]["batch_dims"] == 1
    assert optimizer.param_groups[0]["maximize"] is True
    for rule in (
        Rule(alpha=Schedule(np.float32(1), np.int64(10), np.int64(5))),
        Rule(Blend(np.float64(0.5)), Saturation(SqrtDim(np.float32(1)), np.float32(0.1), every=np.int32(2))),
        Rule(alpha=Constant(np.int64(3))),
    ):
        names = [("m.p", p)]
        optimizer = AlphaGrad(names, rule=rule)
        p.grad = torch.ones(2, 3)
        optimizer.step()
        assert "np." not in optimizer.state_dict()["param_groups"][0]["rule"]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_lazy_modules(momentum):
    """As with SGD, the optimizer may be made before the shapes are known."""
    model = torch.nn.Sequential(torch.nn.LazyLinear(4), torch.nn.ReLU(), torch.nn.LazyLinear(1))
    optimizer = AlphaGrad(model.named_parameters(), lr=0.1, momentum=momentum)
    torch.manual_seed(0)
    model(torch.ones(2, 3)).sum().backward()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.step()
    assert any(not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def test_alpha_stays_within_float32():
    for value in (1e39, 1e45, (1.0, 1e45)):
        with pytest.raises(ValueError, match=r"^alpha.value: must be > 0 and at most 3.4e\+38, got"):
            Constant(value)
    p = torch.nn.Parameter(torch.zeros(4))
    p.grad = torch.tensor([0.0, 1.0, -1.0, 0.0])
    with pytest.warns(UserWarning, match=r"^alpha: .* is beyond float32; 3.4e\+38 is used"):
        AlphaGrad([p], lr=1.0, rule=Rule(alpha=SqrtDim(3e38))).step()
    assert torch.equal(p, torch.tensor([0.0, -1.0, 1.0, 0.0]))


@HOW
@pytest.mark.parametrize("size", [1e38, 3e38, 1e30, 1e-30, 1e-38, 1e-41, 3e-45])
def test_without_epsilon_every_finite_gradient_has_a_direction(size, how):
    """Up to float32's largest number, whatever the tensor's size, and down to its smallest."""
    p = torch.nn.Parameter(torch.zeros(1000))
    p.grad = torch.full((1000,), size)
    p.grad[::2] *= -1
    expected = -(p.grad.double() / p.grad.double().norm())
    AlphaGrad([p], lr=1.0, rule=Rule(PerTensor(), None, Identity()), eps=0.0, **how).step()
    torch.testing.assert_close(p.detach().double(), expected, rtol=1e-6, atol=0)
    q = torch.nn.Parameter(torch.zeros(1000))
    q.grad = p.grad
    AlphaGrad([q], lr=1.0, rule=Rule(alpha=Constant(20.0)), eps=0.0, **how).step()
    torch.testing.assert_close(q.detach().double(), torch.tanh(20 * expected), rtol=1e-6, atol=0)


class Calls(TorchDispatchMode):
    """Counts the operations of a step."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


@HOW
@pytest.mark.parametrize("rule", [Rule(), rule_of("blend", "saturation", "hybrid_ramp")], ids=["base", "blend"])
def test_work_is_linear_in_the_number_of_tensors(rule, how):
    """Twice the tensors, at most twice the operations; unbinding all of them for each would be four times."""
    counts = []
    for n in (50, 100, 200):
        params = [(f"m{i}.w", torch.nn.Parameter(torch.ones(2, 2))) for i in range(n)]
        for _, p in params:
            p.grad = torch.ones(2, 2)
        optimizer = AlphaGrad(params, rule=rule, momentum=0.9, dampening=0.1, **how)
        optimizer.step()
        with Calls() as calls:
            optimizer.step()
        outputs = calls.count
        counts.append(outputs)
    assert counts[1] <= 2.05 * counts[0]
    assert counts[2] <= 2.05 * counts[1]


class Sam(torch.optim.Optimizer):
    """What sharpness-aware wrappers do: build the base optimizer from their own groups, and step it twice."""

    def __init__(self, params, base, rho=0.05, **settings):
        super().__init__(params, {"rho": rho, **settings})
        self.base = base(self.param_groups, **settings)
        self.param_groups = self.base.param_groups

    def step(self, closure):
        with torch.enable_grad():
            closure()
        held = {p: p.grad.clone() * 0.05 for g in self.param_groups for p in g["params"]}
        with torch.no_grad():
            for p, e in held.items():
                p.add_(e)
        self.zero_grad()
        with torch.enable_grad():
            closure()
        with torch.no_grad():
            for p, e in held.items():
                p.sub_(e)
        self.base.step()


def test_wrappers_that_rebuild_from_groups():
    model = torch.nn.Linear(3, 1)
    optimizer = Sam([{"params": model.parameters(), "name": "head", "lr_scale": 0.5}], AlphaGrad, lr=0.1, momentum=0.9)

    def closure():
        loss = model(torch.ones(2, 3)).square().sum()
        loss.backward()
        return loss

    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        optimizer.step(closure)
        losses.append(model(torch.ones(2, 3)).square().sum().item())
    assert min(losses) < losses[0]


def test_an_optimizer_rebuilt_after_one_cycle():
    model = torch.nn.Linear(3, 1)
    first = AlphaGrad(model.parameters(), lr=0.1, momentum=0.9)
    lr_scheduler.OneCycleLR(first, 0.2, total_steps=6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = AlphaGrad(first.param_groups)
    assert again.param_groups[0]["momentum"] == first.param_groups[0]["momentum"]
    assert {"max_lr", "base_momentum"} <= set(again.param_groups[0])


def test_gradients_that_come_and_go():
    """Another set of tensors has gradients in every step."""
    initial, grads = make_values()
    for rule in (Rule(), rule_of("global", "sqrt_total", "hybrid")):
        ends = []
        for how in ({"fused": False}, {}):
            params = {n: torch.nn.Parameter(torch.tensor(v, dtype=torch.float32)) for n, v in initial.items()}
            optimizer = AlphaGrad(in_groups(params), lr=0.1, rule=rule, momentum=0.9, **how)
            for step in range(12):
                for i, (n, p) in enumerate(params.items()):
                    p.grad = torch.tensor(grads[step % 4][n], dtype=torch.float32) if (step >> i) & 1 else None
                optimizer.step()
            ends.append(params)
        for n in initial:
            torch.testing.assert_close(*(end[n] for end in ends), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fused", [None, False, True])
def test_only_a_fused_step_takes_the_scaler_over(fused):
    """Lightning forbids clipping to optimizers that say they unscale."""
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = AlphaGrad([p], fused=fused)
    assert optimizer._step_supports_amp_scaling == bool(fused)
    assert copy.deepcopy(optimizer)._step_supports_amp_scaling == bool(fused)


@pytest.mark.parametrize("momentum", MOMENTA.values(), ids=MOMENTA)
def test_beyond_the_recompile_limit_the_step_goes_on(momentum, monkeypatch):
    def compiler(f, **kwargs):
        def compiled(*args):
            raise torch._dynamo.exc.FailOnRecompileLimitHit("limit")

        return compiled

    monkeypatch.setattr(torch, "compile", compiler)
    initial, grads = make_values()
    _, eager = train(Rule(Global()), initial, grads, fused=False, **momentum)
    with pytest.warns(UserWarning, match="recompile_limit.*eagerly") as seen:
        _, limited = train(Rule(Global()), initial, grads, fused=False, compile=True, **momentum)
    assert len(seen) == 1
    assert_same(eager, limited)
