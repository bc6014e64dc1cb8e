"""`alphagrad tune`: equal spaces and budgets, resuming, pruning, what is recorded."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tiers import long
from tunings import words

from alphagrad.lab.config import compose
from alphagrad.lab.config.build import build
from alphagrad.lab.config.catalogue import options_of
from alphagrad.lab.records.study import is_dead, mark_dead
from alphagrad.lab.store.address import store_uri
from alphagrad.lab.store.connection import open_store
from alphagrad.lab.training.job import assignment_of
from alphagrad.lab.training.runner import run_stack
from alphagrad.lab.tuning import search as tune
from alphagrad.lab.tuning import spaces
from alphagrad.lab.tuning.verdict import spent_trials

optuna = pytest.importorskip("optuna", reason="needs alphagrad[tune]")


def trials_of(root: Path) -> dict[str, list]:
    """Study without its key → its trials as (params, state, value), interrupted ones left out."""
    storage = f"sqlite:///{root / 'tuning.db'}"
    found = {}
    for name in optuna.get_all_study_names(storage):
        spent = spent_trials(optuna.load_study(study_name=name, storage=storage))
        found[name.partition("-")[2]] = [(t.params, t.state.name, t.value) for t in spent]
    return found


def test_every_optimizer_has_a_space_of_one_size(lab):
    with compose.hydra_initialized():
        found = [spaces.space_of(name) for name in options_of("optimizer")]
        spaces.check_equal(found)
        assert {space.shown() for space in found} == {"4 decades × 2 decades × 3 choices"}


@pytest.mark.slow
def test_every_value_of_a_space_can_be_used(lab):
    with compose.hydra_initialized():
        for space in map(spaces.space_of, options_of("optimizer")):
            for corner in space.corners():
                build(compose.compose([f"optimizer={space.optimizer}", *corner]))


@pytest.mark.slow
def test_a_tuning(cli, odd, root, store_runs):
    done = cli(*words(root))
    assert done.status == 0, done.err
    runs = store_runs(root)
    (parent,) = [r for r in runs if r.data.tags.get("alphagrad.kind") == "tuning"]
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == len(runs) - 1 == 2 * 3 * 5
    assert parent.info.status == "FINISHED"
    trials = trials_of(root)
    assert {name: len(spent) for name, spent in trials.items()} == {
        f"{o}-{s}": 5 for o in ("adam", "sgd") for s in range(3)
    }
    # a pruned trial says so; the others have reached their end
    states = [state for spent in trials.values() for _, state, _ in spent]
    pruned = [c for c in children if c.info.status == "KILLED"]
    assert states.count("PRUNED") == len(pruned) > 0
    assert all(c.data.tags["alphagrad.reason"].startswith("pruned at step 1") for c in pruned)
    assert [c.info.status for c in children].count("FINISHED") == states.count("COMPLETE")
    # trial t of study s has one seed under all optimizers, and no other trial has it
    seeds: dict[str, set] = {}
    for child in children:
        seeds.setdefault(child.data.tags["variant"], set()).add(child.data.tags["seed"])
    assert seeds["adam"] == seeds["sgd"]
    assert len(seeds["adam"]) == 15
    summary = json.loads(next(root.rglob("tuning.json")).read_text())
    for verdict in summary["verdicts"]:
        name = verdict["optimizer"]
        bests = [max(v for _, state, v in trials[f"{name}-{s}"] if state == "COMPLETE") for s in range(3)]
        assert verdict["bests"] == pytest.approx(bests)
        assert verdict["median"] == pytest.approx(sorted(bests)[1])
        assert parent.data.metrics[f"tune/{name}/median_best"] == pytest.approx(sorted(bests)[1])
        assert verdict["median"] in [v for spent in trials.values() for p, _, v in spent if p == verdict["settings"]]
    assert "3 searches of 5 trials each" in done.out

    # the same words have nothing left to do; a larger budget adds to it, under the same parent
    assert cli(*words(root)).status == 0
    assert len(store_runs(root)) == len(runs)
    assert cli(*words(root, trials=6)).status == 0
    assert len(store_runs(root)) == len(runs) + 6
    later = trials_of(root)
    assert {name: spent[:5] for name, spent in later.items()} == trials


@pytest.mark.slow
def test_an_interrupted_tuning_ends_as_if_it_had_not_been(cli, odd, root, lab, tmp_path, empty_store, store_runs):
    assert cli(*words(root, 4, 2)).status == 0
    other = tmp_path / "other"
    other.mkdir()
    (other / "mlflow.db").write_bytes(empty_store.read_bytes())
    real, rounds = tune._train, []

    def interrupted(assignments, stack):
        rounds.append(len(assignments))
        if len(rounds) == 3:
            raise KeyboardInterrupt
        return real(assignments, stack)

    lab.setattr(tune, "_train", interrupted)
    assert cli(*words(other, 4, 2)).status == 130
    (parent,) = [r for r in store_runs(other) if r.data.tags.get("alphagrad.kind") == "tuning"]
    assert parent.info.status == "KILLED"
    assert cli(*words(other, 4, 2)).status == 0
    assert rounds == [4] * 5  # two whole rounds, one that was lost, two more
    assert trials_of(other) == trials_of(root)
    (parent,) = [r for r in store_runs(other) if r.data.tags.get("alphagrad.kind") == "tuning"]
    assert parent.info.status == "FINISHED"


@dataclass(frozen=True)
class EndAt:
    """A watch that has had enough at a step."""

    step: int

    def __call__(self, step, values):
        return "enough" if step >= self.step else None


@pytest.mark.long
def test_pruned_runs_leave_nothing_and_do_not_go_on(cli, odd, root, composed, store_runs):
    """Of a stack of two, then of a run alone: states and locks are gone, and the runs have ended for good."""
    for number, count in enumerate((2, 1)):
        folders = [root / f"{number}-{seed}" for seed in range(count)]
        assignments = []
        for seed, folder in enumerate(folders):
            settings = ("recipe=odd", "optimizer=adam", f"seed={10 * number + seed}", f"output_root={root}")
            settings += ("recipe.total_steps=4",)
            plain = assignment_of(composed(*settings), settings, folder)
            assignments.append(replace(plain, pruner=EndAt(2)))
        outcomes = run_stack(assignments)
        assert [(o.failure, o.life.pruned) for o in outcomes] == [("pruned at step 2: enough", True)] * count
        for folder in folders:
            assert {file.name for file in folder.iterdir()} == {"config.yaml", "run_id"}
    assert not list(root.glob("stack-*"))
    assert {run.info.status for run in store_runs(root)} == {"KILLED"}
    resumed = cli("resume", str(folders[0]), "--output-root", str(root))
    assert resumed.status == 0, resumed.err
    assert "was pruned at step 2: enough" in resumed.out
    assert len(store_runs(root)) == 3


@pytest.mark.long
def test_nothing_is_pruned_once_its_training_is_over(odd, root, composed, tiny, store_runs):
    """Whether a recipe counts its steps from 1 or, as the shipped ones, from 0: the last evaluation ends no run."""
    for name, settings, last in (("odd", ("recipe=odd",), 2), ("dqn", (*tiny, "recipe.eval_every=60"), 119)):
        words = (*settings, "optimizer=adam", f"output_root={root}")
        plain = assignment_of(composed(*words), words, root / name)
        (outcome,) = run_stack([replace(plain, pruner=EndAt(last))])
        assert (outcome.failure, outcome.life.pruned) == (None, False)
    (outcome,) = run_stack([replace(plain, folder=str(root / "early"), pruner=EndAt(59))])
    assert outcome.failure == "pruned at step 59: enough"
    assert sorted(run.info.status for run in store_runs(root)) == ["FINISHED", "FINISHED", "KILLED"]


@pytest.mark.parametrize("extra", long((), ("--no-pruning",)))
def test_a_tuning_of_which_no_trial_finished_fails_and_says_why(cli, odd, root, store_runs, extra):
    done = cli(*words(root, 1, 2, "adam,sgd"), "recipe.diverging=[0,100000]", *extra)
    assert done.status == 1
    assert "–" not in done.out
    (line,) = [line for line in done.err.splitlines() if "no trial of the tuning finished" in line]
    assert "(4 failed); the last failed of diverged at step 2: on demand" in line
    (parent,) = [r for r in store_runs(root) if r.data.tags.get("alphagrad.kind") == "tuning"]
    assert parent.info.status == "FAILED"


@pytest.mark.long
def test_failed_trials_are_spent_and_do_not_win(cli, odd, root):
    # the only trial of study 1 diverges
    done = cli(*words(root, 1, 2, "sgd"), "recipe.diverging=[100000]", "stack.max_runs=1")
    assert done.status == 0, done.err
    summary = json.loads(next(root.rglob("tuning.json")).read_text())
    for verdict in summary["verdicts"]:
        assert verdict["counts"] == {"finished": 1, "pruned": 0, "failed": 1}
        assert verdict["bests"][1] is None
        assert verdict["median"] is None  # of two studies the worse one
    assert "diverged at step 2: on demand" in done.out


@pytest.mark.long
def test_a_tuning_whose_process_is_gone_is_closed_and_goes_on(cli, odd, root, store_runs):
    def parent():
        (found,) = [r for r in store_runs(root) if r.data.tags.get("alphagrad.kind") == "tuning"]
        return found

    assert cli(*words(root, 1, 1, "sgd")).status == 0
    client = open_store(store_uri(None, root))
    client.update_run(parent().info.run_id, status="RUNNING")  # as SIGKILL leaves it
    assert is_dead(client, parent())
    mark_dead(client, [parent()])
    assert parent().info.status == "KILLED"
    assert cli(*words(root, 2, 1, "sgd")).status == 0
    assert parent().info.status == "FINISHED"
    assert len(store_runs(root)) == 1 + 2


@pytest.mark.long
def test_a_tuning_whose_run_was_deleted_gets_another(cli, odd, root, store_runs):
    def parents():
        return [r.info.run_id for r in store_runs(root) if r.data.tags.get("alphagrad.kind") == "tuning"]

    assert cli(*words(root, 1, 1, "sgd")).status == 0
    (first,) = parents()
    open_store(store_uri(None, root)).delete_run(first)
    assert cli(*words(root, 2, 1, "sgd")).status == 0
    (second,) = parents()
    assert second != first
    assert len(trials_of(root)) == 1  # of the one study, which went on
    assert [len(trials) for trials in trials_of(root).values()] == [2]


@pytest.mark.long
def test_two_at_once_are_refused(cli, odd, root, lab):
    def again(assignments, stack):
        raise RuntimeError(f"inner status {cli(*words(root, 1, 1, 'sgd')).status}")

    lab.setattr(tune, "_train", again)
    failed = cli(*words(root, 1, 1, "sgd"))
    assert failed.status == 1
    assert "inner status 2" in failed.err
