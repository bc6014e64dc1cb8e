"""`alphagrad tune`: each optimizer searched alike, and judged by the median of its searches' best trials.

The rule is AlgoPerf's for external tuning (Dahl et al. 2023): every optimizer gets the same number of trials in
a search space of the same size, in several independent searches, so that a lucky draw does not decide. Trial t of
search s has the same seed under every optimizer.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from alphagrad.common.errors import ConfigError, StorageLost
from alphagrad.common.files import check_lock, write_whole
from alphagrad.common.interrupts import closing_runs_on_signals
from alphagrad.common.words import cut, say
from alphagrad.harness import metrics
from alphagrad.lab.config import compose
from alphagrad.lab.config.build import JobSettings, StackSettings, build, check_metric
from alphagrad.lab.config.catalogue import explaining
from alphagrad.lab.config.overrides import HYDRA, parsed
from alphagrad.lab.config.sweep import jobs_of
from alphagrad.lab.launching.apart import run_apart
from alphagrad.lab.launching.plan import check_stacks, stacks_of
from alphagrad.lab.launching.study import as_parent
from alphagrad.lab.launching.workers import run_stacks
from alphagrad.lab.records.folder import forget
from alphagrad.lab.records.lifecycle import life_of
from alphagrad.lab.records.provenance import provenance
from alphagrad.lab.records.run import Tracker, reason_of, tracker_of
from alphagrad.lab.records.search import FOLDER, recorded
from alphagrad.lab.records.study import KIND, LOCK_TAG
from alphagrad.lab.store.address import masked, store_uri
from alphagrad.lab.store.connection import check_places
from alphagrad.lab.training.job import Assignment, Outcome, assignment_of
from alphagrad.lab.tuning.spaces import check_equal, space_of
from alphagrad.lab.tuning.trials import MedianPruner, drop_interrupted, has_trials_left, sampler_of, study_of
from alphagrad.lab.tuning.verdict import FAILURE, Contender, TuningPlan, Verdict, judge, spent_trials


def tune(overrides: Sequence[str], plan: TuningPlan) -> tuple[list[Verdict], TuningPlan]:
    """Runs what is missing of a tuning, and judges; the same words go on with one that was interrupted.

    Returns:
        The verdicts, and the plan with what the recipe's objective filled in.

    Raises:
        ConfigError: a setting, space or budget is wrong, or the tuning is running already.
    """
    plan.check()
    if find_spec("optuna") is None:
        raise ConfigError("alphagrad tune: needs the package optuna; pip install 'alphagrad[tune]'")
    with compose.hydra_initialized():
        contenders, settings = checked_contenders(overrides)
        config = contenders[0].config
        recipe = build(config).recipe
        plan = plan.of(recipe.objective)
        check_metric(f"--metric={cut(plan.metric)}", plan.metric, config, recipe)
        runs, processes = settings.stack.max_runs, settings.stack.processes
        each = min(plan.studies, runs * processes)  # more do not train at a time
        check_stacks([c.config for c in contenders for _ in range(each)], runs, processes)
        _doubt(plan.metric)
        # last, since it creates folders
        check_places(settings.tracking.uri, settings.output_root, settings.tracking.artifacts)
        root = Path(settings.output_root).expanduser().resolve()
        key = key_of(contenders, plan, masked(store_uri(settings.tracking.uri, root)))
        storage = f"sqlite:///{root / 'tuning.db'}"
        check_lock(place := root / f".tuning-{key}.lock")
        lock = FileLock(place)
        try:
            with lock.acquire(timeout=0), closing_runs_on_signals():
                return _tune(contenders, plan, settings, key, storage, root, lock.lock_file), plan
        except Timeout as error:
            raise ConfigError(f"output_root={settings.output_root}: this very tuning is running already") from error


def _doubt(metric: str) -> None:
    """Says so if a metric looks mistyped; only the first trials show whether a recipe of one's own reports it."""
    known = [name for name in vars(metrics).values() if isinstance(name, str) and "/" in name and " " not in name]
    near = difflib.get_close_matches(metric, known, n=1)
    if metric not in known and near:
        say(f"alphagrad: --metric={metric}: no recipe here reports it; did you mean {near[0]}?", err=True)


