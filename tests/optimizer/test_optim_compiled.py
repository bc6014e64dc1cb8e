"""``compile=True`` is the eager step, compiled once; so is a user's own ``torch.compile(optimizer.step)``."""

import copy
import itertools

import pytest
import torch
from cases import ALPHAS, DECAYS, MOMENTA, NORMALIZATIONS, SLOTS, TRANSFORMS, WITHOUT_ALPHA, error, rule_of
from torch.optim import lr_scheduler

from alphagrad import AlphaGrad, Rule
from alphagrad.alpha import Constant, SqrtDim
from alphagrad.transform import Hybrid, ScaledTanh, SinTanh

SHAPES = {"weight": (3, 4), "bias": (4,)}
RUNS = 2


@pytest.fixture(autouse=True)
def no_recompilation():
    """Nothing in this file may compile a second time."""
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield
    torch._dynamo.reset()


def groups_of(cases, dtype=torch.float32, runs=()):
    """A group with a module's two parameters for each case of ``(rule, settings)``, drawn from one seed; no kernels."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda shape: torch.randn(*runs, *shape, generator=generator, dtype=torch.float64).to(dtype)  # noqa: E731
    return [
        {
            "params": [(f"m{i}.{n}", torch.nn.Parameter(draw(shape))) for n, shape in SHAPES.items()],
            "fused": False,
            "rule": rule,
            **own,
        }
        for i, (rule, own) in enumerate(cases)
    ]


def go(optimizer, steps=3, seed=1, spoiled=None, step=None):
    """Steps with drawn gradients; ``spoiled`` puts a NaN into the first tensor at that step."""
    generator = torch.Generator().manual_seed(seed)
    for i in range(steps):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
        if i == spoiled:
            optimizer.param_groups[0]["params"][0].grad.view(-1)[0] = float("nan")
        (step or optimizer.step)()
    return optimizer


def assert_alike(one, other, tolerance=1e-6):
    """Parameters and state, relative to each tensor's largest element."""
    for g, h in zip(one.param_groups, other.param_groups, strict=True):
        for p, q in zip(g["params"], h["params"], strict=True):
            assert error(p, q.detach().double().numpy()) < tolerance
            assert one.state[p].keys() == other.state[q].keys()
            for key, value in one.state[p].items():
                assert error(value, other.state[q][key].double().numpy()) < tolerance


def both(cases, tolerance=1e-6, dtype=torch.float32, runs=(), spoiled=None, **kwargs):
    """The same training eager and compiled."""
    ends = [
        go(AlphaGrad(groups_of(cases, dtype, runs), compile=compile, **kwargs), spoiled=spoiled)
        for compile in (False, True)
    ]
    assert_alike(*ends, tolerance)


def varied(slots):
    """Cases of the optimizer with the other settings dealt out in turn."""
    others = [{**m, **d} for d in DECAYS.values() for m in MOMENTA.values()]
    return [
        (rule_of(*s), {**others[i % len(others)], "foreach": i % 2 == 0, "maximize": i % 3 == 0})
        for i, s in enumerate(slots)
    ]


# each value of each slot at least once
NAMES = itertools.cycle(NORMALIZATIONS)
BENDS = itertools.cycle(t for t in TRANSFORMS if t not in WITHOUT_ALPHA)
COVER = [*((next(NAMES), a, next(BENDS)) for a in ALPHAS), *((next(NAMES), None, t) for t in WITHOUT_ALPHA)]


def test_the_cover_covers():
    assert {n for n, _, _ in COVER} == set(NORMALIZATIONS)
    assert {a for _, a, _ in COVER} == {None, *ALPHAS}
    assert {t for _, _, t in COVER} == set(TRANSFORMS)


@pytest.mark.long
def test_compiled_is_eager():
    """Every value of every slot and setting, each in a group of its own; one of them with a bad gradient."""
    both(varied(COVER), lr=0.1, spoiled=1)


@pytest.mark.slow
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_compiled_is_eager_for_every_rule(normalization):
    slots = [s for s in SLOTS if s[0] == normalization]
    for start in range(0, len(slots), 14):
        torch._dynamo.reset()
        both(varied(slots[start : start + 14]), lr=0.1)


@pytest.mark.long
def test_compiled_stacks_with_numbers_for_each_run():
    cases = [
        (Rule(alpha=Constant((2.0, 30.0)), transform=ScaledTanh((0.5, 2.0))), {"momentum": 0.9}),
        (Rule(alpha=SqrtDim((1.0, 3.0)), transform=SinTanh((1.0, 2.0))), {}),
        (Rule(alpha=Constant(2.0), transform=Hybrid((0.0, 0.7))), {"weight_decay": 0.1}),
        (rule_of("global", "saturation", "hybrid_saturation"), {"momentum": 0.5, "dampening": 0.2}),
    ]
    both(cases, runs=(RUNS,), batch_dims=1, lr=torch.tensor([0.1, 0.02]), spoiled=1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2.0**-7), (torch.float64, 1e-12)], ids=str)
