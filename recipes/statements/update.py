"""What of a run's optimizer the statements depend on, read from the optimizer that the run trains with."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alphagrad.alpha import Alpha, Constant, SqrtDim
from alphagrad.harness.driver import OptimizerSpec
from alphagrad.normalization import Blend, Global, Normalization, PerGroup, PerModule, PerTensor, Unnormalized
from alphagrad.optimizer import AlphaGrad
from alphagrad.rule import Rule
from alphagrad.transform import Hybrid, Identity, ScaledTanh, Sign, SinTanh, Tanh
from alphagrad.values import TensorInfo

from .bounds import Bend

UNITS = (PerTensor, PerModule, PerGroup, Global)
"""Normalisations under which no component of ĝ exceeds 1."""


@dataclass(frozen=True)
class Update:
    """A run's AlphaGrad: its rule, ε and momentum, and what the rule knows of each tensor."""

    rule: Rule
    eps: float
    momentum: float
    infos: tuple[TensorInfo, ...]
    against: str
    """Why no statement covers it; empty where one does."""

    @property
    def sizes(self) -> list[int]:
        """Elements of each tensor."""
        return [info.d for info in self.infos]

    def divisors(self, norms: np.ndarray) -> np.ndarray:
        """What divides each tensor, from the norms of single tensors [tensors]."""
        shared = _norms(self.rule.normalization, norms, self.infos)
        return np.where(shared == 0, 1.0, shared + self.eps)

    def alphas(self, step: int, kept: Mapping[str, Mapping[str, Any]]) -> list[float]:
        """α of each tensor for update ``step`` (from 0); one that is controlled comes from the optimizer's state."""
        policy = self.rule.alpha
        if policy is None:
            return [math.inf if isinstance(self.rule.transform, Sign) else 1.0] * len(self.infos)
        if policy.controlled and all("alpha" in kept.get(info.name, {}) for info in self.infos):
            return [float(kept[info.name]["alpha"]) for info in self.infos]
        if policy.counts_steps and not policy.controlled:
            steps = torch.full((len(self.infos),), float(step), dtype=torch.float64)
            return [float(a) for a in policy.at(steps, self.infos).expand(len(self.infos))]
        return [_alpha(policy, info) for info in self.infos]

    @property
    def alpha_of_all(self) -> float | None:
        """α that the rule gives one tensor of all parameters: the paper knows no other."""
        total = sum(self.sizes)
        policy = self.rule.alpha
        return None if policy is None else _alpha(policy, TensorInfo("all", (total,), 0, total))

    def bends(self, step: int, alphas: Sequence[float], units: Sequence[np.ndarray]) -> list[Bend]:
        """φ of each tensor; ``units`` are its ĝ, which a λ may follow."""
        transform = self.rule.transform
        numbers = [0.0] * len(self.infos)
        if transform.counts_steps:
            numbers = [float(transform.at(torch.tensor([float(step)], dtype=torch.float64)))] * len(self.infos)
        elif transform.tau is not None:
            beyond = [np.abs(a * u) > transform.tau for a, u in zip(alphas, units, strict=True)]
            numbers = [1 - float(b.mean()) for b in beyond]
        elif transform.fixed is not None:
            numbers = [float(transform.fixed)] * len(self.infos)  # type: ignore[arg-type]
        return [Bend(transform, alpha, number) for alpha, number in zip(alphas, numbers, strict=True)]

    def square(self, bends: Sequence[Bend]) -> float:
        """B², which ‖g'‖² does not exceed, whatever the gradient."""
        if isinstance(self.rule.normalization, UNITS):
            return sum(d * bend(1 / math.sqrt(d)) ** 2 for d, bend in zip(self.sizes, bends, strict=True))
        return sum(d * bend(math.inf) ** 2 for d, bend in zip(self.sizes, bends, strict=True))


def _norms(rule: Normalization, norms: np.ndarray, infos: Sequence[TensorInfo]) -> np.ndarray:
    """The norm that divides each tensor, written out here: the rule's own code is what the audit checks."""

    def over(units: Sequence[Hashable]) -> np.ndarray:
        return np.array([math.hypot(*(n for n, v in zip(norms, units, strict=True) if v == u)) for u in units])

    group = over([info.group for info in infos])
    match rule:
        case PerModule():
            return over([info.name.rpartition(".")[0] for info in infos])
        case PerGroup():
            return group
        case Global():
            return over([0] * len(infos))
        case Blend():
            sizes = np.array([info.d for info in infos], dtype=float)
            whole = np.array([sum(i.d for i in infos if i.group == info.group) for info in infos])
            return norms**rule.rho * (group * np.sqrt(sizes / whole)) ** (1 - rule.rho)
    return norms


def _alpha(policy: Alpha, info: TensorInfo) -> float:
    """α of a tensor at first; the paper's two rules are written out here."""
    match policy:
        case Constant():
            return float(policy.value)  # type: ignore[arg-type]
        case SqrtDim():
            return float(policy.k) * math.sqrt(info.d)  # type: ignore[arg-type]
    return float(policy.initial(info))  # type: ignore[arg-type]


def update_of(spec: OptimizerSpec, params: Mapping[str, Tensor]) -> Update | None:
    """What the statements ask of a spec's optimizer on one run's tensors; None for an optimizer of another kind."""
    probe = spec.build([(name, p.detach().clone()) for name, p in params.items()])
    if not isinstance(probe, AlphaGrad):
        return None
    (group,) = probe.param_groups
    total = sum(p.numel() for p in params.values())
    infos = tuple(TensorInfo(name, tuple(p.shape), 0, total) for name, p in params.items())
    return Update(group["rule"], float(group["eps"]), float(group["momentum"]), infos, _against(spec, group))


def _against(spec: OptimizerSpec, group: Mapping[str, Any]) -> str:
    """Why no statement covers the update."""
    rule = group["rule"]
    transform, normalization = rule.transform, rule.normalization
    others = {name: group[name] for name in ("weight_decay", "nesterov", "maximize") if group[name]}
    if group["momentum"] and group["dampening"]:
        others["dampening"] = group["dampening"]
    if spec.clip_grad_norm is not None:
        others["clip_grad_norm"] = spec.clip_grad_norm
    against = ""
    if others:
        against = ", ".join(f"optimizer.{name}={value}" for name, value in others.items())
    elif isinstance(normalization, Unnormalized):
        against = "normalization=none, nothing is normalised"
    elif type(transform) not in (Tanh, ScaledTanh, SinTanh, Hybrid, Identity, Sign):
        against = f"transform={type(transform).__name__}"
    elif isinstance(transform, SinTanh) and float(transform.kappa) > math.pi / 2:  # type: ignore[arg-type]
        against = f"transform.kappa={transform.kappa}, above π/2 the transform is not monotonic"
    elif isinstance(normalization, Blend) and isinstance(transform, (Hybrid, Identity)):
        against = "normalization=blend, under which ĝ has no bound, with a transform that has none"
    elif not isinstance(normalization, (Blend, *UNITS)):
        against = f"normalization={type(normalization).__name__}"
    return against
