"""A stack of R runs that train in one process as one tensor program.

Run k of a stack is the run with its seed alone: it draws from its own generators, its parameters are
row k of tensors [R, ...], and no operation mixes rows.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from alphagrad.harness import metrics
from alphagrad.harness.tensors import StackedTensors, split
from alphagrad.observe import signals
from alphagrad.optimizer import AlphaGrad

STACKINGS = ("batch_dims", "elementwise", "per_run")


@dataclass(frozen=True)
class OptimizerSpec:
    """How a run's optimizer is built, and how several runs share one.

    Attributes:
        name: the variant or baseline.
        build: named parameters → optimizer; with ``stacking="batch_dims"`` it also takes ``batch_dims``.
        stacking: *batch_dims*: AlphaGrad knows that the first dimension counts runs. *elementwise*: the
            update of an element depends on its own gradients alone, so a stack is one more tensor.
            *per_run*: it mixes elements, so each run gets an optimizer of its own.
        clip_grad_norm: the largest L2 norm of a run's whole gradient, or None.
    """

    name: str
    build: Callable[..., Optimizer]
    stacking: str = "per_run"
    clip_grad_norm: float | None = None


@dataclass(frozen=True)
class RunSpec:
    """What distinguishes a run within its stack."""

    seed: int
    optimizer: OptimizerSpec


@dataclass(frozen=True)
class Observation:
    """Which signals the optimizers report at a step: the ``tensors`` largest, saturated beyond ``tau``."""

    tensors: int
    tau: float


class RunStack:
    """R runs: their seeds, generators, parameters and optimizers."""

    def __init__(self, runs: Sequence[RunSpec], device: torch.device | str = "cpu") -> None:
        if not runs:
            raise ValueError("runs: a stack needs at least one run")
        self.runs = list(runs)
        self.device = torch.device(device)

    def __len__(self) -> int:
        return len(self.runs)

    def generators(self, stream: str) -> list[np.random.Generator]:
        """One independent generator for each run, decided by its seed and the stream's name alone."""
        key = zlib.crc32(stream.encode())
        return [np.random.default_rng([run.seed, key]) for run in self.runs]

    def modules(self, build: Callable[[], nn.Module]) -> list[nn.Module]:
        """R modules, each built under its run's seed."""
        built: list[nn.Module] = []
        for rng in self.generators("initialization"):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(rng.integers(2**63)))
                built.append(build())
        return built

    def initialize(self, build: Callable[[], nn.Module]) -> StackedTensors:
        """Parameters [R, ...] of R modules, each built under its run's seed; they carry no graph."""
        rows = [dict(module.named_parameters()) for module in self.modules(build)]
        return StackedTensors.of({name: torch.stack([row[name] for row in rows]).to(self.device) for name in rows[0]})

    def optimizer(
        self, params: StackedTensors, compile: bool = False, undecayed: frozenset[str] = frozenset()
    ) -> StackOptimizer:
        """The runs' optimizers over ``params``, which they update in place; AlphaGrad's step compiled if asked.

        Weight decay, where an optimizer has it, leaves the tensors named in ``undecayed`` alone.
        """
        return StackOptimizer(self.runs, params, compile, undecayed)


@dataclass
class Member:
    """Neighbouring runs that share an :class:`OptimizerSpec`."""

    rows: slice
    spec: OptimizerSpec
    optimizers: list[Optimizer]
    params: list[dict[str, Tensor]]
    """For each optimizer what it updates, by name: views of the stack."""
    alone: bool
    """Whether each run has an optimizer of its own."""


