"""The theory of the paper (section 3) on problems whose constants are known, both sides of it at every step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.func import grad, grad_and_value, jvp, vmap

from alphagrad.harness import metrics
from alphagrad.harness.recipe import Capability, Log, Objective
from alphagrad.harness.recipe import Settings as BaseSettings
from alphagrad.harness.sharing import StackOptimizer
from alphagrad.harness.stack import RunStack
from alphagrad.landscape.loss import FixedLoss

from .notes import note
from .problems.problem import Function, Point
from .problems.settings import ProblemSettings, build_problem
from .statements import bounds
from .statements.audit import Audit, Statements, Step
from .statements.figure import draw_statements, tightness, write_statements
from .statements.update import Update, update_of
from .supervised.surveyed import weights_of

Array = np.ndarray


class TheorySettings(BaseSettings):
    """See conf/recipe/theory.yaml for what each means."""

    name: str
    problem: ProblemSettings
    total_steps: PositiveInt
    step_size: Literal["given", "theorem"]
    statements: Statements
    on_violation: Literal["fail", "note"]
    figure: bool
    compile: bool


class Theory:
    """Descends on a problem and holds every step against the statements; float64 throughout."""

    Settings = TheorySettings
    objective = Objective(metrics.OPTIMALITY_GAP, "min")
    headlines: ClassVar[Mapping[str, int]] = {
        metrics.OPTIMALITY_GAP: 6,
        metrics.VIOLATIONS: 0,
        **dict.fromkeys(metrics.TIGHTNESS.values(), 4),
    }
    capabilities = (Capability.STACKED, Capability.SURVEYED)
    logs: ClassVar[set[str]] = {
        *(metrics.OPTIMALITY_GAP, metrics.FULL_GRAD_NORM, metrics.SMOOTHED_NORM, metrics.GAMMA, metrics.DISTANCE),
        *(metrics.APPLIES, metrics.VIOLATIONS, metrics.COSINE_UNIT, metrics.COSINE_SIGN, metrics.LEMMA2_FULL),
        *(side for sides in metrics.SIDES.values() for side in sides),
        *(metrics.THEOREM1_OWN, metrics.THEOREM2_OWN, metrics.LEARNING_RATE, *metrics.TIGHTNESS.values()),
    }

    def __init__(self, settings: TheorySettings) -> None:
        self.settings = settings
        self.problem = build_problem(settings.problem)

    @property
    def total_steps(self) -> int:
        """Updates of each run."""
        return self.settings.total_steps

    def networks(self) -> dict[str, nn.Module]:
        """The parameters of the problem."""
        return {"point": Point(self.problem)}

    def train(self, stack: RunStack, log: Log) -> list[dict[str, Any]]:
        """Trains all runs in lockstep; see :class:`alphagrad.harness.recipe.Recipe`."""
        s, p = self.settings, self.problem
        if stack.device.type != "cpu":
            raise ValueError(f"device={stack.device}: recipe theory computes on the CPU; give device=cpu")
        params = stack.initialize(lambda: Point(p))
        optimizer = stack.optimizer(params, s.compile)
        updates = [update_of(run.optimizer, {n: t[k] for n, t in params.items()}) for k, run in enumerate(stack.runs)]
        rates = self._set_rates(optimizer, updates)
        audits = [Audit(p, u, s.statements, rate) for u, rate in zip(updates, rates, strict=True)]
        behind = torch.tensor([a.behind for a in audits], dtype=torch.float64)[:, None]
        draws = stack.generators("sampling")
        parts = {"params": params, "optimizer": optimizer, "draws": draws, "audits": audits}
        full, value, curved = vmap(grad_and_value(p.value)), vmap(p.value), vmap(partial(_bent, p.value))
        sampled = None if p.sampling is None else vmap(grad(p.sampling.value))

        def result(run: int) -> dict[str, Any]:
            return {"model": {name: t[run].clone() for name, t in params.items()}}

        first = log.restore(parts)
        if first == 0:
            self._say(audits, stack)
        gradients, f = full(params.flat)
        for step in range(first, s.total_steps):
            taken = gradients
            if sampled is not None and p.sampling is not None:
                taken = sampled(params.flat, torch.from_numpy(np.stack([p.sampling.draw(rng) for rng in draws])))
            kept = [optimizer.state_of(run) if _controlled(u) else {} for run, u in enumerate(updates)]
            kept = [{name: {k: _copy(v) for k, v in own.items()} for name, own in one.items()} for one in kept]
            before = params.flat.clone()
            observe = log.observation if log.observe_every and step % log.observe_every == 0 else None
            for run, row in enumerate(optimizer.step(taken, observe)):
                log.metrics(run, step, row)
            after = params.flat.clone()
            gradients_after, f_after = full(after)
            z = after - behind * (before - after)
            fz = value(z) if bool(behind.any()) else f_after
            bent = curved(before, torch.from_numpy(np.stack([a.probe for a in audits])))
            vectors = [t.numpy() for t in (before, after, gradients, gradients_after, taken, z, bent)]
            numbers = [t.tolist() for t in (f, f_after, fz)]
            for run in set(range(len(stack))) - optimizer.frozen:
                x, y, g, g_after, drawn, beyond, turned = (v[run] for v in vectors)
                fx, fy, at_z = (v[run] for v in numbers)
                seen = Step(x, y, g, g_after, drawn, beyond, turned, fx, fy, at_z, kept[run])
                if not self._audited(log, audits[run], run, step, seen, stack):
                    optimizer.freeze(run)
            gradients, f = gradients_after, f_after
            if optimizer.frozen:
                gradients, f = full(params.flat)
            log.progress(step + 1, f"f {float(f[0]):.3g}")
            if step + 1 == s.total_steps:
                for run in set(range(len(stack))) - optimizer.frozen:
                    self._tell(log, audits[run], run, step, stack)
            log.checkpoint(step + 1, parts, result)
        return [result(run) for run in range(len(stack))]

    def fixed_loss(self, checkpoint: Mapping[str, Any], examples: int, device: torch.device) -> FixedLoss:
        """f itself, which has no examples."""
        f, weights = self.problem.value, weights_of(checkpoint)
        if set(weights) != set(self.problem.sizes):
            raise ValueError(f"has {', '.join(weights)}, and the problem {', '.join(self.problem.sizes)}")
        return FixedLoss(weights, [lambda named: f(torch.cat([named[name] for name in self.problem.sizes]))])

    def _audited(self, log: Log, audit: Audit, run: int, step: int, seen: Step, stack: RunStack) -> bool:
        """Holds a step of one run against the statements and logs it; whether the run goes on."""
        if not (
            np.isfinite(seen.after).all() and np.isfinite(seen.gradient_after).all() and math.isfinite(seen.f_after)
        ):
            log.diverged(run, step, "f, its gradient or the parameters are not finite")
            return False
        row, violated = audit.step(seen)
        log.metrics(run, step, row | _cosines(seen.x - seen.after, seen.taken))
        if not violated or self.settings.on_violation != "fail":
            return True
        self._tell(log, audit, run, step, stack)
        log.failed(run, step, "; ".join(v.told() for v in violated))
        return False

    def _set_rates(self, optimizer: StackOptimizer, updates: list[Update | None]) -> list[float]:
        """Each run's η; with ``recipe.step_size=theorem`` the theorems' own, in place of what was configured."""
        s, p = self.settings, self.problem
        for group in optimizer.neighbours:
            name = group.spec.name
            if not all(driver.learning_rate > 0 for driver in group.drivers):
                raise ValueError(f"optimizer.lr=0: {name} would not move; recipe theory needs a rate above 0")
            update = updates[group.rows.start]
            if s.step_size == "given":
                continue
            if update is None or (s.statements == "held" and update.against):
                why = "is no AlphaGrad" if update is None else f"has {update.against}"
                raise ValueError(f"recipe.step_size=theorem: no theorem is about {name}, which {why}; give given")
            momentum, square = 0.0, float(p.n)
            if s.statements == "held":
                momentum, alphas = update.momentum, update.alphas(0, {})
                square = update.square(update.bends(0, alphas, [np.zeros(d) for d in update.sizes]))
            own = bounds.own_rate(p.L, square, float(p.value(p.start)) - p.least, s.total_steps, momentum)
            for driver in group.drivers:
                driver.scale_lr(own / driver.learning_rate)
        return optimizer.learning_rates()

    def _say(self, audits: list[Audit], stack: RunStack) -> None:
        """What of the runs is not checked, and why."""
        for audit, run in zip(audits, stack.runs, strict=True):
            if audit.checks:
                continue
            why = "is no AlphaGrad" if audit.update is None else f"has {audit.update.against or 'no α'}"
            note(f"recipe theory: {run.optimizer.name} {why}; no statement covers it, so it is only measured")

    def _tell(self, log: Log, audit: Audit, run: int, step: int, stack: RunStack) -> None:
        """What is known of a run at its end: how tight the bounds were, and the picture."""
        s = self.settings
        log.metrics(run, step, {metrics.VIOLATIONS: float(audit.violations), **tightness(audit.history)})
        title = (
            f"{s.problem.name}, {stack.runs[run].optimizer.name}, statements as {s.statements}, η = {audit.rate:.3g}"
        )
        for left, what in ((audit.left, "the region where L holds"), (audit.far, "the ball of radius D")):
            if left >= 0:
                title += f"; left {what} at step {left}"
                note(
                    f"recipe theory: {stack.runs[run].optimizer.name} left {what} at step {left}; what needs it is no "
                    "longer checked"
                )
        log.artifact(run, "statements.csv", partial(write_statements, history=audit.history))
        if s.figure:
            gap = "f − f_inf" if self.problem.f_star is None else "f − f*"
            log.artifact(run, "statements.png", partial(draw_statements, history=audit.history, title=title, gap=gap))


def _controlled(update: Update | None) -> bool:
    return update is not None and update.rule.alpha is not None and update.rule.alpha.controlled


def _bent(value: Function, x: Tensor, u: Tensor) -> Tensor:
    """∇²f(x)·u."""
    turned: Tensor = jvp(grad(value), (x,), (u,))[1]
    return turned


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _cosines(moved: Array, g: Array) -> dict[str, float]:
    """Of a step −Δx with the gradient that it was taken along, and with that gradient's signs."""
    found = {}
    for name, other in ((metrics.COSINE_UNIT, g), (metrics.COSINE_SIGN, np.sign(g))):
        size = float(np.linalg.norm(moved)) * float(np.linalg.norm(other))
        if size > 0:
            found[name] = float(moved @ other) / size
    return found