def checked_contenders(overrides: Sequence[str]) -> tuple[list[Contender], JobSettings]:
    """The optimizers to compare, every space tried at its corners; and the settings they share."""
    contenders: list[Contender] = []
    for word in parsed(overrides):
        if word.key_or_group.startswith(HYDRA):
            raise ConfigError(f"{cut(word.input_line)}: a tuning uses no launcher and has its own folder; see stack.*")
    for job in jobs_of(overrides, announce=True):
        config = compose.compose(job)
        name = str(config.optimizer.name)
        if any(c.name == name for c in contenders):
            raise ConfigError(f"{' '.join(overrides)}: a tuning compares optimizers; only optimizer may have several")
        space = space_of(name)
        fixed = sorted(set(space.settings) & {o.partition("=")[0] for o in job})
        if fixed:
            raise ConfigError(f"{fixed[0]}: is searched in tune/{name}.yaml, so it cannot be set as well")
        for corner in space.corners():
            with explaining(job):
                build(compose.compose([*job, *corner]))
        contenders.append(Contender(name, job, space, config))
    if not contenders:
        raise ConfigError(f"{' '.join(overrides)}: a continuous range has no list of values")
    check_equal([c.space for c in contenders])
    settings = build(contenders[0].config).settings
    return contenders, settings


def key_of(contenders: Sequence[Contender], plan: TuningPlan, uri: str) -> str:
    """What identifies a tuning; the budget is left out, so that it can be raised."""
    told: list[Any] = [uri, plan.metric, plan.minimize, plan.sampler, plan.prune]
    told += [[compose.job_key(c.config), c.space.plain()] for c in contenders]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


def _tune(
    contenders: list[Contender],
    plan: TuningPlan,
    settings: JobSettings,
    key: str,
    storage: str,
    root: Path,
    lock: str,
) -> list[Verdict]:
    """Searches until every search has its trials, and judges; all under one parent run in the store.

    Args:
        contenders: the optimizers, each with its space.
        plan: how many searches and trials, and by what they are judged.
        settings: what all trials share: where they are recorded, how many train together.
        key: of the tuning; its searches in ``storage`` and its folder bear it, so that the same command goes on.
        storage: the address of Optuna's database, which knows a search as a study.
        root: the folder of all output.
        lock: the lock's file, held while this process is at it.

    Raises:
        RuntimeError: no trial finished; what was written stays.
    """
    studies = {
        (c.name, number): study_of(storage, f"{key}-{c.name}-{number}", plan)
        for c in contenders
        for number in range(plan.studies)
    }
    for study in studies.values():
        drop_interrupted(study)
    first = next(iter(studies.values()))
    tracker = tracker_of(settings.tracking, root)
    name = "tune " + " ".join(c.name for c in contenders)
    folder = root / "tunings" / key
    # the lock tells others, as a study's does, that a tuning left RUNNING is dead
    tags = {**provenance("tune"), KIND: "tuning", FOLDER: str(folder), LOCK_TAG: lock}
    begun = first.user_attrs.get("run_id")
    known = recorded(tracker.client, begun) if begun and isinstance(tracker, Tracker) else None
    with tracker.run(name, {}, tags, resume=begun if known is not None and not life_of(known).taken_back else None):
        first.set_user_attr("run_id", tracker.run_id)
        with as_parent(tracker):
            while round_ := [
                (c, n) for c in contenders for n in range(plan.studies) if has_trials_left(studies[c.name, n], plan)
            ]:
                _run_round(round_, studies, plan, settings, storage, folder)
        verdicts = [judge(c, [studies[c.name, n] for n in range(plan.studies)], plan) for c in contenders]
        reached = {f"tune/{v.contender.name}/median_best": v.median for v in verdicts if v.median is not None}
        tracker.metrics(plan.trials, reached)
        summary = folder / "tuning.json"
        summary.parent.mkdir(parents=True, exist_ok=True)
        write_whole(summary, json.dumps({"plan": vars(plan), "verdicts": [v.plain() for v in verdicts]}, indent=2))
        tracker.artifact(summary)
        _check_finished(verdicts, list(studies.values()))
    return verdicts