@pytest.mark.long
def test_compiled_in_other_dtypes(dtype, tolerance):
    both([(rule_of("tensor", "constant", "tanh"), {"momentum": 0.9})], tolerance, dtype, lr=0.1)


def test_a_changing_rate_compiles_nothing_new():
    """By hand and by a scheduler, numbers and tensors, to where eager goes."""
    for lr in (0.1, torch.tensor(0.1)):
        torch._dynamo.reset()
        ends = []
        for compile in (False, True):
            rate = lr.clone() if isinstance(lr, torch.Tensor) else lr
            optimizer = AlphaGrad(groups_of([(Rule(), {"momentum": 0.9})]), lr=rate, compile=compile)
            scheduler = lr_scheduler.CosineAnnealingLR(optimizer, 12)
            for seed in range(12):
                go(optimizer, steps=1, seed=seed)
                scheduler.step()
            optimizer.param_groups[0]["lr"] = 0.05
            ends.append(go(optimizer))
        assert_alike(*ends)


def test_cycled_momentum_compiles_nothing_new():
    """OneCycleLR moves the momentum with the rate."""
    ends = []
    for compile in (False, True):
        optimizer = AlphaGrad(groups_of([(Rule(), {})]), momentum=0.9, compile=compile)
        scheduler = lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=14)
        for seed in range(12):
            go(optimizer, steps=1, seed=seed)
            scheduler.step()
        ends.append(optimizer)
    assert_alike(*ends)


def test_optimizers_compile_each_their_own():
    """More optimizers than dynamo's limit of recompilations for one function."""
    with torch._dynamo.config.patch(recompile_limit=1):
        for size in range(1, 4):
            optimizer = AlphaGrad([torch.nn.Parameter(torch.ones(size))], lr=0.1, compile=True, fused=False)
            go(optimizer, steps=2)
            assert (optimizer.param_groups[0]["params"][0] != 1).any()


@pytest.mark.parametrize("slots", [("tensor", "constant", "tanh"), ("global", "saturation", "hybrid_ramp")])
@pytest.mark.long
def test_a_users_own_compile(slots):
    """The first step makes the state and may compile once more; after that, nothing."""
    settings = {"momentum": 0.9, "lr": torch.tensor(0.1)}
    eager = go(AlphaGrad(groups_of([(rule_of(*slots), {})]), **settings), steps=8)
    compiled = AlphaGrad(groups_of([(rule_of(*slots), {})]), **settings)
    step = torch.compile(compiled.step)
    with torch._dynamo.config.patch(error_on_recompile=False):
        go(compiled, steps=8, step=step)
        seen = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert_alike(eager, compiled)
    go(eager)
    go(compiled, step=step)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == seen
    assert seen > 0
    assert_alike(eager, compiled)


@pytest.mark.long
def test_copies_of_a_compiled_optimizer_go_on():
    rule = rule_of("tensor", "saturation", "hybrid_ramp")
    optimizer = go(AlphaGrad(groups_of([(rule, {})]), lr=0.1, momentum=0.9, compile=True))
    twin = copy.deepcopy(optimizer)
    fresh = AlphaGrad(groups_of([(rule, {})]), lr=0.1, momentum=0.9, compile=True)
    for p, q in zip(fresh.param_groups[0]["params"], optimizer.param_groups[0]["params"], strict=True):
        p.data.copy_(q)
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for other in (optimizer, twin, fresh):
        go(other, seed=5)
    assert_alike(optimizer, twin, 1e-12)
    assert_alike(optimizer, fresh, 1e-12)


def test_a_state_saved_eager_goes_on_compiled():
    """The loaded ``compile=False`` of the groups must not burn the rate into the compiled code."""
    eager = go(AlphaGrad(groups_of([(Rule(), {})]), lr=0.1, momentum=0.9))
    compiled = AlphaGrad(groups_of([(Rule(), {})]), momentum=0.9, compile=True)
    for p, q in zip(compiled.param_groups[0]["params"], eager.param_groups[0]["params"], strict=True):
        p.data.copy_(q)
    compiled.load_state_dict(copy.deepcopy(eager.state_dict()))
    for optimizer in (eager, compiled):
        for lr in (0.3, 0.2, 0.1):
            optimizer.param_groups[0]["lr"] = lr
            go(optimizer, steps=1)
    assert_alike(eager, compiled)


def test_grad_scaler_drops_a_compiled_step():
    ends = []
    for compile in (False, True):
        optimizer = AlphaGrad(groups_of([(Rule(), {})]), lr=0.1, eps=1.0, momentum=0.9, compile=compile)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        for spoiled in (None, 0, None):
            go(optimizer, steps=1, spoiled=spoiled, step=lambda o=optimizer, s=scaler: step_scaled(o, s))
        assert scaler.get_scale() == 4.0
        ends.append(optimizer)
    assert_alike(*ends)


def step_scaled(optimizer, scaler):
    scaler.scale(torch.tensor(1.0))
    scaler.step(optimizer)
    scaler.update()
