"""`alphagrad tune`: equal spaces and budgets, resuming, pruning, what is recorded."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tiers import long

from alphagrad.common.errors import ConfigError
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


def words(root: Path, trials: int = 5, studies: int = 3, optimizers: str = "adam,sgd") -> list[str]:
    budget = ["--trials", str(trials), "--studies", str(studies)]
    return ["tune", "recipe=odd", f"optimizer={optimizers}", *budget, f"output_root={root}", "stack.processes=1"]


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
    assert "3 studies of 5 trials each" in done.out

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


@pytest.mark.parametrize("extra", [(), *long(("--no-pruning",))])
def test_a_tuning_of_which_no_trial_finished_fails_and_says_why(cli, odd, root, store_runs, extra):
    done = cli(*words(root, 1, 2, "adam,sgd"), "recipe.diverging=[0,100000]", *extra)
    assert done.status == 1
    assert "–" not in done.out
    (line,) = [line for line in done.err.splitlines() if "no trial of the tuning finished" in line]
    assert "(4 failed); the last failed of diverged at step 2: on demand" in line
    (parent,) = [r for r in store_runs(root) if r.data.tags.get("alphagrad.kind") == "tuning"]
    assert parent.info.status == "FAILED"


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


def test_two_at_once_are_refused(cli, odd, root, lab):
    def again(assignments, stack):
        raise RuntimeError(f"inner status {cli(*words(root, 1, 1, 'sgd')).status}")

    lab.setattr(tune, "_train", again)
    failed = cli(*words(root, 1, 1, "sgd"))
    assert failed.status == 1
    assert "inner status 2" in failed.err


@pytest.mark.parametrize(
    ("extra", "needed"),
    [
        (["--trials", "0"], ("--trials=0", "at least 1")),
        (["--studies", "-1"], ("--studies=-1", "at least 1")),
        (["optimizer.lr=0.1"], ("optimizer.lr", "searched")),
        (["seed=1,2"], ("seed=1,2", "only optimizer")),
        (["optimizer=nope"], ("optimizer=nope",)),
        (["recipe.total_steps=0.5"], ("recipe.total_steps=0.5",)),
    ],
)
def test_wrong_words_are_one_line(cli, odd, tmp_path, extra, needed):
    failed = cli(*words(tmp_path / "out"), *extra)
    assert failed.status == 2
    assert len(failed.err.splitlines()) == 1, failed.err
    for text in needed:
        assert text in failed.err
    assert not (tmp_path / "out" / "tuning.db").exists()


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("optimizer.lr: {low: 1.0e-5, high: 1.0e-1}", ("tune/sgd.yaml", "4 decades", "one size")),
        ("optimizer.lr: {low: 1.0e-1, high: 1.0e-5}", ("tune/sgd.yaml", "low must be less")),
        ("optimizer.lr: 3", ("tune/sgd.yaml", "optimizer.lr")),
        ("optimizer.momentum: {choices: [0.9]}", ("tune/sgd.yaml", "optimizer.momentum.choices")),
        ("optimizer.nope: {low: 0.1, high: 1.0}", ("optimizer.nope", "no such setting")),
    ],
)
def test_wrong_spaces_are_one_line(cli, odd, lab, tmp_path, text, needed):
    folder = tmp_path / "conf"
    (folder / "tune").mkdir(parents=True)
    (folder / "recipe").mkdir()
    (folder / "recipe/odd.yaml").write_text((odd / "recipe/odd.yaml").read_text())
    (folder / "tune/sgd.yaml").write_text(text + "\n")
    lab.setenv("ALPHAGRAD_CONF", str(folder))
    failed = cli(*words(tmp_path / "out", optimizers="sgd,adam"))
    assert failed.status == 2
    assert len(failed.err.splitlines()) == 1, failed.err
    for part in needed:
        assert part in failed.err
    assert not (tmp_path / "out" / "tuning.db").exists()


@pytest.mark.long
def test_a_metric_that_looks_mistyped_is_doubted_before_anything_is_trained(cli, odd, lab, root, capfd):
    said = []
    lab.setattr(tune, "_train", lambda *_: said.append(capfd.readouterr().err) or interrupt())

    def interrupt():
        raise KeyboardInterrupt

    for metric in ("eval/retrun", "eval/return", "mine"):
        assert cli(*words(root, 1, 1, "sgd"), "--metric", metric).status == 130
    assert "did you mean eval/return?" in said[0]
    assert not any("mean" in text for text in said[1:])


def test_without_optuna(cli, lab, tmp_path):
    lab.setattr(tune, "find_spec", lambda package: None)
    failed = cli("tune", f"output_root={tmp_path / 'out'}")
    assert failed.status == 2
    assert failed.err == "alphagrad: alphagrad tune: needs the package optuna; pip install 'alphagrad[tune]'\n"


def test_space_sizes():
    small = spaces.Space("a", {"x": spaces.Range(low=1e-3, high=1.0), "y": spaces.Choices(choices=[1, 2])})
    same = spaces.Space("b", {"u": spaces.Choices(choices=["p", "q"]), "v": spaces.Range(low=2.0, high=2000.0)})
    more = spaces.Space("c", {**same.settings, "w": spaces.Choices(choices=[0, 1])})
    spaces.check_equal([small, same])
    with pytest.raises(ConfigError, match=r"tune/c.yaml: 3 decades × 2 choices × 2 choices, but tune/a.yaml has 3 dec"):
        spaces.check_equal([small, same, more])


def test_a_metric_that_the_recipe_never_logs_is_refused(cli, tmp_path):
    pytest.importorskip("optuna")
    told = cli("tune", "optimizer=adam", "--metric", "eval/accuracy", f"output_root={tmp_path / 'out'}")
    assert (told.status, len(told.err.splitlines())) == (2, 1)
    assert told.err.startswith("alphagrad: --metric=eval/accuracy: recipe dqn_cartpole has no such metric; it has ")
    assert not list((tmp_path / "out").glob("*"))


def test_a_metric_that_a_recipe_never_logs_is_refused_before_anything_is_written(cli, tmp_path):
    words = ("recipe=dqn_cartpole", "optimizer=adam", f"output_root={tmp_path / 'out'}", "--metric", "eval/retrun")
    told = cli("tune", *words)
    assert (told.status, len(told.err.splitlines())) == (2, 1)
    assert "--metric=eval/retrun" in told.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("word", ["hydra/launcher=stacked", "hydra.run.dir=x", "hydra.sweep.dir=x"])
def test_settings_that_a_tuning_has_no_use_for_are_refused(cli, tmp_path, word):
    told = cli("tune", "recipe=dqn_cartpole", "optimizer=adam", word, f"output_root={tmp_path / 'out'}")
    assert (told.status, len(told.err.splitlines())) == (2, 1)
    assert f"{word}: a tuning uses no launcher" in told.err
    assert not (tmp_path / "out").exists()