def _check_finished(verdicts: Sequence[Verdict], studies: Sequence[Any]) -> None:
    """Raises ``RuntimeError`` where no trial finished, so that there is nothing to compare."""
    counts = {name: sum(v.counts[name] for v in verdicts) for name in verdicts[0].counts}
    if counts["finished"]:
        return
    reasons = [t.user_attrs[FAILURE] for study in studies for t in spent_trials(study) if FAILURE in t.user_attrs]
    last = f"; the last failed of {reasons[-1]}" if reasons else ""
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    raise RuntimeError(f"no trial of the tuning finished, there is nothing to compare ({told}){last}")


def _run_round(
    round_: list[tuple[Contender, int]],
    studies: dict[tuple[str, int], Any],
    plan: TuningPlan,
    settings: JobSettings,
    storage: str,
    folder: Path,
) -> None:
    """One more trial of each search, trained together: they differ in seed and optimizer alone."""
    trials, assignments = [], []
    for contender, number in round_:
        study = studies[contender.name, number]
        spent = len(spent_trials(study))
        study.sampler = sampler_of(plan, 1000 * number + spent)
        trial = study.ask()
        drawn = [f"{s}={d.suggest(trial, s)}" for s, d in contender.space.settings.items()]
        # the job's own seed starts the count
        overrides = [o for o in contender.overrides if not o.startswith("seed=")]
        overrides += [*drawn, f"seed={contender.config.seed + 100_000 * number + spent}"]
        place = folder / f"{contender.name}-study{number}-trial{spent}"
        forget(place)  # a trial that was cut off is trained anew, so that it reports to the pruner all it did
        plain = assignment_of(compose.compose(overrides), drawn, place)
        pruner = MedianPruner(storage, study.study_name, trial._trial_id, plan) if plan.prune else None
        title = plain.title.replace(contender.name, f"{contender.name} search={number} trial={spent}", 1)
        assignments.append(replace(plain, title=title, pruner=pruner))
        trials.append((study, trial))
    outcomes = _train(assignments, settings.stack)
    for (study, trial), assignment, outcome in zip(trials, assignments, outcomes, strict=True):
        _tell(study, trial, assignment, outcome, plan)


def _train(assignments: list[Assignment], stack: StackSettings) -> list[Outcome]:
    """How each ended; with one process, it is this one, which saves short trials its start."""
    if stack.processes > 1:
        return run_stacks(assignments, stack.max_runs, stack.processes)
    outcomes: dict[int, Outcome] = {}
    for members in stacks_of(assignments, stack.max_runs, 1):
        try:
            results = run_apart([assignments[n] for n in members])
        except StorageLost:
            raise  # no fault of the trials, which can go on
        except Exception as error:
            results = [Outcome.failed(reason_of(error))] * len(members)
        outcomes.update(zip(members, results, strict=True))
    return [outcomes[number] for number in range(len(assignments))]


def _tell(study: Any, trial: Any, assignment: Assignment, outcome: Outcome, plan: TuningPlan) -> None:
    from optuna.trial import TrialState

    trial.set_user_attr("folder", assignment.folder)
    if outcome.life.pruned:
        study.tell(trial, state=TrialState.PRUNED)
    elif outcome.life.failed:
        trial.set_user_attr(FAILURE, outcome.life.reason)
        study.tell(trial, state=TrialState.FAIL)
    elif not outcome.life.finished:
        study.tell(trial, state=TrialState.FAIL)  # it was stopped: drawn again, at no cost
    elif plan.metric in outcome.metrics:
        study.tell(trial, outcome.metrics[plan.metric])
    else:
        raise ConfigError(f"--metric={plan.metric}: runs have none; there are {', '.join(sorted(outcome.metrics))}")
    said = f"{plan.metric} {outcome.metrics[plan.metric]:.4g}" if outcome.failure is None else outcome.failure
    say(f"{assignment.title}: {said}")
