"""The slots' values under test, each as the optimizer spells it and as the reference does; and shared helpers."""

import inspect
import itertools

import numpy as np
import torch
from reference import Reference, Settings

from alphagrad import AlphaGrad, Rule
from alphagrad.alpha import Constant, FanIn, Quantile, Saturation, Schedule, SqrtDim, SqrtTotal
from alphagrad.normalization import Blend, Global, PerGroup, PerModule, PerTensor, Unnormalized
from alphagrad.transform import FromSaturation, Hybrid, Identity, ScaledTanh, Sign, SinTanh, Tanh
from alphagrad.values import Ramp

NORMALIZATIONS = {
    "tensor": (PerTensor(), ("tensor", {})),
    "module": (PerModule(), ("module", {})),
    "group": (PerGroup(), ("group", {})),
    "global": (Global(), ("global", {})),
    "blend": (Blend(0.3), ("blend", {"rho": 0.3})),
    "none": (Unnormalized(), ("none", {})),
}

SCHEDULES = {
    f"schedule_{kind}": (
        Schedule(2.0, 50.0, 3, kind),
        ("schedule", {"start": 2.0, "end": 50.0, "steps": 3, "kind": kind}),
    )
    for kind in ("linear", "cosine", "exponential")
}
# τ = 0.5 lets a tensor of a few elements saturate, so that α goes up, stays and goes down within a few steps
CONTROLLER = {"low": 0.3, "high": 0.5, "tau": 0.5, "factor": 1.5, "every": 2, "min_alpha": 0.2, "max_alpha": 3.0}
ALPHAS = {
    "constant": (Constant(3.0), ("constant", {"value": 3.0})),
    "sqrt_dim": (SqrtDim(1.5), ("sqrt_dim", {"k": 1.5})),
    "sqrt_total": (SqrtTotal(0.7), ("sqrt_total", {"k": 0.7})),
    "quantile": (Quantile(0.1, 2.0), ("quantile", {"fraction": 0.1, "tau": 2.0})),
    "fan_in": (FanIn(1.2), ("fan_in", {"k": 1.2})),
    **SCHEDULES,
    "saturation": (
        Saturation(SqrtDim(0.8), **CONTROLLER),
        ("saturation", {"start": ("sqrt_dim", {"k": 0.8}), **CONTROLLER}),
    ),
}

TRANSFORMS = {
    "tanh": (Tanh(), ("tanh", {})),
    "scaled_tanh": (ScaledTanh(0.6), ("scaled_tanh", {"beta": 0.6})),
    "sin_tanh": (SinTanh(2.2), ("sin_tanh", {"kappa": 2.2})),
    "hybrid": (Hybrid(0.25), ("hybrid", {"lam": 0.25})),
    "hybrid_ramp": (Hybrid(Ramp(0.1, 0.9, 3, "cosine")), ("hybrid", {"lam": ("ramp", 0.1, 0.9, 3, "cosine")})),
    "hybrid_saturation": (Hybrid(FromSaturation(0.7)), ("hybrid", {"lam": ("saturation", 0.7)})),
    "identity": (Identity(), ("identity", {})),
    "sign": (Sign(), ("sign", {})),
}
WITHOUT_ALPHA = ("identity", "sign")
WITHOUT_KERNEL = ()
"""Transforms that no kernel computes, so that the plain step runs."""

MOMENTA = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "dampening": {"momentum": 0.8, "dampening": 0.3},
    "nesterov": {"momentum": 0.7, "nesterov": True},
}
DECAYS = {"no_decay": {}, "decay": {"weight_decay": 0.5}}

SLOTS = [
    (n, a, t) for n in NORMALIZATIONS for t in TRANSFORMS for a in ([None] if t in WITHOUT_ALPHA else list(ALPHAS))
]
WITH_KERNEL = [slots for slots in SLOTS if slots[2] not in WITHOUT_KERNEL]


