"""One run: a module, its optimizer, and what a step of training does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from alphagrad.harness import metrics
from alphagrad.harness.stack import Observation, OptimizerSpec, build_optimizer, largest
from alphagrad.observe import signals
from alphagrad.optimizer import AlphaGrad

from .averaging import Average
from .parallel import Parallel, own_part, sharded_as, whole
from .precision import Numbers

if TYPE_CHECKING:
    from .learner import Training


class ModuleRun:
    """See :class:`alphagrad.recipes.supervised.learner.LoopLearner`.

    What is evaluated is ``plain``: the module itself, or a copy that takes in the average of the weights, or
    the whole weights where the module is sharded, before each evaluation.
    """

    def __init__(
        self, module: nn.Module, spec: OptimizerSpec, training: Training, numbers: Numbers, parallel: Parallel
    ) -> None:
        self.numbers, self.training, self.parallel, self.spec = numbers, training, parallel, spec
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
        self.optimizer = build_optimizer(spec, self.params, training.compile, training.undecayed)
        self.scaler = numbers.scaler()
        self.average = None if training.ema is None else Average(self.module.state_dict(), training.ema)
        self._fresh = False

    def step(self, inputs: Tensor, targets: Tensor, observe: Observation | None) -> tuple[Tensor, dict[str, float]]:
        """One update from inputs [B, ...] and targets [B]: measures [n], signals."""
        if not self.module.training:
            self.module.train()  # goes through all of its parts
        count = self.training.accumulate
        measured: list[Tensor] = []
        if len(inputs) % count:
            raise ValueError(f"recipe.accumulate={count}: does not divide a batch of {len(inputs)}")
        for part, (x, y) in enumerate(zip(inputs.chunk(count), targets.chunk(count), strict=True)):
            with self.parallel.synchronized(self.wrapped, part == count - 1):
                with self.numbers.autocast():
                    outputs = self.wrapped(self._given(x))
                loss, measures = self.training.objective(outputs.float(), y)
                self.scaler.scale(loss / count if count > 1 else loss).backward()
            measured.append(measures)
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        if self.spec.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.params.values(), self.spec.clip_grad_norm)
        seen = {} if observe is None else self._signals_before(observe)
        before = (
            {}
            if observe is None
            else {n: self.params[n].detach().clone() for n in largest(self.params, observe.tensors)}
        )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        for name, old in before.items():
            seen[metrics.per_tensor(metrics.UPDATE_NORM, name)] = _norm(self.params[name].detach() - old)
        for p in self.params.values():  # zero_grad, without its 20 µs for the profiler
            p.grad = None
        if self.average is not None:
            self.average.update(self.module.state_dict())
        self._fresh = False
        return measured[0] if count == 1 else torch.stack(measured).mean(0), {
            name: float(value) for name, value in seen.items()
        }

    def _given(self, x: Tensor) -> Tensor:
        """Inputs as the model takes them."""
        if x.is_floating_point():
            x = x.to(self.numbers.inputs)
        if x.dim() == 4:
            x = x.contiguous(
                memory_format=torch.channels_last if self.training.channels_last else torch.contiguous_format
            )
        return x

    @torch.no_grad()
    def _signals_before(self, observe: Observation) -> dict[str, Tensor]:
        names = set(largest(self.params, observe.tensors))
        seen = {
            metrics.per_tensor(metrics.GRAD_NORM, n): _norm(p.grad)
            for n, p in self.params.items()
            if n in names and p.grad is not None
        }
        if isinstance(self.optimizer, AlphaGrad):
            for name, row in signals(self.optimizer, observe.tau).items():
                if name in names:
                    seen |= {metrics.per_tensor(key, name): value for key, value in row.items()}
        return seen

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

    def scale_lr(self, factor: float) -> None:
        """Sets the learning rates to ``factor`` times what they were configured to be."""
        for group in self.optimizer.param_groups:
            rate = factor * group.setdefault("initial_lr", float(group["lr"]))
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def learning_rate(self) -> float:
        """The present rate of the first parameter group."""
        return float(self.optimizer.param_groups[0]["lr"])

    def skipped(self) -> dict[str, float]:
        """How often each tensor's update was skipped for a non-finite gradient, of those where any was."""
        counts = self.optimizer.skipped() if isinstance(self.optimizer, AlphaGrad) else {}
        return {metrics.per_tensor(metrics.SKIPPED, name): float(count) for name, count in counts.items() if count}

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes, in full where it is sharded; on several processes they must ask together."""
        self._agree()
        state = {"model": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}
        state["scaler"] = self.scaler.state_dict()
        if self.average is not None:
            state["average"] = self.average.state_dict()
        return whole(state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes it back."""
        own = self.module.state_dict()
        self.module.load_state_dict({name: sharded_as(value, own[name]) for name, value in state["model"].items()})
        params = [p for group in self.optimizer.param_groups for p in group["params"]]
        slots = {
            index: {key: sharded_as(value, params[index]) for key, value in slot.items()}
            for index, slot in state["optimizer"]["state"].items()
        }
        self.optimizer.load_state_dict({**state["optimizer"], "state": slots})
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(
                {name: sharded_as(value, self.average.tensors[name]) for name, value in state["average"].items()}
            )
        self._fresh = False

    def result(self) -> dict[str, Any]:
        """Model, average and optimizer state: parameter name → state."""
        self._agree()
        slots = {name: dict(self.optimizer.state[p]) for name, p in self.params.items()}
        kept = {"model": self.module.state_dict(), "optimizer": slots}
        if self.average is not None:
            kept["average"] = self.average.state_dict()
        return _copied(whole(kept))


def _norm(x: Tensor) -> Tensor:
    return whole(torch.linalg.vector_norm(x))


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone(memory_format=torch.contiguous_format)
    return {key: _copied(part) for key, part in value.items()} if isinstance(value, dict) else value
