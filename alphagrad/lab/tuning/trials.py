"""Optuna's studies and trials, as a tuning uses them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from alphagrad.lab.tuning.verdict import TuningPlan, spent_trials

STARTUP_TRIALS = 4
"""Trials of a study before one is pruned: a median of fewer says little."""


@dataclass(frozen=True)
class MedianPruner:
    """Ends a trial that is below the median of its study at the same step; works in any process."""

    storage: str
    study: str
    trial: int
    plan: TuningPlan

    def __call__(self, step: int, values: Any) -> str | None:
        if self.plan.metric not in values:
            return None
        trial = trial_of(self.storage, self.study, self.trial, self.plan)
        trial.report(float(values[self.plan.metric]), step)
        return "worse than the study's median" if trial.should_prune() else None


@lru_cache
def trial_of(storage: str, study: str, trial: int, plan: TuningPlan) -> Any:
    """A trial of a study, in any process."""
    from optuna.trial import Trial

    return Trial(study_of(storage, study, plan), trial)


def study_of(storage: str, name: str, plan: TuningPlan) -> Any:
    """A new study, or what the storage has of it."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=storage,
        study_name=name,
        direction="minimize" if plan.minimize else "maximize",
        pruner=optuna.pruners.MedianPruner(STARTUP_TRIALS) if plan.prune else optuna.pruners.NopPruner(),
        load_if_exists=True,
    )


def sampler_of(plan: TuningPlan, seed: int) -> Any:
    """Seeded anew for each trial, so that an interrupted tuning draws what an uninterrupted one would have drawn."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}[plan.sampler](seed=seed)


def has_trials_left(study: Any, plan: TuningPlan) -> bool:
    """Whether a study's budget is not spent."""
    return len(spent_trials(study)) < plan.trials


def drop_interrupted(study: Any) -> None:
    """Trials that an interruption cut off do not count; they are drawn again."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)):
        study.tell(trial.number, state=TrialState.FAIL)
