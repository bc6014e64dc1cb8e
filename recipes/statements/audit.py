"""Holds a run against the statements, step by step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from alphagrad.harness import metrics
from alphagrad.harness.state import Stateful

from ..problems.problem import Problem
from . import bounds
from .bounds import Bend, Terms, excess
from .update import Update

Statements = Literal["held", "printed"]


@dataclass(frozen=True)
class Step:
    """A step of one run: x → x', with f, ∇f and the gradient g that was taken; vectors are float64 [n].

    ``z`` is z_{t+1} and ``fz`` is f there; see :class:`alphagrad.recipes.statements.bounds.Terms`. ``bent`` is ∇²f(x)
    times the audit's ``probe``.
    """

    x: np.ndarray
    after: np.ndarray
    gradient: np.ndarray
    gradient_after: np.ndarray
    taken: np.ndarray
    z: np.ndarray
    bent: np.ndarray
    f: float
    f_after: float
    fz: float
    kept: Mapping[str, Mapping[str, Any]]
    """The optimizer's state before the step, by tensor."""


@dataclass(frozen=True)
class Violation:
    """A statement that does not hold at a step."""

    statement: str
    measured: float
    relation: str
    bound: float
    excess: float

    def told(self) -> str:
        """Which, and by how much."""
        return f"{self.statement}: {self.measured:.10g} {self.relation} {self.bound:.10g}, off by {self.excess:.3g}"


