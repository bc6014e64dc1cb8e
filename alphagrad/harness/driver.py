"""The one driver of an optimizer: all that a recipe does with one goes through it, whichever it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from alphagrad.fixed_point import FixedPoint
from alphagrad.harness import metrics
from alphagrad.harness.tensors import split
from alphagrad.instruments.meter import Meter
from alphagrad.instruments.noise import Noise
from alphagrad.instruments.quantities import NETWORK, SKIPPED
from alphagrad.instruments.sums import Observation
from alphagrad.optimizer import AlphaGrad
from alphagrad.rule import Rule

STACKINGS = ("batch_dims", "elementwise", "per_run")


@dataclass(frozen=True)
class OptimizerSpec:
    """How a run's optimizer is built, and how several runs share one.

    Attributes:
        name: the variant or baseline.
        build: named parameters → optimizer; with ``stacking="batch_dims"`` it also takes ``batch_dims``.
        stacking: *batch_dims*: AlphaGrad knows that the first dimension counts runs. *elementwise*: the
            update of an element depends on its own gradients alone, so a stack is one more tensor; see
            :func:`mixes_elements`. *per_run*: it mixes elements, so each run gets an optimizer of its own.
        clip_grad_norm: the largest L2 norm of a run's whole gradient, or None.
    """

    name: str
    build: Callable[..., Optimizer]
    stacking: str = "per_run"
    clip_grad_norm: float | None = None

    @property
    def decays(self) -> bool:
        """Whether the optimizer is configured to decay weights."""
        return bool(self._probe().defaults.get("weight_decay"))

    @property
    def raises(self) -> bool:
        """Whether the optimizer is configured to raise for a gradient that is not finite."""
        return self._probe().defaults.get("nonfinite") == "raise"

    def _probe(self) -> Optimizer:
        return self.build([("probe", torch.zeros(1, 1))])


class Driver:
    """An optimizer at work on named tensors: of one run, or of neighbouring runs that share it.

    Args:
        spec: the optimizer.
        params: what it updates, by name.
        compile: whether AlphaGrad's step is compiled.
        undecayed: names of tensors that weight decay, where the optimizer has it, leaves alone.
        runs: how many runs the first dimension of every tensor counts; None for tensors of one run.
        shown: the tensors by the names that signals are told under, where ``params`` holds them as one.
        network: what stands for the tensor in the names of signals that are summed up over tensors.

    Raises:
        ValueError: the optimizer makes its own parameter groups, so that ``undecayed`` cannot be one.
    """

    def __init__(
        self,
        spec: OptimizerSpec,
        params: Mapping[str, Tensor],
        compile: bool = False,
        undecayed: frozenset[str] = frozenset(),
        runs: int | None = None,
        shown: Mapping[str, Tensor] | None = None,
        network: str = NETWORK,
    ) -> None:
        self.spec, self.params, self.runs, self.network = spec, dict(params), runs, network
        self.optimizer = _built(spec, self.params, undecayed, spec.stacking == "batch_dims" and runs is not None)
        if compile and isinstance(self.optimizer, AlphaGrad):
            self.optimizer.defaults["compile"] = True
            for group in self.optimizer.param_groups:
                group["compile"] = True
        self.meter = Meter(self.optimizer, self.params if shown is None else dict(shown), 0 if runs is None else 1)

    def clip(self) -> None:
        """Scales the run's gradients in place so that their norm over all tensors is at most ``clip_grad_norm``."""
        if self.spec.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.params.values(), self.spec.clip_grad_norm)

    def step(self) -> None:
        """One update from the gradients that stand now."""
        self.optimizer.step()

    @contextmanager
    def observed(self, observe: Observation | None, noise: Noise | None = None) -> Iterator[list[dict[str, float]]]:
        """Signals of the step that is taken within: metric → value of each run, in a list that is filled at the end.

        Args:
            observe: what is measured; the list stays empty without.
            noise: has seen the backward passes of the step.
        """
        seen: list[dict[str, float]] = []
        if observe is None:
            yield seen
            return
        self.meter.before(observe)
        yield seen
        reading = self.meter.after(None if noise is None else noise.signal_and_noise())
        seen += reading.rows(self.network) or [{} for _ in range(self.runs or 1)]

    def scale_lr(self, factor: float) -> None:
        """Sets every learning rate to ``factor`` times what it was configured to be."""
        for group in self.optimizer.param_groups:
            rate = factor * group.setdefault("initial_lr", float(group["lr"]))
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    @property
    def learning_rate(self) -> float:
        """The present rate of the first parameter group."""
        return float(self.optimizer.param_groups[0]["lr"])

    def skipped(self) -> list[dict[str, float]]:
        """For each run how often each tensor's update was skipped for a non-finite gradient, where any was."""
        counts = self.optimizer.skipped() if isinstance(self.optimizer, (AlphaGrad, FixedPoint)) else {}
        found: list[dict[str, float]] = [{} for _ in range(1 if self.runs is None else self.runs)]
        rows = torch.stack(list(counts.values())).tolist() if counts else []
        for name, row in zip(counts, rows, strict=True):
            for run, count in enumerate(row if isinstance(row, list) else [row]):
                if count:
                    found[run][metrics.per_tensor(SKIPPED, name)] = float(count)
        return found

    def slots(self) -> dict[str, dict[str, Any]]:
        """What the optimizer keeps of each tensor, by name."""
        return {name: dict(self.optimizer.state[p]) for name, p in self.params.items()}

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's, with that of the instruments once they have measured."""
        kept = self.meter.state_dict()
        return {**self.optimizer.state_dict(), **({"instruments": kept} if kept else {})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes it back."""
        own = dict(state)
        self.meter.load_state_dict(own.pop("instruments", {}))
        self.optimizer.load_state_dict(own)


def _built(spec: OptimizerSpec, params: Mapping[str, Tensor], undecayed: frozenset[str], stacked: bool) -> Optimizer:
    """A spec's optimizer over named tensors, those that are not decayed in a parameter group of their own."""
    extra = {"batch_dims": 1} if stacked else {}
    optimizer = spec.build(list(params.items()), **extra)
    exempt = undecayed & set(params)
    if not exempt or not optimizer.defaults.get("weight_decay"):
        return optimizer
    if len(optimizer.param_groups) > 1:
        raise ValueError(f"recipe.decay=weights: {spec.name} makes its own parameter groups; use recipe.decay=all")
    decayed = [(name, p) for name, p in params.items() if name not in exempt]
    others = [(name, p) for name, p in params.items() if name in exempt]
    groups: list[dict[str, Any]] = [{"params": others, "weight_decay": 0.0}]
    return spec.build([{"params": decayed}, *groups] if decayed else groups, **extra)


def rule_of(spec: OptimizerSpec) -> Rule | None:
    """The rule by which an AlphaGrad of this spec moves matrices; None for another optimizer."""
    probe = spec.build([("probe.weight", nn.Parameter(torch.zeros(2, 2)))])
    return probe.param_groups[0]["rule"] if isinstance(probe, AlphaGrad) else None


PROBE = (("hidden.weight", (3, 2)), ("hidden.bias", (3,)), ("head.weight", (2, 3)))
"""The tensors of a small network, on which an optimizer is tried."""
PROBE_RATE = 0.01


@torch.no_grad()
def mixes_elements(build: Callable[..., Optimizer], device: torch.device | str = "cpu") -> bool:
    """Whether two runs that share an optimizer, as rows of one matrix, train otherwise than each with its own.

    Seen after three steps on a small network, whose gradients are 30 times larger in the second run.
    """
    size = sum(math.prod(shape) for _, shape in PROBE)
    start = torch.linspace(-1.0, 1.0, 2 * size, device=device).view(2, size)
    grads = [torch.cos(start * (step + 2)) * torch.tensor([[1.0], [30.0]], device=device) for step in range(3)]

    def train(params: dict[str, Tensor], parts: Callable[[Tensor], dict[str, Tensor]]) -> None:
        optimizer = build(list(params.items()))
        for group in optimizer.param_groups:
            group["lr"] = PROBE_RATE  # so that its steps can be told from rounding
        for grad in grads:
            for name, part in parts(grad).items():
                params[name].grad = part.clone()
            optimizer.step()

    together, alone = start.clone(), start.clone()
    with torch.random.fork_rng(devices=[]):
        train({"all": together}, lambda grad: {"all": grad})
        for run in range(2):
            train(split(alone[run], PROBE), lambda grad, run=run: split(grad[run], PROBE))  # type: ignore[misc]
    return not torch.allclose(together, alone, rtol=1e-4, atol=1e-6)
