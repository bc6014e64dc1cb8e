"""AlphaGrad as a ``torch.optim.Optimizer``: arguments, state and parameter groups."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from alphagrad.extent import Extent, extent_of, is_sharded, shard_of
from alphagrad.rule import Rule
from alphagrad.settings import check_settings, plain_numbers
from alphagrad.step import Batch, update
from alphagrad.values import TensorInfo, tensor_of


class AlphaGrad(Optimizer):
    r"""Non-linear gradient normalisation (S. Sane, arXiv:2504.16020).

    .. math::
        \hat g = g / (\lVert g \rVert_2 + ε), \quad
        g' = \tanh(α \hat g), \quad
        v ← γ v + (1 - \text{dampening}) g', \quad
        θ ← (1 - η·\text{decay})\,θ - η v

    ``rule`` replaces the norm's unit, α and the tanh; :mod:`alphagrad.variants` has the named rules.
    Momentum has the form of ``torch.optim.SGD``, where the paper's (5-6) puts η inside v: the two are
    equal while η is constant.

    Args:
        params: parameters, named parameters or parameter groups. Every argument below except
            ``compile`` may be set for each group.
        lr: learning rate η, a number or a tensor; with ``batch_dims=1`` also one number a run, [R].
        rule: normalisation, α policy and transform.
        momentum: γ in [0, 1). Without it no tensor-sized state is kept; with it, one buffer.
        dampening: as in ``torch.optim.SGD``.
        nesterov: as in ``torch.optim.SGD``; needs momentum and no dampening.
        weight_decay: decoupled, ``θ ← (1 − η·weight_decay)·θ`` (Loshchilov & Hutter 2019).
        eps: ε of (2). The update depends on the gradient's direction alone while ‖g‖ ≫ ε; with
            ``eps=0`` that holds for every float32 gradient, and a zero gradient still gives zero.
        maximize: ascend.
        nonfinite: what a NaN or inf in a gradient does. *skip*: the tensors that share its norm (in its
            run of a stack) stay untouched, state included, and the event is counted in
            ``state[p]["skipped"]``, on the device. *raise*: :class:`FloatingPointError` naming the
            parameter, before anything changes; costs a host synchronisation a step. *propagate*: as in
            torch's own optimizers.
        batch_dims: the number of leading dimensions of every parameter that count independent runs.
            Norms reduce over the rest.
        foreach: all tensors of a group in one list operation, or one tensor at a time; ``None`` chooses
            the first on accelerators and the second, which needs less memory, on the CPU.
        compile: run the step under ``torch.compile``.
        differentiable: refused; the step works in place.

    Raises:
        ValueError: an argument is out of range, or a parameter is complex.
        RuntimeError: a gradient is sparse.
        FloatingPointError: see ``nonfinite``.

    The optimizer accepts ``grad_scale`` and ``found_inf`` from ``torch.amp.GradScaler``, so a step with
    overflowed gradients is dropped on the device. Half-precision parameters are updated in float32 and
    rounded once; their momentum buffer has their dtype.

    Parameters may be sharded (``DTensor``, as FSDP2 makes them): norms, saturation and non-finite gradients
    are those of the whole tensor, and the update is what one process would make of it. All processes step
    together, and the same parameters have gradients on each.
    """

    _step_supports_amp_scaling = True

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        rule: Rule | None = None,
        momentum: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        eps: float = 1e-8,
        maximize: bool = False,
        nonfinite: str = "skip",
        batch_dims: int = 0,
        foreach: bool | None = None,
        compile: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "rule": Rule() if rule is None else rule,
            "momentum": momentum,
            "dampening": dampening,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "eps": eps,
            "maximize": maximize,
            "nonfinite": nonfinite,
            "batch_dims": batch_dims,
            "foreach": foreach,
            "compile": compile,
            "differentiable": differentiable,
        }
        super().__init__(params, plain_numbers(defaults))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group as ``torch.optim.Optimizer`` does, after checking its settings."""
        if isinstance(param_group, dict):
            param_group = plain_numbers(param_group)
            known = {"params", "param_names", "initial_lr", *self.defaults}
            unknown = sorted(set(param_group) - known)
            if unknown:
                raise ValueError(f"{unknown[0]}: no such setting; there are {', '.join(sorted(self.defaults))}")
            check_settings({**self.defaults, **param_group})
            if param_group.get("compile", self.defaults["compile"]) != self.defaults["compile"]:
                raise ValueError(f"compile: holds for all groups, got {param_group['compile']!r} for one")
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            self._check_group(group)
        except ValueError:
            self.param_groups.pop()
            raise

    def _check_group(self, group: dict[str, Any]) -> None:
        if group["rule"].normalization.needs_names and "param_names" not in group:
            raise ValueError(
                f"params: {group['rule'].normalization!r} finds a module's tensors by name; "
                "construct the optimizer from model.named_parameters()"
            )
        for name, p in zip(self._names(-1), group["params"], strict=True):
            if p.is_complex():
                raise ValueError(f"params: {name} is complex; AlphaGrad is defined for real parameters")
            if is_sharded(p) and group["batch_dims"]:
                raise ValueError(f"batch_dims: {name} is sharded; a stack of runs stays on one process")
            if is_sharded(p) and any(placement.is_partial() for placement in p.placements):
                raise ValueError(f"params: {name} is a sum over processes (Partial), not a parameter")
            if p.dim() < group["batch_dims"]:
                raise ValueError(f"batch_dims: {name} has {p.dim()} dimensions, batch_dims={group['batch_dims']}")
        stacks = {run_dims(p, g) for g in self.param_groups for p in g["params"]}
        if len(stacks) > 1:
            raise ValueError(f"batch_dims: all parameters must count the same runs, got {sorted(stacks)}")
        counts: list[tuple[str, tuple[int, ...]]] = [
            (setting, (count,)) for setting, count in group["rule"].run_counts()
        ]
        if isinstance(group["lr"], Tensor) and group["lr"].numel() != 1:
            counts.append(("lr", tuple(group["lr"].shape)))
        for setting, shape in counts:
            if stacks - {shape}:
                raise ValueError(f"{setting}: holds {shape} numbers, one a run, but the runs are {stacks.pop()}")

    def _names(self, index: int) -> list[str]:
        """The names of a group's parameters; their numbers, as in the state_dict, where they have none."""
        group = self.param_groups[index]
        before = sum(len(g["params"]) for g in self.param_groups[:index])
        return group.get("param_names") or [f"parameter {before + i}" for i in range(len(group["params"]))]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            for setting, default in self.defaults.items():
                group.setdefault(setting, default)

    def state_dict(self) -> dict[str, Any]:
        """As in torch; the rule is written as text, so that it loads with ``weights_only=True``."""
        state = super().state_dict()
        for group in state["param_groups"]:
            group["rule"] = repr(group["rule"])
        return state

    @torch._disable_dynamo
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch, but the optimizer keeps its own rules, and stays compiled or not.

        Raises:
            ValueError: the state belongs to another rule, or a setting in it is out of range.
        """
        groups = []
        for own, saved in zip(self.param_groups, state_dict["param_groups"], strict=False):
            if saved.get("rule", repr(own["rule"])) not in (own["rule"], repr(own["rule"])):
                raise ValueError(f"rule: the state was saved under {saved['rule']}, the optimizer has {own['rule']!r}")
            merged = {**own, **saved, "rule": own["rule"], "compile": own["compile"]}
            check_settings(merged)
            groups.append({**saved, "rule": own["rule"], "compile": own["compile"]})
        surplus = state_dict["param_groups"][len(groups) :]
        super().load_state_dict({**state_dict, "param_groups": groups + surplus})
        # torch casts all state to the parameter's dtype; counts and α must not be rounded to half precision
        ids = [i for g in state_dict["param_groups"] for i in g["params"]]
        for i, p in zip(ids, [p for g in self.param_groups for p in g["params"]], strict=True):
            for key, value in state_dict["state"].get(i, {}).items():
                if key != "momentum_buffer" and key in self.state[p]:
                    self.state[p][key] = value.to(p.device)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient; returns the closure's loss, if any."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        grad_scale: Tensor | None = getattr(self, "grad_scale", None)
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        batches = self.batches()
        if not batches:
            return loss
        checked = [b for b, group in batches if group["nonfinite"] == "raise"]
        if checked and not (found_inf is not None and found_inf.item()):
            raise_nonfinite(checked)
        apply = update
        if self.defaults["compile"] and not torch.compiler.is_compiling():
            apply = self._compiled
            for b, _ in batches:
                # as numbers they would be burnt into the compiled code, and a scheduler would recompile it
                number = b.params[0].new_empty((), dtype=torch.float64)
                b.lr, b.momentum = tensor_of(b.lr, number), tensor_of(b.momentum, number)
        apply([b for b, _ in batches], grad_scale, found_inf)
        return loss

    def batches(self) -> list[tuple[Batch, dict[str, Any]]]:
        """The tensors that have a gradient, with their state, and the group each batch comes from."""
        total = sum(math.prod(run_shape(p, g)) for g in self.param_groups for p in g["params"])
        batches: list[tuple[Batch, dict[str, Any]]] = []
        for index, group in enumerate(self.param_groups):
            kinds: dict[tuple[torch.device, torch.dtype, Extent], Batch] = {}
            for name, p in zip(self._names(index), group["params"], strict=True):
                if p.grad is None:
                    continue
                if p.grad.is_sparse:
                    raise RuntimeError(f"AlphaGrad does not support sparse gradients ({name})")
                info = TensorInfo(name, run_shape(p, group), index, total)
                kind = p.device, p.dtype, extent_of(p, group["batch_dims"])
                b = kinds.get(kind)
                if b is None:
                    b = kinds[kind] = self._new_batch(p, group, kind[2])
                self._append(b, p, info)
            batches.extend((b, group) for b in kinds.values())
        return batches

    def _new_batch(self, p: Tensor, group: dict[str, Any], extent: Extent) -> Batch:
        return Batch(
            params=[],
            grads=[],
            infos=[],
            extent=extent,
            skip=group["nonfinite"] != "propagate",
            foreach=p.device.type != "cpu" if group["foreach"] is None else group["foreach"],
            **{k: group[k] for k in SHARED},
        )

    def _append(self, b: Batch, p: Tensor, info: TensorInfo) -> None:
        assert p.grad is not None
        state = self.state[p]
        runs = p.shape[: b.extent.batch_dims]
        b.params.append(shard_of(p))
        b.grads.append(shard_of(p.grad, like=p))
        b.infos.append(info)
        if b.skip:
            if "skipped" not in state:
                state["skipped"] = torch.zeros(runs, dtype=torch.int32, device=p.device)
            b.skipped.append(state["skipped"])
        if b.momentum:
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(p, memory_format=torch.preserve_format)
            b.buffers.append(shard_of(state["momentum_buffer"]))
        if b.rule.counts_steps or (b.momentum and b.dampening):
            if "step" not in state:
                state["step"] = torch.zeros(runs, dtype=torch.float32, device=p.device)
            b.steps.append(state["step"])
        if b.rule.alpha is not None:
            # computed here, not in the compiled step: a policy may call what dynamo cannot trace
            b.initials.append(b.rule.alpha.initial(info))
        if b.rule.alpha is not None and b.rule.alpha.controlled:
            if "alpha" not in state:
                state["saturation"] = torch.zeros(runs, dtype=torch.float32, device=p.device)
                state["alpha"] = tensor_of(b.initials[-1], state["saturation"]).expand(runs).clone()
            b.alphas.append(state["alpha"])
            b.saturations.append(state["saturation"])

    @property
    def _compiled(self) -> Callable[..., None]:
        compiled = self.__dict__.get("_compiled_update")
        if compiled is None:
            # dynamo counts recompilations for a code object: each optimizer gets its own
            own = types.FunctionType(update.__code__.replace(), update.__globals__, "update", update.__defaults__)
            compiled = self.__dict__["_compiled_update"] = torch.compile(own, fullgraph=True, dynamic=False)
        return compiled

    def skipped(self) -> dict[str, Tensor]:
        """How often each tensor's update was skipped for a non-finite gradient: name → [*batch]."""
        counts: dict[str, Tensor] = {}
        for index, group in enumerate(self.param_groups):
            for name, p in zip(self._names(index), group["params"], strict=True):
                if "skipped" in self.state.get(p, {}):
                    counts[name] = self.state[p]["skipped"]
        return counts


SHARED = ("rule", "lr", "momentum", "dampening", "nesterov", "weight_decay", "eps", "maximize")


def run_dims(p: Tensor, group: dict[str, Any]) -> tuple[int, ...]:
    """The dimensions of ``p`` that count runs."""
    return tuple(p.shape[: group["batch_dims"]])


def run_shape(p: Tensor, group: dict[str, Any]) -> tuple[int, ...]:
    """The shape of ``p`` in one run of the stack."""
    return tuple(p.shape[group["batch_dims"] :])


def raise_nonfinite(batches: Iterable[Batch]) -> None:
    """Raises :class:`FloatingPointError` naming every parameter whose gradient is not finite."""
    bad = []
    for b in batches:
        counts = b.extent.total(torch.stack([(~g.isfinite()).sum() for g in b.grads])).tolist()
        bad += [info.name for info, count in zip(b.infos, counts, strict=True) if count]
    if bad:
        raise FloatingPointError(f"non-finite gradient in {', '.join(bad)}")
