"""Runs of the recipe ``theory`` without the laboratory."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import yaml
from alphagrad.recipes.problems.problem import Problem
from alphagrad.recipes.problems.settings import ProblemSettings, build_problem
from alphagrad.recipes.theory import Theory, TheorySettings

from alphagrad import AlphaGrad
from alphagrad.harness.driver import OptimizerSpec
from alphagrad.harness.stack import RunSpec, RunStack

CONF = Path(__file__).resolve().parents[2] / "conf"
PROBLEMS = sorted(file.stem for file in (CONF / "problem").glob("*.yaml"))


class Notebook:
    """A log in memory."""

    observation, observe_every = None, 0

    def __init__(self):
        self.rows, self.ended, self.files = {}, {}, {}

    def metrics(self, run, step, values):
        self.rows.setdefault(run, {}).setdefault(step, {}).update(values)

    def failed(self, run, step, reason):
        self.ended[run] = (step, reason)

    diverged = failed

    def restore(self, parts):
        return 0

    def progress(self, step, shown):
        pass

    def checkpoint(self, step, parts, result):
        pass

    def artifact(self, run, name, write):
        self.files[run, name] = write

    def column(self, metric, run=0):
        """The values of a metric over the steps."""
        return [row[metric] for _, row in sorted(self.rows[run].items()) if metric in row]


def settings_of(problem: str, **changed) -> ProblemSettings:
    """The shipped settings of a problem, some of them changed."""
    return ProblemSettings(**{**yaml.safe_load((CONF / f"problem/{problem}.yaml").read_text()), **changed})


def problem_of(problem: str, **changed) -> Problem:
    return build_problem(settings_of(problem, **changed))


def recipe(problem: ProblemSettings | str, **changed) -> Theory:
    """The recipe with its shipped settings, some of them changed."""
    shipped = yaml.safe_load((CONF / "recipe/theory.yaml").read_text())["recipe"]
    del shipped["_target_"]
    own = settings_of(problem) if isinstance(problem, str) else problem
    return Theory(TheorySettings(**{**shipped, "problem": own, "figure": False, **changed}))


def alphagrad(name: str = "alphagrad", lr: float = 0.01, **settings) -> OptimizerSpec:
    return OptimizerSpec(name, partial(AlphaGrad, lr=lr, **settings), "batch_dims")


def audited(problem: ProblemSettings | str, *specs: OptimizerSpec, seed: int = 0, **changed) -> Notebook:
    """A run for each optimizer, 40 steps unless told otherwise; what was logged."""
    log = Notebook()
    theory = recipe(problem, **{"total_steps": 40, **changed})
    log.results = theory.train(RunStack([RunSpec(seed, spec) for spec in specs]), log)
    return log