class Audit(Stateful):
    """Both sides of every statement for one run; what has been seen so far is its state.

    Args:
        problem: with its constants.
        update: what is known of the run's optimizer; None for one that is no AlphaGrad.
        statements: *held*, those that hold for this update, or *printed*, the paper's.
        rate: η.
    """

    STATE = (
        *("steps", "square", "slope", "gamma", "gaps", "least_h", "noise", "buffer", "fz", "first", "left", "far"),
        *("violations", "history", "probe"),
    )

    def __init__(self, problem: Problem, update: Update | None, statements: Statements, rate: float) -> None:
        self.problem, self.update, self.statements, self.rate = problem, update, statements, rate
        self.steps = self.violations = 0
        self.square, self.slope, self.gamma, self.least_h = 0.0, math.inf, math.inf, math.inf
        self.gaps = self.noise = 0.0
        self.buffer = np.zeros(problem.n)
        self.first = self.fz = math.nan
        """f(x₁), and f(z_t)."""
        self.left = self.far = -1
        """The step at which the region where L holds was left, and the ball of D; -1 where neither was."""
        probe = np.random.default_rng(0).standard_normal(problem.n)
        self.probe = probe / np.linalg.norm(probe)
        """u of length 1, which a power iteration at each step turns to where f is bent most."""
        self.history: list[dict[str, float]] = []
        """What was logged of each step."""

    @property
    def checks(self) -> bool:
        """Whether there is anything to check."""
        covered = self.update is not None and not self.update.against
        known = self.update is not None and self.update.alpha_of_all is not None
        return known if self.statements == "printed" else covered

    @property
    def behind(self) -> float:
        """m/(1 − m): how far z, of which the descent is stated, lies beyond x, in steps; the paper knows x alone."""
        if self.update is None or not self.checks or self.statements == "printed":
            return 0.0
        return self.update.momentum / (1 - self.update.momentum)

    def step(self, s: Step) -> tuple[dict[str, float], list[Violation]]:
        """Takes in a step: what is logged of it, and the statements that it violates."""
        p, u = self.problem, self.update
        if self.steps == 0:
            self.first = self.fz = s.f
        self.steps += 1
        self.gaps += s.f - p.least
        norm = float(np.linalg.norm(s.gradient))
        row = {
            metrics.OPTIMALITY_GAP: s.f - p.least,
            metrics.FULL_GRAD_NORM: norm,
            metrics.SMOOTHED_NORM: bounds.h(norm, 0.0 if u is None else u.eps),
        }
        self.least_h = min(self.least_h, row[metrics.SMOOTHED_NORM])
        found: list[Violation] = []
        self._region(s, row)
        if self.checks:
            self._smooth(s, found)
            (self._printed if self.statements == "printed" else self._held)(s, norm, row, found)
        self.fz = s.fz
        self.violations += len(found)
        self.history.append(row)
        return row, found

    def _region(self, s: Step, row: dict[str, float]) -> None:
        """Notes where the statements stop to apply."""
        p = self.problem
        if self.left < 0 and not all(p.inside(x) for x in (s.x, s.after, s.z)):
            self.left = self.steps - 1
        if p.x_star is not None:
            row[metrics.DISTANCE] = float(np.linalg.norm(s.x - p.x_star.numpy()))
            if p.D is not None and self.far < 0 and row[metrics.DISTANCE] > p.D:
                self.far = self.steps - 1
        row[metrics.APPLIES] = float(self.left < 0 and self.far < 0)

    def _smooth(self, s: Step, found: list[Violation]) -> None:
        """L and f_inf are what the problem says they are."""
        if self.left >= 0:
            return
        p = self.problem
        moved = float(np.linalg.norm(s.after - s.x))
        turned = float(np.linalg.norm(s.gradient_after - s.gradient))
        size = float(np.linalg.norm(s.gradient)) + p.L * float(np.linalg.norm(s.x))
        _upper(found, "smoothness", turned, p.L * moved, 1e-12 * size)
        bent = float(np.linalg.norm(s.bent))
        _upper(found, "curvature", bent, p.L)
        if bent > 0:
            self.probe = s.bent / bent
        _upper(found, "lower bound of f", p.f_inf, s.f, self._f_rounding(s))

    def _f_rounding(self, s: Step) -> float:
        return 1e-12 * max(abs(s.f), abs(s.f_after), abs(self.first))

    def _rounding(self, s: Step) -> float:
        """What a component of the update, a difference of parameters over η, may be off by."""
        return 4 * bounds.UNIT_ROUNDING * float(max(np.abs(s.x).max(), np.abs(s.after).max())) / self.rate

    def _printed(self, s: Step, norm: float, row: dict[str, float], found: list[Violation]) -> None:
        """As the paper has it: one norm, one α, no momentum, ∇f."""
        assert self.update is not None
        assert self.update.alpha_of_all is not None
        n, moved, off = self.problem.n, (s.x - s.after) / self.rate, self._rounding(s)
        self.square, self.slope = float(n), math.tanh(self.update.alpha_of_all)
        bound = self.slope * row[metrics.SMOOTHED_NORM]
        aligned, square = float(s.gradient @ moved), float(moved @ moved)
        row |= {metrics.LEMMA1: square, metrics.LEMMA1_BOUND: float(n)}
        row |= {metrics.LEMMA2: aligned, metrics.LEMMA2_BOUND: bound}
        _upper(found, "Lemma 1", square, n, 2 * off * math.sqrt(n * square))
        _lower(found, "Lemma 2", aligned, bound, off * norm * math.sqrt(n))
        self._theorems(s, norm, bound, 0.0, Terms(self.problem.L, self.rate, 0.0, n, self.slope), row, found)

    def _held(self, s: Step, norm: float, row: dict[str, float], found: list[Violation]) -> None:
        """What holds for this update, tensor by tensor."""
        u, off = self.update, self._rounding(s)
        assert u is not None
        ends = np.cumsum(u.sizes)[:-1]
        moved = (s.x - s.after) / self.rate
        updates = np.split(moved - u.momentum * self.buffer, ends)
        off *= 1 + u.momentum
        self.buffer = moved
        grads = np.split(s.taken, ends)
        norms = np.array([np.linalg.norm(g) for g in grads])
        by = u.divisors(norms)
        alphas = u.alphas(self.steps - 1, s.kept)
        bends = u.bends(self.steps - 1, alphas, [g / d for g, d in zip(grads, by, strict=True)])
        sums = np.zeros(4)
        for info, bend, g, v, size, d in zip(u.infos, bends, grads, updates, norms, by, strict=True):
            sums += self._tensor(info.name, bend, g, v, float(size), float(d), off, found)
        square = u.square(bends)
        self.square = max(self.square, square)
        noise = float(np.linalg.norm(s.taken - s.gradient))
        row |= {metrics.LEMMA1: sums[0], metrics.LEMMA1_BOUND: sums[1]}
        row |= {metrics.LEMMA2: sums[2], metrics.LEMMA2_BOUND: sums[3]}
        if self.problem.sampling is not None:
            row[metrics.LEMMA2_FULL] = full = float(s.gradient @ np.concatenate(updates))
            spread = off * math.sqrt(self.problem.n) * norm
            _lower(found, "Lemma 2 of ∇f", full, sums[3] - math.sqrt(square) * noise, spread)
        largest = [bounds.largest_of(float(a), float(b)) for a, b in zip(norms, by, strict=True)]
        slope = min(bend.slope(m) for bend, m in zip(bends, largest, strict=True))
        self.slope = min(self.slope, slope)
        self._together(float(np.linalg.norm(s.taken)), sums, slope, min(bend(1.0) for bend in bends), off, found)
        longest = math.sqrt(self.square) / (1 - u.momentum)
        _upper(found, "length of v", float(np.linalg.norm(moved)), longest, off * math.sqrt(self.problem.n))
        terms = Terms(self.problem.L, self.rate, u.momentum, self.square, self.slope)
        self._theorems(s, norm, sums[3], noise, terms, row, found)

    def _together(
        self, size: float, sums: np.ndarray, slope: float, printed: float, off: float, found: list[Violation]
    ) -> None:
        """Lemma 2 of all tensors with one number: c·h(‖g‖) is below their bounds, min φ(1)·h(‖g‖) below ⟨g, g'⟩."""
        assert self.update is not None
        whole = bounds.h(size, self.update.eps)
        _lower(found, "bound of Lemma 2 of all tensors", sums[3], slope * whole)
        _lower(found, "Lemma 2 of all tensors", sums[2], printed * whole, off * math.sqrt(self.problem.n) * size)

    @staticmethod
    def _tensor(
        name: str, bend: Bend, g: np.ndarray, v: np.ndarray, norm: float, by: float, off: float, found: list[Violation]
    ) -> np.ndarray:
        """Lemmas 1 and 2 of one tensor: ‖g'‖² and its bound, ⟨g, g'⟩ and its lower bound."""
        square, aligned = float(v @ v), float(g @ v)
        square_bound = bounds.square_bound(bend, len(g), norm, by)
        lower = bounds.alignment_bound(bend, norm, by)
        upper = bounds.alignment_limit(bend, norm, by, float(np.abs(g).sum()))
        spread = off * math.sqrt(len(g))
        _upper(found, f"Lemma 1 in {name}", square, square_bound, 2 * spread * math.sqrt(square) + spread**2)
        _lower(found, f"Lemma 2 in {name}", aligned, lower, spread * norm)
        _upper(found, f"Lemma 2, upper side, in {name}", aligned, upper, spread * norm)
        return np.array([square, square_bound, aligned, lower])

    def _theorems(
        self,
        s: Step,
        norm: float,
        alignment: float,
        noise: float,
        terms: Terms,
        row: dict[str, float],
        found: list[Violation],
    ) -> None:
        """The descent of this step, and the theorems' bounds so far."""
        p, u, steps = self.problem, self.update, self.steps
        assert u is not None
        self.noise += noise
        row[metrics.GAMMA] = terms.slope * bounds.h(norm, u.eps) / norm if norm > 0 else 0.0
        self.gamma = min(self.gamma, row[metrics.GAMMA])
        if self.left >= 0:
            return
        row |= {metrics.DESCENT: s.fz, metrics.DESCENT_BOUND: terms.descent(self.fz, alignment, noise)}
        rounding, mean = self._f_rounding(s), self.noise / steps
        _upper(found, "descent", s.fz, row[metrics.DESCENT_BOUND], rounding)
        above = self.first - p.f_inf
        row |= {
            metrics.THEOREM2: self.least_h,
            metrics.THEOREM2_BOUND: terms.theorem2(above, steps, mean),
            metrics.THEOREM2_OWN: terms.theorem2_own(above, steps, mean),
        }
        _upper(found, "Theorem 2", self.least_h, row[metrics.THEOREM2_BOUND], rounding)
        if p.convex and p.D is not None and self.far < 0:
            gap = self.first - p.least
            row |= {
                metrics.THEOREM1: self.gaps / steps,
                metrics.THEOREM1_BOUND: terms.theorem1(p.D, gap, self.gamma, steps, mean),
                metrics.THEOREM1_OWN: terms.theorem1_own(p.D, gap, self.gamma, steps, mean),
            }
            _upper(found, "Theorem 1", row[metrics.THEOREM1], row[metrics.THEOREM1_BOUND], rounding)


def _upper(found: list[Violation], statement: str, measured: float, bound: float, rounding: float = 0.0) -> None:
    """``measured ≤ bound``."""
    over = excess(measured, bound, rounding)
    if over:
        found.append(Violation(statement, measured, ">", bound, over))


def _lower(found: list[Violation], statement: str, measured: float, bound: float, rounding: float = 0.0) -> None:
    """``measured ≥ bound``."""
    under = excess(-measured, -bound, rounding)
    if under:
        found.append(Violation(statement, measured, "<", bound, under))
