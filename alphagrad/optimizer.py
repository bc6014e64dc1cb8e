"""AlphaGrad as a ``torch.optim.Optimizer``: arguments, state and parameter groups."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from alphagrad.batch import Batch
from alphagrad.compiled import compiled
from alphagrad.gather import Gatherer
from alphagrad.rule import Rule
from alphagrad.saved import Restored
from alphagrad.settings import check_group, check_settings, plain_numbers, warn_of_misspellings
from alphagrad.standing import warn_of_standing
from alphagrad.step import update
from alphagrad.values import tensor_of


class AlphaGrad(Optimizer):
    """Non-linear gradient normalisation (S. Sane, arXiv:2504.16020).

    ::

        ĝ  = g / (‖g‖₂ + ε)
        g' = tanh(α·ĝ)
        v ← γ·v + (1 − dampening)·g'
        θ ← (1 − η·weight_decay)·θ − η·v

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
        foreach: ``True``: plain torch, many small tensors in one list operation; ``False``: plain torch, one tensor
            at a time. ``None`` leaves the choice to ``fused``.
        fused: ``True``: by a kernel, an error where none covers the tensors; as with torch's optimizers, ``GradScaler``
            then leaves unscaling to the step. ``False``: never. ``None``: by a kernel wherever one covers them (on a
            CPU all rules of this package in float32 and bfloat16, if numba is installed), unless ``foreach`` is given.
        compile: what no kernel covers runs under ``torch.compile``. After more recompilations than torch allows
            (other tensors with gradients in every step, say) the step goes on eagerly, with a warning.
        rounding: how half-precision parameters are written. *nearest*; *stochastic* (bfloat16): up or down by chance,
            right on average; *kahan*: what was rounded away is kept, in a buffer of the parameter's type, and added
            to the next update. Under *nearest* an update below half the distance to the next number is lost.
        momentum_dtype: the momentum buffer's type or its name; ``None`` for the parameter's. ``bfloat16`` halves it.
        differentiable: refused; the step works in place.

    Raises:
        ValueError: an argument is out of range, or a parameter is complex.
        RuntimeError: a gradient is sparse.
        FloatingPointError: see ``nonfinite``.

    Under ``fused=True`` the optimizer takes ``grad_scale`` and ``found_inf`` from ``torch.amp.GradScaler``, so a step
    with overflowed gradients is dropped on the device; else the scaler unscales, and gradients may be clipped in
    between. Half-precision parameters are updated in float32 and rounded once.

    Parameters may be sharded (``DTensor``, as FSDP2 makes them): norms, saturation and non-finite gradients
    are those of the whole tensor, and the update is what one process would make of it. All processes step
    together, and the same parameters have gradients on each.
    """

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
        fused: bool | None = None,
        compile: bool = False,
        rounding: str = "nearest",
        momentum_dtype: torch.dtype | str | None = None,
        differentiable: bool = False,
    ) -> None:
        given = {
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
            "fused": fused,
            "compile": compile,
            "rounding": rounding,
            "momentum_dtype": momentum_dtype,
            "differentiable": differentiable,
        }
        defaults = plain_numbers(given)
        if not isinstance(params, Iterable):
            check_settings(defaults)  # torch's optimizers, too, name a bad setting before they miss the parameters
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group as ``torch.optim.Optimizer`` does, after checking its settings.

        Keys that are no settings are kept for whoever put them there; one close to a setting's name is warned of.
        """
        if isinstance(param_group, dict):
            param_group = plain_numbers(param_group)
            if param_group.get("rule", self) is None:
                del param_group["rule"]
            warn_of_misspellings(param_group, self.defaults)
            check_settings({**self.defaults, **param_group})
            if param_group.get("compile", self.defaults["compile"]) != self.defaults["compile"]:
                raise ValueError(f"compile: holds for all groups, got {param_group['compile']!r} for one")
        super().add_param_group(param_group)
        try:
            check_group(self.param_groups, self._names(-1))
        except ValueError:
            self.param_groups.pop()
            raise
        self._gatherer.forget()

    @property
    def _gatherer(self) -> Gatherer:
        # not an attribute that the constructor sets: copies and pickles of an optimizer come without it
        if "_own_gatherer" not in self.__dict__:
            self.__dict__["_own_gatherer"] = Gatherer()
        gatherer: Gatherer = self.__dict__["_own_gatherer"]
        return gatherer

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Told to ``GradScaler``, and taken by Lightning as a ban on clipping: only where it was asked for."""
        return bool(self.defaults.get("fused"))

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
        restored = Restored()
        hooks = (
            # after everybody's own hooks, which may change what is loaded, and before those that follow the loading
            self.register_load_state_dict_pre_hook(restored.prepare),
            self.register_load_state_dict_post_hook(restored.finish, prepend=True),
        )
        try:
            super().load_state_dict(state_dict)
        finally:
            for hook in hooks:
                hook.remove()
        self._gatherer.forget()

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
        try:
            if batches:
                self._check_finite(batches, found_inf)
                self._execute([b for b, _ in batches], grad_scale, found_inf)
        finally:
            self.release()
        return loss

    def _execute(self, batches: list[Batch], grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        if "_told_of_standing" not in self.__dict__ and not torch.compiler.is_compiling():
            self.__dict__["_told_of_standing"] = True
            warn_of_standing(batches)
        if self.defaults["compile"] and not torch.compiler.is_compiling():
            self._update_compiled(batches, grad_scale, found_inf)
        else:
            update(batches, grad_scale, found_inf)

    def _check_finite(self, batches: list[tuple[Batch, dict[str, Any]]], found_inf: Tensor | None = None) -> None:
        """Raises where ``nonfinite="raise"`` asks for it and the scaler has not found it out already."""
        checked = [b for b, group in batches if group["nonfinite"] == "raise"]
        if checked and not (found_inf is not None and found_inf.item()):
            raise_nonfinite(checked)

    def batches(self) -> list[tuple[Batch, dict[str, Any]]]:
        """The tensors that have a gradient, with their state, and each batch's group; until the next step."""
        return self._gatherer.batches(self.param_groups, self._names, self.state)

    def release(self) -> None:
        """Lets go of the tensors of :meth:`batches`, gradients among them."""
        self._gatherer.release()

    def _update_compiled(self, batches: list[Batch], grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        """The step under ``torch.compile``; a step that kernels cover whole needs none."""
        step = self.__dict__.get("_compiled_update")
        if step is None:
            # dynamo counts recompilations for a code object: each optimizer gets its own
            own = types.FunctionType(update.__code__.replace(), update.__globals__, "update", update.__defaults__)
            step = self.__dict__["_compiled_update"] = compiled(own)
        if all(b.kernel is not None for b in batches):
            step = update
        else:  # one that kernels cover in part is compiled whole: norms may span batches
            batches = [compilable(b) for b in batches]
        try:
            step(batches, grad_scale, found_inf)
        except torch._dynamo.exc.FailOnRecompileLimitHit:
            warnings.warn(
                "compile=True: the step was compiled as often as torch._dynamo.config.recompile_limit allows, because "
                "tensors with gradients, groups or rules kept changing; it goes on eagerly",
                stacklevel=3,
            )
            self.__dict__["_compiled_update"] = update
            update(batches, grad_scale, found_inf)

    def skipped(self) -> dict[str, Tensor]:
        """How often each tensor's update was skipped for a non-finite gradient: name → [*batch]."""
        counts: dict[str, Tensor] = {}
        for index, group in enumerate(self.param_groups):
            for name, p in zip(self._names(index), group["params"], strict=True):
                if "skipped" in self.state.get(p, {}):
                    counts[name] = self.state[p]["skipped"]
        return counts


def compilable(b: Batch) -> Batch:
    """A batch whose numbers are tensors: numbers would be burnt into the code, and every change would recompile it."""
    like = b.params[0].new_empty((), dtype=torch.float64)
    own = replace(b, kernel=None)
    for name in ("lr", "momentum", "dampening", "weight_decay", "eps"):
        setattr(own, name, tensor_of(getattr(b, name), like))
    return own


def raise_nonfinite(batches: Iterable[Batch]) -> None:
    """Raises :class:`FloatingPointError` naming every parameter whose gradient is not finite."""
    bad = []
    for b in batches:
        counts = b.extent.total(torch.stack([(~g.isfinite()).sum() for g in b.grads])).tolist()
        bad += [info.name for info, count in zip(b.infos, counts, strict=True) if count]
    if bad:
        raise FloatingPointError(f"non-finite gradient in {', '.join(bad)}")