def shipped(base):
    """The classes of a slot that the package has, wherever they lie in it."""
    kin = {base, *(c for other in base.__subclasses__() for c in shipped(other))}
    return {c for c in kin if c.__module__.startswith("alphagrad.") and not inspect.isabstract(c)}


def covering(*settings):
    """Each of SLOTS once, with a value of each setting: of two values, in a slot or of a setting, all pairs occur.

    What two of them do together is so seen in every case, and a fault needs three at once to be missed; the whole
    product is for the slow tests. The same list each time: the first value with most new pairs.
    """
    seen, found = set(), []
    for slots in SLOTS:
        row = max((Row(slots, values) for values in itertools.product(*settings)), key=lambda r: len(r.pairs - seen))
        seen |= row.pairs
        found.append((slots, *row.values))
    return found


class Row:
    """A combination, and the pairs of values in it."""

    def __init__(self, slots, values):
        self.values = values
        self.pairs = set(itertools.combinations(enumerate((*slots, *values)), 2))


def rule_of(n, a, t):
    return Rule(NORMALIZATIONS[n][0], ALPHAS[a][0] if a else None, TRANSFORMS[t][0])


def settings_of(n, a, t, **kwargs):
    return Settings(NORMALIZATIONS[n][1], ALPHAS[a][1] if a else None, TRANSFORMS[t][1], **kwargs)


SHAPES = {"a.weight": (3, 2), "a.bias": (3,), "b.weight": (2, 3), "gain": ()}
GROUPS = {"a.weight": 0, "a.bias": 0, "b.weight": 1, "gain": 0}
STEPS = 4


def make_values(seed=0, start=0.3):
    """Initial values and a gradient for each step, exact in float32; sizes differ between tensors."""
    rng = np.random.default_rng(seed)
    draw = lambda shape, size: np.float32(rng.standard_normal(shape) * size).astype(np.float64)  # noqa: E731
    initial = {name: draw(shape, start) for name, shape in SHAPES.items()}
    grads = [
        {name: draw(shape, size) for (name, shape), size in zip(SHAPES.items(), (1, 0.3, 2, 0.1), strict=True)}
        for _ in range(STEPS)
    ]
    return initial, grads


def as_parameters(initial, dtype):
    return {name: torch.nn.Parameter(torch.tensor(v, dtype=dtype)) for name, v in initial.items()}


def in_groups(params):
    """Two named groups, ``b.weight`` alone in the second."""
    return [{"params": [(n, p) for n, p in params.items() if GROUPS[n] == g]} for g in (0, 1)]


def train(rule, initial, grads, dtype=torch.float32, group_settings=({}, {}), **kwargs):
    """Runs the optimizer; returns it and name → parameter."""
    params = as_parameters(initial, dtype)
    groups = [{**group, **own} for group, own in zip(in_groups(params), group_settings, strict=True)]
    optimizer = AlphaGrad(groups, rule=rule, **kwargs)
    for step_grads in grads:
        for name, g in step_grads.items():
            params[name].grad = torch.tensor(g, dtype=dtype)
        optimizer.step()
    return optimizer, params


def train_reference(settings, initial, grads, rounding=lambda x: x):
    """The reference's twin of :func:`train`; ``settings`` is one for both groups or a pair."""
    pair = settings if isinstance(settings, tuple) else (settings, settings)
    reference = Reference([(n, v, GROUPS[n]) for n, v in initial.items()], pair, rounding)
    for step_grads in grads:
        reference.step(step_grads)
    return reference


def error(got, expected):
    """The largest difference of a tensor, relative to the tensor's largest element."""
    got = got.detach().double().numpy() if isinstance(got, torch.Tensor) else got
    scale = np.abs(expected).max(initial=0.0)
    difference = np.abs(got - expected).max(initial=0.0)
    return difference / scale if scale else difference


def assert_same(got, expected):
    """Bitwise equality of two name → tensor mappings."""
    assert got.keys() == expected.keys()
    for name in got:
        assert torch.equal(got[name], expected[name]), name
