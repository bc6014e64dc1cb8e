"""From parameter groups to batches: which tensors take this step, with which state.

What depends on shapes and settings alone is made once and kept, as a plan: a step of a small network would otherwise
spend its time here.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import is_
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from alphagrad.batch import Batch, column
from alphagrad.extent import Extent, extent_of, is_sharded, refuse_flat, shard_of
from alphagrad.kernels import kernel_for
from alphagrad.normalization import PerTensor
from alphagrad.rounding import HALVES
from alphagrad.values import LARGEST, TensorInfo, Value

STRUCTURE = ("rule", "batch_dims", "nonfinite", "foreach", "fused", "compile", "rounding", "momentum_dtype")
"""Settings that decide how tensors are grouped and executed; the others are read anew in every step."""


State = dict[Tensor, dict[str, Any]]
"""What a torch optimizer keeps of each parameter, by name."""


@dataclass
class Plan:
    """What is known of one parameter group while the same of its tensors have gradients."""

    key: tuple[Any, ...]
    params: list[Tensor]
    kinds: list[tuple[torch.dtype, torch.device, torch.Size]]
    """What of a parameter could change under the same object."""
    batches: list[Batch] = field(default_factory=list)
    members: list[list[int]] = field(default_factory=list)
    """Of each batch, which of ``params`` it holds."""

    def holds(self, key: tuple[Any, ...], params: Sequence[Tensor]) -> bool:
        """Whether it was made for this key and these very tensors, of the types and sizes they have now."""
        return (
            key == self.key
            and len(params) == len(self.params)
            and all(map(is_, params, self.params))
            and self.kinds == [(p.dtype, p.device, p.shape) for p in params]
        )


class Gatherer:
    """Makes the batches of an optimizer's steps."""

    def __init__(self) -> None:
        self._plans: dict[int, Plan] = {}

    def batches(
        self, groups: Sequence[dict[str, Any]], names: Callable[[int], Sequence[str]], state: State
    ) -> list[tuple[Batch, dict[str, Any]]]:
        """The tensors that have a gradient, with their state, and the group each batch comes from.

        They are the gatherer's own and hold until the next call. ``names`` gives a group's by its index.

        Raises:
            RuntimeError: a gradient is sparse; ``fused=True`` and no kernel covers a tensor.
        """
        found = []
        counts = tuple(len(group["params"]) for group in groups)
        for index, group in enumerate(groups):
            all_params = group["params"]
            params = [p for p in all_params if p.grad is not None]
            if not params:
                continue
            key = (*(group[setting] for setting in STRUCTURE), *counts)
            alpha = group["rule"].alpha
            if alpha is not None and alpha.spans_tensors:
                key += (size_of(groups),)
            plan = self._plans.get(index)
            compiling = torch.compiler.is_compiling()
            if plan is None or compiling or not plan.holds(key, params):
                named = dict(zip(all_params, names(index), strict=True))
                plan = make_plan(key, params, named, group, index, size_of(groups))
                if not compiling:
                    self._plans[index] = plan
            for prototype, members in zip(plan.batches, plan.members, strict=True):
                found.append((fill(prototype, [params[i] for i in members], group, state), group))
        return found

    def forget(self) -> None:
        """Makes everything anew in the next step."""
        self._plans.clear()

    def release(self) -> None:
        """Lets go of the tensors of the step that was made: gradients must not outlive ``zero_grad``."""
        for plan in self._plans.values():
            for b in plan.batches:
                b.params, b.grads, b.buffers, b.compensations, b.norms = [], [], [], [], None


def make_plan(
    key: tuple[Any, ...],
    params: list[Tensor],
    names: Mapping[Tensor, str],
    group: dict[str, Any],
    index: int,
    total: int,
) -> Plan:
    """Groups tensors by device, dtype and extent."""
    plan = Plan(key, params, [(p.dtype, p.device, p.shape) for p in params])
    kinds: dict[tuple[torch.device, torch.dtype, Extent], list[int]] = {}
    for i, p in enumerate(params):
        refuse_flat(p, names[p])
        kinds.setdefault((p.device, p.dtype, extent_of(p, group["batch_dims"])), []).append(i)
    for (device, dtype, extent), members in kinds.items():
        infos = [TensorInfo(names[params[i]], run_shape(params[i], group), index, total) for i in members]
        plan.batches.append(new_batch(group, device, dtype, extent, infos, params[members[0]]))
        plan.members.append(members)
    return plan


def new_batch(
    group: dict[str, Any],
    device: torch.device,
    dtype: torch.dtype,
    extent: Extent,
    infos: list[TensorInfo],
    like: Tensor,
) -> Batch:
    """A batch without tensors."""
    rule = group["rule"]
    eager = group["fused"] is False or (group["fused"] is None and group["foreach"] is not None)
    kernel = None
    if not eager and not torch.compiler.is_compiling():
        kernel = kernel_for(device, dtype, rule, group["rounding"], group["fused"])
    local = shard_of(like).detach()
    runs = [1] * extent.batch_dims
    batch = Batch(
        infos=infos,
        rule=rule,
        extent=extent,
        skip=group["nonfinite"] != "propagate",
        foreach=group["foreach"] is not False,
        kernel=kernel,
        rounding=group["rounding"],
        simple=type(rule.normalization) is PerTensor and not extent.groups and not rule.changes,
        sizes=column([float(max(info.d, 1)) for info in infos], local).view(-1, *runs),
    )
    shape = like.shape[: extent.batch_dims]
    if rule.alpha is not None:
        # made here, not in a compiled step: a policy may call what dynamo cannot trace
        initial = column([within_range(rule.alpha.initial(info), info) for info in infos], local)
        batch.initial_alphas = initial.view(len(infos), *(initial.shape[1:] or runs)).expand(-1, *shape).contiguous()
    if rule.transform.fixed is not None:
        number = column([rule.transform.fixed] * len(infos), local)
        batch.fixed_number = number.view(len(infos), *(number.shape[1:] or runs)).expand(-1, *shape).contiguous()
    return batch


