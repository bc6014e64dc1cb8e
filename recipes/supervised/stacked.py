"""Supervised training of R runs as one tensor program: parameters [R, ...] and vmap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from alphagrad.harness.driver import Observation
from alphagrad.harness.pictures import RunHistogram
from alphagrad.harness.stack import RunStack

from ..gradients import gradients_of
from .averaging import Average
from .learner import Training


class StackLearner:
    """See :class:`alphagrad.recipes.supervised.learner.Learner`; for models without buffers, in float32."""

    def __init__(self, stack: RunStack, training: Training) -> None:
        self.params = stack.initialize(training.build)
        self.optimizer = stack.optimizer(self.params, training.compile, training.undecayed)
        self.model = training.build().to(stack.device)  # its structure; the parameters are given at each call
        self.average = None if training.ema is None else Average({"all": self.params.flat}, training.ema)
        self._averaged = (
            None if self.average is None else type(self.params)(self.average.tensors["all"], self.params.layout)
        )

        def losses(params: Mapping[str, Tensor], inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            loss, measures = vmap(training.objective)(self._outputs(params, inputs), targets)
            return loss.sum(), measures.T

        self._gradients = gradients_of(losses, training.compile)

    @property
    def frozen(self) -> set[int]:
        """The runs out of the race."""
        return self.optimizer.frozen

    def _outputs(self, params: Mapping[str, Tensor], inputs: Tensor, shared: bool = False) -> Tensor:
        def one(params: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(self.model, params, (x,))

        return vmap(one, in_dims=(0, None if shared else 0))(dict(params), inputs)

    def step(
        self, inputs: Tensor, targets: Tensor, observe: Observation | None
    ) -> tuple[Tensor, list[dict[str, float]]]:
        grads, measures = self._gradients(self.params, inputs, targets)
        signals = self.optimizer.step(grads, observe)
        if self.average is not None:
            self.average.update({"all": self.params.flat})
        return measures, signals

    @torch.no_grad()
    def predict(self, inputs: Tensor) -> Tensor:
        return self._outputs(self.params if self._averaged is None else self._averaged, inputs, shared=True)

    def finite(self) -> list[bool]:
        return self.optimizer.finite()

    def freeze(self, run: int) -> None:
        """Takes a run out of the race."""
        self.optimizer.freeze(run)

    def scale_lr(self, factor: float) -> None:
        self.optimizer.scale_lr(factor)

    def learning_rates(self) -> list[float]:
        return self.optimizer.learning_rates()

    def skipped(self) -> list[dict[str, float]]:
        return self.optimizer.skipped()

    def state_dict(self) -> dict[str, Any]:
        average = {} if self.average is None else self.average.state_dict()
        return {"params": dict(self.params), "optimizer": self.optimizer.state_dict(), "average": average}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, p in self.params.items():
            p.copy_(state["params"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])

    def histograms(self, run: int) -> list[RunHistogram]:
        return self.optimizer.histograms(run)

    def result(self, run: int) -> dict[str, Any]:
        kept = {
            "model": {name: p[run].clone() for name, p in self.params.items()},
            "optimizer": self.optimizer.state_of(run),
        }
        if self._averaged is not None:
            kept["average"] = {name: p[run].clone() for name, p in self._averaged.items()}
        return kept