class StackOptimizer:
    """One optimizer for a stack whose runs may differ in optimizer.

    An elementwise optimizer updates the whole matrix of its runs as one tensor, AlphaGrad sees the tensors
    of all its runs, any other has one instance a run; so has an elementwise one that decays some tensors alone.
    """

    def __init__(
        self,
        runs: Sequence[RunSpec],
        params: StackedTensors,
        compile: bool = False,
        undecayed: frozenset[str] = frozenset(),
    ) -> None:
        self.params = params
        self.grads = StackedTensors(torch.zeros_like(params.flat), params.layout)
        self.members: list[Member] = []
        self.frozen: set[int] = set()
        start = 0
        for spec, same in groupby((run.optimizer for run in runs), key=lambda spec: spec):
            rows = slice(start, start + len(list(same)))
            start = rows.stop
            optimizers, views = [], []
            # fused steps want whole pieces of memory: the matrix of all runs, or single tensors of single runs
            divided = spec.stacking == "elementwise" and bool(undecayed) and _decays(spec)
            alone = divided or spec.stacking == "per_run"
            both = (self._views(spec, rows, tensors, alone) for tensors in (params, self.grads))
            for view, grads in zip(*both, strict=True):
                for name, p in view.items():
                    p.grad = grads[name]
                optimizers.append(build_optimizer(spec, view, compile, undecayed, spec.stacking == "batch_dims"))
                views.append(view)
            self.members.append(Member(rows, spec, optimizers, views, alone))

    @staticmethod
    def _views(spec: OptimizerSpec, rows: slice, tensors: StackedTensors, alone: bool) -> list[dict[str, Tensor]]:
        """For each optimizer of these runs its own part of the stack; ``alone`` where each run has its own."""
        if alone:
            return [split(tensors.flat[k], tensors.layout) for k in range(rows.start, rows.stop)]
        if spec.stacking == "elementwise":
            return [{"all": tensors.flat[rows]}]
        return [split(tensors.flat[rows], tensors.layout)]

    @torch.no_grad()
    def step(self, grads: Tensor, observe: Observation | None = None) -> list[dict[str, float]]:
        """One update of every run from ``grads`` [R, D], laid out as the parameters.

        Returns:
            With ``observe``, the signals of each run; else nothing.
        """
        self.grads.flat.copy_(grads)
        observed: list[dict[str, float]] = []
        for member in self.members:
            if member.spec.clip_grad_norm is not None:
                clip_grad_norm_(self.grads.flat[member.rows], member.spec.clip_grad_norm)
            if observe is None:
                for optimizer in member.optimizers:
                    optimizer.step()
            else:
                observed += self._observed_step(member, observe)
        if self.frozen:
            self._hold_frozen()
        return observed

    def finite(self) -> list[bool]:
        """For each run whether its parameters are finite."""
        finite: list[bool] = self.params.flat.isfinite().all(dim=1).tolist()
        return finite

    def freeze(self, run: int) -> None:
        """Takes a run out of the race: its parameters are 0 from now on, so that it cannot disturb anything."""
        self.frozen.add(run)
        self._hold_frozen()

    def _hold_frozen(self) -> None:
        for run in self.frozen:
            self.params.flat[run].zero_()

    def scale_lr(self, factor: float) -> None:
        """Sets every learning rate to ``factor`` times what it was configured to be."""
        for member in self.members:
            for optimizer in member.optimizers:
                for group in optimizer.param_groups:
                    rate = factor * group.setdefault("initial_lr", float(group["lr"]))
                    if isinstance(group["lr"], Tensor):
                        group["lr"].fill_(rate)
                    else:
                        group["lr"] = rate

    def learning_rates(self) -> list[float]:
        """Each run's present learning rate, of its first parameter group."""
        rates: list[float] = []
        for member in self.members:
            own = [float(optimizer.param_groups[0]["lr"]) for optimizer in member.optimizers]
            rates += own if member.alone else own * (member.rows.stop - member.rows.start)
        return rates

    def _observed_step(self, member: Member, observe: Observation) -> list[dict[str, float]]:
        names = largest(self.params, observe.tensors)
        before = {n: self.params[n][member.rows].clone() for n in names}
        # before the step: some optimizers overwrite the gradient
        columns = {metrics.per_tensor(metrics.GRAD_NORM, n): run_norm(self.grads[n][member.rows]) for n in names}
        for optimizer in member.optimizers:
            if isinstance(optimizer, AlphaGrad):
                for name, row in signals(optimizer, observe.tau).items():
                    if name in names:
                        columns.update({metrics.per_tensor(k, name): v for k, v in row.items()})
            optimizer.step()
        for name in names:
            moved = self.params[name][member.rows] - before[name]
            columns[metrics.per_tensor(metrics.UPDATE_NORM, name)] = run_norm(moved)
        listed = {name: column.tolist() for name, column in columns.items()}
        return [{name: column[k] for name, column in listed.items()} for k in range(len(before[names[0]]))]

    def skipped(self) -> list[dict[str, float]]:
        """For each run how often updates were skipped for a non-finite gradient, of the tensors where any was."""
        found: list[dict[str, float]] = [{} for _ in self.params.flat]
        for member in self.members:
            for first, optimizer in enumerate(member.optimizers, start=member.rows.start):
                counts = optimizer.skipped() if isinstance(optimizer, AlphaGrad) else {}
                for name, row in zip(
                    counts, torch.stack(list(counts.values())).tolist() if counts else (), strict=True
                ):
                    for run, count in enumerate(row if isinstance(row, list) else [row], start=first):
                        if count:
                            found[run][metrics.per_tensor(metrics.SKIPPED, name)] = count
        return found

    def state_dict(self) -> dict[str, Any]:
        """The whole stack's state; a stack of the same runs takes it back."""
        optimizers = [optimizer.state_dict() for member in self.members for optimizer in member.optimizers]
        return {"optimizers": optimizers, "frozen": sorted(self.frozen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes :meth:`state_dict` back; the parameters are the caller's."""
        own = [optimizer for member in self.members for optimizer in member.optimizers]
        for optimizer, saved in zip(own, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.frozen = set(state["frozen"])

    def state_of(self, run: int) -> dict[str, Any]:
        """The optimizer state of one run, as that run alone would have it: parameter name → state."""
        for member in self.members:
            row = run - member.rows.start
            if not 0 <= row < member.rows.stop - member.rows.start:
                continue
            alone = member.alone
            optimizer, view = member.optimizers[row if alone else 0], member.params[row if alone else 0]
            found = {name: dict(optimizer.state[p]) for name, p in view.items()}
            if not alone:
                found = {name: {k: _of_run(v, row, len(view[name])) for k, v in s.items()} for name, s in found.items()}
            if "all" not in view:
                return found
            named = {k: split(v, self.params.layout) if _has_elements(v) else v for k, v in found["all"].items()}
            return {name: {k: v[name] if isinstance(v, dict) else v for k, v in named.items()} for name in self.params}
        raise IndexError(f"run {run} of a stack of {self.members[-1].rows.stop}")


def _has_elements(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0


def _of_run(value: Any, row: int, runs: int) -> Any:
    """The part of a shared optimizer's state that belongs to one run; what all share as it is."""
    return value[row] if _has_elements(value) and len(value) == runs else value


def _decays(spec: OptimizerSpec) -> bool:
    """Whether the optimizer is configured to decay weights."""
    return bool(spec.build([("probe", torch.zeros(1, 1))]).defaults.get("weight_decay"))


def build_optimizer(
    spec: OptimizerSpec,
    params: Mapping[str, Tensor],
    compile: bool = False,
    undecayed: frozenset[str] = frozenset(),
    stacked: bool = False,
) -> Optimizer:
    """A spec's optimizer over named tensors.

    Args:
        spec: the optimizer.
        params: what it updates.
        compile: whether AlphaGrad's step is compiled.
        undecayed: tensors that weight decay, where the optimizer has it, leaves alone: they become a
            parameter group of their own.
        stacked: whether the first dimension of every tensor counts runs.

    Raises:
        ValueError: the optimizer makes its own parameter groups, so that these cannot be.
    """
    extra = {"batch_dims": 1} if stacked else {}
    optimizer = spec.build(list(params.items()), **extra)
    exempt = undecayed & set(params)
    if exempt and optimizer.defaults.get("weight_decay"):
        if len(optimizer.param_groups) > 1:
            raise ValueError(f"recipe.decay=weights: {spec.name} makes its own parameter groups; use recipe.decay=all")
        decayed = [(name, p) for name, p in params.items() if name not in exempt]
        others = [(name, p) for name, p in params.items() if name in exempt]
        groups: list[dict[str, Any]] = [{"params": others, "weight_decay": 0.0}]
        optimizer = spec.build([{"params": decayed}, *groups] if decayed else groups, **extra)
    if compile and isinstance(optimizer, AlphaGrad):
        optimizer.defaults["compile"] = True
        for group in optimizer.param_groups:
            group["compile"] = True
    return optimizer


def largest(params: Mapping[str, Tensor], count: int) -> list[str]:
    """The names of the ``count`` largest tensors, in the network's order."""
    chosen = set(sorted(params, key=lambda n: -params[n].numel())[:count])
    return [name for name in params if name in chosen]


def run_norm(x: Tensor) -> Tensor:
    """‖x‖₂ of every row of x [R, ...]: [R]."""
    return torch.linalg.vector_norm(x.flatten(1), dim=-1)


def clip_grad_norm_(grads: Tensor, max_norm: float) -> None:
    """Scales each run's gradients [R, D] in place so that their norm is at most ``max_norm``.

    The formula is ``torch.nn.utils.clip_grad_norm_``'s, its 1e-6 included.
    """
    norms = torch.linalg.vector_norm(grads, dim=1, keepdim=True)
    grads.mul_((max_norm / (norms + 1e-6)).clamp(max=1.0))
