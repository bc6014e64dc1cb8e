"""One run: a module, its optimizer, and what a step of training does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from alphagrad.harness import metrics
from alphagrad.harness.driver import Driver, Observation, OptimizerSpec
from alphagrad.harness.tensors import whole
from alphagrad.instruments import Noise
from alphagrad.instruments.quantities import SKIPPED

from .averaging import Average
from .learner import Training
from .narrowed import Narrowed
from .parallel import Parallel, own_part, sharded_as
from .precision import Numbers, check_scaled


class ModuleRun:
    """See :class:`alphagrad.recipes.supervised.looped.LoopLearner`.

    What is evaluated is ``plain``: the module itself, or a copy that takes in the average of the weights, or
    the whole weights where the module is sharded, before each evaluation.
    """

    def __init__(
        self, module: nn.Module, spec: OptimizerSpec, training: Training, numbers: Numbers, parallel: Parallel
    ) -> None:
        check_scaled(numbers.precision, spec)
        self.numbers, self.training, self.parallel = numbers, training, parallel
        self.module = numbers.convert(module)
        if training.channels_last and parallel.kind != "fsdp":  # which shards rows, of contiguous parameters alone
            self.module = self.module.to(memory_format=torch.channels_last)
        copied = training.ema is not None or parallel.kind == "fsdp"
        self.plain = numbers.convert(training.build()) if copied else self.module
        self.wrapped = parallel.wrap(self.module)
        # in-place: the names of parameters stay
        if training.compile:
            self.wrapped.compile()
        self.params = dict(self.module.named_parameters())
        self.narrowed = None if numbers.rounding == "nearest" else Narrowed(self.params, numbers.rounding)
        moved = self.params if self.narrowed is None else self.narrowed.wides
        self.driver = Driver(spec, moved, training.compile, training.undecayed)
        self.scaler = numbers.scaler()
        self._dropped = 0
        """Steps that the scaler left out."""
        self.average = None if training.ema is None else Average(self.module.state_dict(), training.ema)
        self._fresh = False

    def step(self, inputs: Tensor, targets: Tensor, observe: Observation | None) -> tuple[Tensor, dict[str, float]]:
        """One update from inputs [B, ...] and targets [B]: measures [n], signals."""
        if not self.module.training:
            self.module.train()  # goes through all of its parts
        count = self.training.accumulate
        measured: list[Tensor] = []
        noise = None
        if observe is not None and observe.details and count > 1 and self.parallel.processes == 1:
            noise = Noise(self.params)
        if len(inputs) % count:
            raise ValueError(f"recipe.accumulate={count}: does not divide a batch of {len(inputs)}")
        for part, (x, y) in enumerate(zip(inputs.chunk(count), targets.chunk(count), strict=True)):
            with self.parallel.synchronized(self.wrapped, part == count - 1):
                with self.numbers.autocast():
                    outputs = self.wrapped(self._given(x))
                loss, measures = self.training.objective(outputs.float(), y)
                self.scaler.scale(loss / count if count > 1 else loss).backward()
            measured.append(measures)
            if noise is not None:
                noise.add()
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.driver.optimizer)
        if self.narrowed is not None:
            self.narrowed.widen()
        self.driver.clip()
        rests = {} if self.narrowed is None else self.narrowed.lost
        with torch.no_grad(), self.numbers.counted(self.params, observe, self.scaler, rests) as lost:
            with self.driver.observed(observe, noise) as seen:
                self.scaler.step(self.driver.optimizer)
            if self.narrowed is not None:
                self.narrowed.narrow()
        self._update_scale()
        for p in self.params.values():  # zero_grad, without its 20 µs for the profiler
            p.grad = None
        if self.average is not None:
            self.average.update(self.module.state_dict())
        self._fresh = False
        told = seen[0] if seen else {}
        return measured[0] if count == 1 else torch.stack(measured).mean(0), told | {
            name: float(value) for name, value in lost.items()
        }

    def _update_scale(self) -> None:
        """Takes the scale of the next loss, and counts the step if it was dropped: then the scale has shrunk."""
        if not self.scaler.is_enabled():
            return
        before = self.scaler.get_scale()
        self.scaler.update()
        after = self.scaler.get_scale()
        self._dropped += after < before or after == 0

    def skipped(self) -> dict[str, float]:
        """How often each tensor's update was skipped, and all of them by the scaler; where any was."""
        (counts,) = self.driver.skipped()
        dropped = {metrics.per_tensor(SKIPPED, self.driver.network): float(self._dropped)} if self._dropped else {}
        return counts | dropped

    def _given(self, x: Tensor) -> Tensor:
        """Inputs as the model takes them."""
        if x.is_floating_point():
            x = x.to(self.numbers.inputs)
        if x.dim() == 4:
            x = x.contiguous(
                memory_format=torch.channels_last if self.training.channels_last else torch.contiguous_format
            )
        return x

    def predict(self, inputs: Tensor) -> Tensor:
        """Outputs for inputs [B, ...], float32."""
        if not self._fresh:
            self.refresh()
        self.plain.eval()
        with self.numbers.autocast():
            return self.plain(self._given(inputs)).float()

    def refresh(self) -> None:
        """Brings ``plain`` up to date; on several processes they must do so together."""
        self._agree()
        if self.plain is not self.module:
            tensors = self.module.state_dict() if self.average is None else self.average.tensors
            self.plain.load_state_dict(whole(tensors))
        self._fresh = True

    def _agree(self) -> None:
        """Takes the first process's statistics of normalisations: each has its own, of its part of the batches."""
        buffers = dict(self.module.named_buffers())
        averaged = [] if self.average is None else [t for name, t in self.average.tensors.items() if name in buffers]
        self.parallel.agree([*buffers.values(), *averaged])

    @torch.no_grad()
    def finite(self) -> Tensor:
        """Whether this process's part of the parameters is finite."""
        parts = [own_part(p).isfinite().all() for p in self.params.values()]
        return torch.stack(parts).all()

    @torch.no_grad()
    def clear(self) -> None:
        """Sets the parameters to 0, so that nothing that is computed of them disturbs."""
        for p in self.params.values():
            p.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes, in full where it is sharded; on several processes they must ask together."""
        self._agree()
        state = {"model": self.module.state_dict(), "optimizer": self.driver.state_dict()}
        state["scaler"] = {**self.scaler.state_dict(), **({"dropped": self._dropped} if self._dropped else {})}
        if self.narrowed is not None:
            state["narrowed"] = self.narrowed.state_dict()
        if self.average is not None:
            state["average"] = self.average.state_dict()
        return whole(state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes it back."""
        own = self.module.state_dict()
        self.module.load_state_dict({name: sharded_as(value, own[name]) for name, value in state["model"].items()})
        params = [p for group in self.driver.optimizer.param_groups for p in group["params"]]
        slots = {
            index: {key: sharded_as(value, params[index]) for key, value in slot.items()}
            for index, slot in state["optimizer"]["state"].items()
        }
        self.driver.load_state_dict({**state["optimizer"], "state": slots})
        scaler = dict(state["scaler"])
        self._dropped = scaler.pop("dropped", 0)
        self.scaler.load_state_dict(scaler)
        if self.narrowed is not None:
            self.narrowed.load_state_dict(state["narrowed"])
        if self.average is not None:
            self.average.load_state_dict(
                {name: sharded_as(value, self.average.tensors[name]) for name, value in state["average"].items()}
            )
        self._fresh = False

    def result(self) -> dict[str, Any]:
        """Model, average and optimizer state: parameter name → state."""
        self._agree()
        kept = {"model": self.module.state_dict(), "optimizer": self.driver.slots()}
        if self.average is not None:
            kept["average"] = self.average.state_dict()
        return _copied(whole(kept))


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone(memory_format=torch.contiguous_format)
    return {key: _copied(part) for key, part in value.items()} if isinstance(value, dict) else value
