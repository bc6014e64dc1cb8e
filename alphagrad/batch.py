"""What one step is given: the tensors of a parameter group that have a gradient, their state and their settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from alphagrad.extent import Extent
from alphagrad.rule import Rule
from alphagrad.values import TensorInfo, Value, tensor_of


class Kernel(Protocol):
    """A faster execution of a batch's step; ``step.py`` says what it must compute."""

    def refusal(self, b: Batch) -> str | None:
        """Why it cannot work on these very tensors; None if it can. Called before the rest, in every step."""

    def step(self, b: Batch, found_inf: Tensor | None) -> bool:
        """All of the step of a batch that is :attr:`Batch.simple`; False if it is to be done in parts."""

    def norms(self, b: Batch) -> Tensor:
        """‖g‖₂² of every tensor and run, on this process: [tensors, *batch], float64."""

    def beyond(self, b: Batch, by: Tensor, alpha: Tensor, tau: float) -> Tensor:
        """How many elements have |α·ĝᵢ| > τ, on this process: [tensors, *batch], float64."""

    def update(self, b: Batch, by: Tensor, alpha: Tensor | None, number: Tensor | None, allowed: Tensor | None) -> None:
        """As :func:`alphagrad.step.move`."""


@dataclass
class Batch:
    """Tensors of one parameter group, device, dtype and extent, as parallel lists, with the settings they share.

    Parameters are [*batch, ...]; every per-run quantity (``steps``, ``alphas``, ...) is [*batch]. Of sharded
    parameters these are the shards on this process.
    A list of state that the settings do not use is empty.
    """

    infos: list[TensorInfo]
    rule: Rule
    extent: Extent
    skip: bool
    foreach: bool
    kernel: Kernel | None
    rounding: str
    sizes: Tensor
    """Elements of a tensor in one run, on all processes, at least 1: [tensors, 1...], float64."""
    maximize: bool = False
    nesterov: bool = False
    decays: bool = False
    dampens: bool = False
    lr: float | Tensor = 0.0
    momentum: float | Tensor = 0.0
    dampening: float | Tensor = 0.0
    weight_decay: float | Tensor = 0.0
    eps: float | Tensor = 0.0
    params: list[Tensor] = field(default_factory=list)
    grads: list[Tensor] = field(default_factory=list)
    buffers: list[Tensor] = field(default_factory=list)
    begun: list[Tensor] = field(default_factory=list)
    """Whether a momentum buffer holds an update: the first one is not damped."""
    compensations: list[Tensor] = field(default_factory=list)
    steps: list[Tensor] = field(default_factory=list)
    alphas: list[Tensor] = field(default_factory=list)
    saturations: list[Tensor] = field(default_factory=list)
    skipped: list[Tensor] = field(default_factory=list)
    simple: bool = False
    """Whether the tensors' own norms divide them, on this process, by an α and a number that never change."""
    table: Any = None
    """What the kernel keeps of the tensors' shapes."""
    initial_alphas: Tensor | None = None
    """α of a rule that has one, for a tensor's first update: [tensors, *batch], float64."""
    fixed_number: Tensor | None = None
    """The transform's β, κ or λ where it is fixed: [tensors, *batch], float64."""
    norms: Tensor | None = None
    """‖g‖₂ of every tensor, measured in this step: [tensors, *batch], float64."""

    def steepness(self) -> Tensor | None:
        """α of each tensor for the update that comes next: [tensors, *batch], float64."""
        policy = self.rule.alpha
        if policy is None:
            return None
        if policy.controlled:
            return self.each(torch.stack(self.alphas))
        if policy.counts_steps:
            return self.each(policy.at(torch.stack(self.steps), self.infos))
        return self.initial_alphas

    def number(self, saturations: Mapping[float, Tensor]) -> Tensor | None:
        """The transform's β, κ or λ for each tensor: [tensors, *batch], float64; None where it has none."""
        transform = self.rule.transform
        if transform.counts_steps:
            return self.each(transform.at(torch.stack(self.steps)))
        if transform.tau is not None:
            return self.each(transform.from_saturation(saturations[transform.tau]))
        return self.fixed_number

    def each(self, numbers: Tensor) -> Tensor:
        """Numbers from a policy or a state as kernels read them, by address: [tensors, *batch], float64."""
        runs = self.params[0].shape[: self.extent.batch_dims]
        return numbers.double().expand(len(self.params), *runs)


def column(values: Sequence[Value], like: Tensor) -> Tensor:
    """One number for each tensor, or for each tensor and run, on the device of ``like``: [tensors, *batch], float64."""
    runs = like.new_empty((), dtype=torch.float64)
    return torch.stack([tensor_of(value, runs) for value in values])
