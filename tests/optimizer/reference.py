"""AlphaGrad as the paper states it (sections 2, 5.3, 7.1, 7.3 and 7.5): NumPy, float64, one tensor at a time.

Written from the equations alone, to be compared with the optimizer. Slow and obvious on purpose.
"""

import math
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Settings:
    """What one parameter group is told; slots are ``(name, arguments)``."""

    normalization: tuple = ("tensor", {})
    alpha: tuple | None = ("constant", {"value": 100.0})
    transform: tuple = ("tanh", {})
    lr: float = 1e-3
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    eps: float = 1e-8
    maximize: bool = False


@dataclass
class Tensor:
    """A parameter and all that is remembered about it."""

    name: str
    value: np.ndarray
    group: int
    buffer: np.ndarray | None = None
    updates: int = 0
    alpha: float | None = None
    saturation: float = 0.0
    skipped: int = 0
    last_update: np.ndarray = field(default_factory=lambda: np.zeros(0))


def ramp(start, end, steps, kind, t):
    """A value that goes from start to end in ``steps`` updates."""
    x = min(t / steps, 1.0)
    if kind == "exponential":
        return start * (end / start) ** x
    if kind == "cosine":
        x = (1 - math.cos(math.pi * x)) / 2
    return start + (end - start) * x


def normal_quantile(p):
    """z with Φ(z) = p, by bisection."""
    low, high = -40.0, 40.0
    for _ in range(200):
        middle = (low + high) / 2
        if 0.5 * (1 + math.erf(middle / math.sqrt(2))) < p:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def static_alpha(policy, shape, total):
    """The rules of sections 2.1 and 5.2, which do not move."""
    name, args = policy
    d = 1
    for n in shape:
        d *= n
    if name == "constant":
        return args["value"]
    if name == "sqrt_dim":
        return args["k"] * math.sqrt(d)
    if name == "sqrt_total":
        return args["k"] * math.sqrt(args.get("total") or total)
    if name == "quantile":
        z = normal_quantile(1 - args["fraction"] / 2)
        return args["tau"] / z * math.sqrt(d)
    if name == "fan_in":
        # a weight [out, in, *kernel] reads in · kernel numbers; a bias has no inputs, its size stands in
        inputs = 1
        for n in shape[1:] if len(shape) >= 2 else shape:
            inputs *= n
        return args["k"] * math.sqrt(inputs)
    raise KeyError(name)


def saturation_of(scaled, tau):
    """S(α): the fraction of components beyond ±τ."""
    hits = 0
    for x in scaled.flat:
        if abs(x) > tau:
            hits += 1
    return hits / scaled.size


class Reference:
    """R = 1. ``tensors`` is a list of (name, initial value, group index)."""

    def __init__(self, tensors, groups, rounding=lambda x: x):
        self.groups = groups
        self.tensors = [Tensor(n, np.array(v, dtype=np.float64), g) for n, v, g in tensors]
        self.rounding = rounding

    def norm(self, tensors, grads):
        """√Σg² over several tensors, without overflow: the largest element is taken out first."""
        elements = [abs(float(x)) for t in tensors for x in grads[t.name].flat]
        if not all(math.isfinite(x) for x in elements):
            return math.nan
        largest = max(elements, default=0.0)
        if largest == 0:
            return 0.0
        return largest * math.sqrt(sum((x / largest) ** 2 for x in elements))

    def divisor(self, tensor, present, grads, settings):
        """What stands below g: the norm of its unit (section 5.3) plus ε; 1 where nothing is normalised."""
        name, args = settings.normalization
        of_group = [t for t in present if t.group == tensor.group]
        own = self.norm([tensor], grads)
        if name == "none":
            return 1.0 if math.isfinite(own) else math.nan
        if name == "tensor":
            n = own
        elif name == "module":
            module = tensor.name.rpartition(".")[0]
            n = self.norm([t for t in present if t.name.rpartition(".")[0] == module], grads)
        elif name == "group":
            n = self.norm(of_group, grads)
        elif name == "global":
            n = self.norm(present, grads)
        elif name == "blend":
            group_d = sum(t.value.size for t in of_group)
            share = self.norm(of_group, grads) * math.sqrt(tensor.value.size / group_d)
            n = own ** args["rho"] * share ** (1 - args["rho"])
        else:
            raise KeyError(name)
        return 1.0 if n == 0 else n + settings.eps

    def steepness(self, tensor, settings):
        """α for the next update of a tensor."""
        total = sum(t.value.size for t in self.tensors)
        name, args = settings.alpha
        if name == "schedule":
            return ramp(args["start"], args["end"], args["steps"], args["kind"], tensor.updates)
        if name == "saturation":
            if tensor.alpha is None:
                tensor.alpha = static_alpha(args["start"], tensor.value.shape, total)
            return tensor.alpha
        return static_alpha(settings.alpha, tensor.value.shape, total)

    def bend(self, scaled, unit, settings, t):
        """g' from α·ĝ and ĝ: the variants of sections 7.1 and 7.5."""
        name, args = settings.transform
        if name == "tanh":
            return np.tanh(scaled)
        if name == "scaled_tanh":
            return args["beta"] * np.tanh(scaled)
        if name == "sin_tanh":
            return np.sin(args["kappa"] * np.tanh(scaled))
        if name == "hybrid":
            lam = args["lam"]
            if isinstance(lam, tuple) and lam[0] == "ramp":
                lam = ramp(*lam[1:], t)
            elif isinstance(lam, tuple) and lam[0] == "saturation":
                lam = 1 - saturation_of(scaled, lam[1])
            return lam * np.tanh(scaled) + (1 - lam) * unit
        if name == "identity":
            return unit
        if name == "sign":
            return np.sign(unit)
        raise KeyError(name)

    def step(self, grads):
        """One update from ``grads``, name → array; a tensor without a gradient is left out of everything."""
        grads = {name: np.asarray(g, dtype=np.float64) for name, g in grads.items()}
        present = [t for t in self.tensors if t.name in grads]
        divisors = {t.name: self.divisor(t, present, grads, self.groups[t.group]) for t in present}
        for tensor in present:
            s, g, by = self.groups[tensor.group], grads[tensor.name], divisors[tensor.name]
            if not math.isfinite(by):
                tensor.skipped += 1
                continue
            unit = g / by
            scaled = unit if s.alpha is None else self.steepness(tensor, s) * unit
            if s.alpha is not None and s.alpha[0] == "saturation":
                self.control(tensor, scaled, s.alpha[1])
            update = self.bend(scaled, unit, s, tensor.updates)
            if s.maximize:
                update = -update
            tensor.last_update = update
            if s.momentum:
                first = tensor.buffer is None
                v = update if first else s.momentum * tensor.buffer + (1 - s.dampening) * update
                tensor.buffer = self.rounding(v)
                update = update + s.momentum * v if s.nesterov else v
            tensor.updates += 1
            tensor.value = self.rounding((1 - s.lr * s.weight_decay) * tensor.value - s.lr * update)

    def control(self, tensor, scaled, args):
        """The controller of section 7.3: α follows S into its band."""
        s = tensor.saturation = saturation_of(scaled, args["tau"])
        if (tensor.updates + 1) % args["every"]:
            return
        if s < args["low"]:
            tensor.alpha = min(tensor.alpha * args["factor"], args["max_alpha"])
        elif s > args["high"]:
            tensor.alpha = max(tensor.alpha / args["factor"], args["min_alpha"])

    def values(self):
        return {t.name: t.value for t in self.tensors}