def fill(batch: Batch, params: list[Tensor], group: dict[str, Any], state: State) -> Batch:
    """Puts tensors, their gradients, state and settings as they are now into a batch.

    State that the settings use and a tensor has not yet is made. Returns the batch, or a copy of it without a kernel
    where the kernel refuses these very tensors.

    Raises:
        RuntimeError: a gradient is sparse; ``fused=True`` and the kernel refuses.
    """
    b, grads = batch, [p.grad for p in params if p.grad is not None]
    if {g.layout for g in grads} != {torch.strided}:
        name = next(info.name for info, g in zip(b.infos, grads, strict=True) if g.layout is not torch.strided)
        raise RuntimeError(f"AlphaGrad does not support sparse gradients ({name})")
    own = [state[p] for p in params]
    runs = params[0].shape[: b.extent.batch_dims]
    for setting in ("lr", "momentum", "dampening", "weight_decay", "eps", "maximize", "nesterov"):
        setattr(b, setting, group[setting])
    b.decays, b.dampens = bool(group["weight_decay"]), bool(group["dampening"])

    def zeros(i: int, dtype: torch.dtype) -> Tensor:
        """A number for each run, of tensor i."""
        return torch.zeros(runs, dtype=dtype, device=params[i].device)

    b.buffers, b.begun, b.steps, b.alphas, b.saturations, b.compensations = [], [], [], [], [], []
    b.skipped = kept(own, "skipped", lambda i: zeros(i, torch.int32)) if b.skip else []
    if group["momentum"]:
        # in this order: a buffer that an older version made comes without "begun"
        b.begun = kept(own, "begun", lambda i: has_begun(own[i].get("momentum_buffer"), params[i], b.extent.batch_dims))
        dtype = group["momentum_dtype"]
        b.buffers = kept(own, "momentum_buffer", lambda i: torch.zeros_like(params[i], dtype=dtype))
    if group["rounding"] == "kahan" and params[0].dtype in HALVES:
        b.compensations = kept(own, "compensation", lambda i: torch.zeros_like(params[i]))
    if b.rule.counts_steps:
        b.steps = kept(own, "step", lambda i: zeros(i, torch.float32))
    if b.rule.alpha is not None and b.rule.alpha.controlled:
        initial = b.initial_alphas
        assert initial is not None
        b.alphas = kept(own, "alpha", lambda i: initial[i].float())
        b.saturations = kept(own, "saturation", lambda i: zeros(i, torch.float32))
    b.params, b.grads = params, grads
    if is_sharded(params[0]):
        b.grads = [shard_of(g, like=p) for g, p in zip(b.grads, params, strict=True)]
        b.params, b.buffers, b.compensations = (list(map(shard_of, x)) for x in (params, b.buffers, b.compensations))
    why = None if b.kernel is None else b.kernel.refusal(b)
    if why is not None:
        if group["fused"]:
            raise RuntimeError(f"fused=True: {why} ({b.infos[0].name} or another of its group); leave fused out")
        return replace(b, kernel=None)
    return b


def kept(states: Sequence[dict[str, Any]], key: str, make: Callable[[int], Tensor]) -> list[Tensor]:
    """What each tensor's state has under a key; where it has nothing yet, ``make`` of the tensor's place."""
    try:
        return [s[key] for s in states]
    except KeyError:
        for i, s in enumerate(states):
            if key not in s:
                s[key] = make(i)
        return [s[key] for s in states]


def has_begun(buffer: Tensor | None, p: Tensor, batch_dims: int) -> Tensor:
    """Whether a momentum buffer holds an update, for each run: one of zeros alone may not."""
    if buffer is None or is_sharded(buffer):  # a shard of zeros says nothing of the others
        return torch.full(p.shape[:batch_dims], buffer is not None, dtype=torch.bool, device=p.device)
    return (buffer != 0).unsqueeze(-1).flatten(batch_dims).any(-1)


def within_range(alpha: Value, info: TensorInfo) -> Value:
    """α no larger than float32's largest number: beyond, α·0 would be inf·0."""
    steepest = max(alpha) if isinstance(alpha, tuple) else alpha
    if steepest <= LARGEST:
        return alpha
    warnings.warn(f"alpha: {steepest:g} for {info.name} is beyond float32; {LARGEST:g} is used", stacklevel=2)
    return tuple(min(a, LARGEST) for a in alpha) if isinstance(alpha, tuple) else LARGEST


def size_of(groups: Sequence[dict[str, Any]]) -> int:
    """d_network: the parameters of all groups, one run; of lazy ones none yet."""
    return sum(math.prod(run_shape(p, g)) for g in groups for p in g["params"] if not is_lazy(p))


def run_dims(p: Tensor, group: dict[str, Any]) -> tuple[int, ...]:
    """The dimensions of ``p`` that count runs."""
    return tuple(p.shape[: group["batch_dims"]])


def run_shape(p: Tensor, group: dict[str, Any]) -> tuple[int, ...]:
    """The shape of ``p`` in one run of the stack."""
    return tuple(p.shape[group["batch_dims"] :])
