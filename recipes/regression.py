"""Regression with MLPs of any depth whose layers may be of unequal scale, and how stable its training is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from alphagrad.harness import metrics
from alphagrad.harness.memory import check_memory
from alphagrad.harness.recipe import Capability, Log, Objective
from alphagrad.harness.recipe import Settings as BaseSettings
from alphagrad.harness.stack import RunStack
from alphagrad.harness.state import Stateful
from alphagrad.landscape.loss import FixedLoss

from .mlp import mlp, mlp_bytes
from .supervised.held_out import spread
from .supervised.learner import Learner, Training, undecayed
from .supervised.loop import FitPlan, fit
from .supervised.schedules import ScheduleSettings
from .supervised.stacked import StackLearner
from .supervised.surveyed import surveyed
from .tabular.data import Rows, TableSettings, table_of
from .tabular.stability import diverged, final_loss, roughness

ACTIVATIONS: Mapping[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}
LARGE = ("recipe.batch_size", "recipe.hidden")
"""Settings that say what a run takes in memory."""
MEASURES = {metrics.TRAIN_ERROR: "mean"}


class RegressionSettings(BaseSettings):
    """See conf/recipe/regression.yaml for what each means."""

    name: str
    data: TableSettings
    hidden: list[PositiveInt] = Field(max_length=100)
    spread: float = Field(ge=1, le=1e6)
    activation: Literal["relu", "tanh"]
    total_steps: PositiveInt
    batch_size: PositiveInt
    schedule: ScheduleSettings
    decay: Literal["all", "weights"]
    log_every: PositiveInt
    eval_every: PositiveInt
    compile: bool


class Regression:
    """Squared error of standardised targets: 1 is what predicting their mean has."""

    Settings = RegressionSettings
    objective = Objective(metrics.FINAL_ERROR, "min")
    headlines: ClassVar[Mapping[str, int]] = {metrics.FINAL_ERROR: 4, metrics.EVAL_ERROR: 4, metrics.ROUGHNESS: 6}
    capabilities = (Capability.STACKED, Capability.SURVEYED)
    logs: ClassVar[set[str]] = {
        *(metrics.TRAIN_ERROR, metrics.CLEAN_ERROR, metrics.EVAL_ERROR, metrics.FINAL_ERROR, metrics.ROUGHNESS),
        *(metrics.DIVERGED, metrics.LEARNING_RATE, metrics.STEPS_PER_SECOND),
    }

    def __init__(self, settings: RegressionSettings) -> None:
        self.settings = settings
        self.table = table_of(settings.data)
        count = len(self.table.train[0])
        if settings.batch_size > count:
            raise ValueError(f"recipe.batch_size={settings.batch_size}: there are only {count} training rows")
        check_memory(settings, self.bytes_of, LARGE)

    def bytes_of(self, s: RegressionSettings, runs: int = 1) -> float:
        """What runs take in memory, about."""
        rows = max(s.batch_size, *(len(part[0]) for part in (self.table.train, self.table.test)))
        return runs * mlp_bytes([self.table.features, *s.hidden, 1], rows)

    @property
    def total_steps(self) -> int:
        """Updates of each run."""
        return self.settings.total_steps

    def networks(self) -> dict[str, nn.Module]:
        """The network."""
        return {"mlp": self._model()}

    def _model(self) -> nn.Module:
        """Its weights begin √spread times larger and smaller in turn, which leaves what a ReLU network computes."""
        s = self.settings
        model = mlp([self.table.features, *s.hidden, 1], ACTIVATIONS[s.activation])
        layers = [module for module in model if isinstance(module, nn.Linear)]
        with torch.no_grad():
            for k, layer in enumerate(layers[: len(layers) // 2 * 2]):
                layer.weight.mul_(s.spread ** (0.5 if k % 2 == 0 else -0.5))
        return model

    def train(self, stack: RunStack, log: Log) -> list[dict[str, Any]]:
        """Trains all runs in lockstep; see :class:`alphagrad.harness.recipe.Recipe`."""
        s = self.settings
        exempt = undecayed(self._model()) if s.decay == "weights" else frozenset()
        learner = StackLearner(stack, Training(self._model, squared_error, exempt, None, 1, s.compile))
        plan = FitPlan(s.total_steps, s.schedule, s.log_every, s.eval_every, MEASURES, {})
        return fit(plan, learner, Rows(self.table, stack, s.batch_size), Exam(self, stack), stack, log)

    def fixed_loss(self, checkpoint: Mapping[str, Any], examples: int, device: torch.device) -> FixedLoss:
        """On training rows."""
        x, y = self.table.train
        rows = torch.from_numpy(spread(len(x), examples))
        return surveyed(self._model, squared_error, checkpoint, [(x[rows].to(device), y[rows].to(device))], device)


def squared_error(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squared error of outputs [B, 1] against targets [B], and [1]: itself."""
    loss = (outputs.squeeze(-1) - targets).square().mean()
    return loss, loss.detach().unsqueeze(0)


class Exam(Stateful):
    """Each run's errors on all rows, and at the end how stable its curve was."""

    STATE = ("curves",)

    def __init__(self, recipe: Regression, stack: RunStack) -> None:
        self.parts = [tuple(t.to(stack.device) for t in part) for part in (recipe.table.train, recipe.table.test)]
        self.curves: list[list[float]] = [[] for _ in range(len(stack))]

    def __call__(self, learner: Learner, step: int, last: bool) -> list[dict[str, float]]:
        """Each run's errors."""
        errors = []
        for x, y in self.parts:
            outputs = learner.predict(x).squeeze(-1)
            errors.append((outputs.double() - y.double()).square().mean(-1).tolist())
        rows = [
            {metrics.CLEAN_ERROR: seen, metrics.EVAL_ERROR: new} for seen, new in zip(errors[0], errors[1], strict=True)
        ]
        for curve, row in zip(self.curves, rows, strict=True):
            curve.append(row[metrics.CLEAN_ERROR])
            if last:
                final = final_loss(curve)
                row |= {metrics.FINAL_ERROR: final, metrics.DIVERGED: float(diverged(final))}
                row[metrics.ROUGHNESS] = roughness(curve)
        return rows
