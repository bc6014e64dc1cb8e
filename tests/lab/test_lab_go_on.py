"""`alphagrad resume`: what is gone on with, and what it goes on from."""

from __future__ import annotations

import shutil
from itertools import chain
from pathlib import Path

import pytest
import torch
from stopped import EVERY, MORE, OPTIMIZERS, assert_same, gone_on, interrupt
from tiers import one_in

from alphagrad.lab.config.build import build
from alphagrad.lab.launching.apart import run_apart
from alphagrad.lab.records.folder import run_id_of, stack_of, write_members
from alphagrad.lab.records.lifecycle import REASON
from alphagrad.lab.store.address import store_uri
from alphagrad.lab.store.connection import open_store
from alphagrad.lab.training.job import assignment_of


def points(root: Path, run_id: str) -> dict[str, list[tuple[int, float]]]:
    client = open_store(store_uri(None, root))
    names = [name for name in client.get_run(run_id).data.metrics if not name.startswith(("time/", "cost/"))]
    return {n: sorted((p.step, p.value) for p in client.get_metric_history(run_id, n)) for n in names}


@pytest.mark.parametrize("words", one_in(4, [*((f"optimizer={name}",) for name in OPTIMIZERS), *MORE]), ids=" ".join)
def test_every_optimizer_goes_on_bit_for_bit(composed, tiny, words):
    """Half-way through its updates, in a stack of two."""
    job = build(composed(*words, *tiny, "recipe.compile=false", "recipe.eval_every=0", "recipe.train_every=2"))
    gone_on(job, 70)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["dqn_cartpole", "ppo_halfcheetah", "td3_hopper"])
def test_compiled_runs_go_on_bit_for_bit(cli, at, root, store_runs, recipe):
    from test_lab_resume import SHORT

    words = (f"recipe={recipe}", "optimizer=alphagrad", *SHORT[recipe], "recipe.compile=true", f"output_root={root}")
    words += ("recipe.eval_episodes=1", "checkpoint.every_steps=128")
    folders = [root / "whole", root / "broken"]
    assert cli("run", *words, f"hydra.run.dir={folders[0]}").status == 0
    at(256, interrupt)
    assert cli("run", *words, f"hydra.run.dir={folders[1]}").status == 130
    assert cli("resume", str(folders[1])).status == 0
    a, b = store_runs(root)
    assert points(root, a.info.run_id) == points(root, b.info.run_id)
    assert_same(*(torch.load(folder / "checkpoint.pt", weights_only=True) for folder in folders))


@pytest.mark.parametrize("named", ["folder", "id"])
@pytest.mark.long
def test_a_run_is_named_by_folder_or_by_id(cli, at, root, tiny, store_runs, named):
    folder = root / "run"
    at(70, interrupt)
    stopped = cli("run", *tiny, *EVERY, f"output_root={root}", f"hydra.run.dir={folder}", "checkpoint.keep_last=3")
    assert stopped.status == 130
    assert [file.name for file in sorted(folder.glob("state-*"))] == [f"state-{n:012d}.pt" for n in (50, 60, 70)]
    (run,) = store_runs(root)
    assert run.info.status == "KILLED"
    what = str(folder) if named == "folder" else run.info.run_id[:9]
    resumed = cli("resume", what, "--output-root", str(root))
    assert resumed.status == 0, resumed.err
    (after,) = store_runs(root)
    assert (after.info.run_id, after.info.status) == (run.info.run_id, "FINISHED")
    assert str(folder) in resumed.out
    assert not list(folder.glob("state-*"))
    again = cli("resume", what, "--output-root", str(root))
    assert (again.status, "is finished" in again.out) == (0, True)


@pytest.mark.parametrize("best_is", ["max", "min"])
@pytest.mark.long
def test_the_best_model_is_kept(cli, at, root, tiny, store_runs, best_is):
    """Over an interruption: the model of the step where the metric was best, and in the store as well."""
    folder = root / "run"
    words = (*tiny, *EVERY, "recipe.eval_every=20", f"output_root={root}", f"hydra.run.dir={folder}")
    words += ("checkpoint.best=eval/return", f"checkpoint.best_is={best_is}", "optimizer.lr=0.05")
    at(90, interrupt)
    assert cli("run", *words).status == 130
    assert cli("resume", str(folder)).status == 0
    (run,) = store_runs(root)
    evaluated = points(root, run.info.run_id)["eval/return"]
    assert len(evaluated) == 6
    value = (max if best_is == "max" else min)(v for _, v in evaluated)
    kept = torch.load(folder / "best.pt", weights_only=True)
    assert kept["eval/return"] == value
    step = next(s for s, v in evaluated if v == value)  # the first of equals
    assert kept["steps"] == step + 1
    client = open_store(store_uri(None, root))
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"best.pt", "checkpoint.pt", "config.yaml"}


@pytest.mark.long
def test_a_member_resumes_its_stack(odd, cli, composed, at, root, store_runs):
    jobs = []
    for seed in range(3):
        words = ("recipe=odd", "optimizer=sgd", "recipe.total_steps=6", f"seed={seed}", "checkpoint.every_steps=1")
        jobs.append(assignment_of(composed(*words, f"output_root={root}"), words, root / str(seed)))
    at(4, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_apart(jobs)
    assert len(stack_of(root / "1")[1]) == 3
    resumed = cli("resume", str(root / "1"), "--output-root", str(root))
    assert resumed.status == 0, resumed.err
    runs = store_runs(root)
    assert [(run.info.status, run.data.metrics["resumed"]) for run in runs] == [("FINISHED", 4)] * 3


@pytest.mark.long
def test_a_finished_member_of_a_stack_is_not_trained_again(odd, cli, composed, at, root, store_runs):
    """A process that is killed while its runs are being closed leaves some finished and others not."""
    words = ("recipe=odd", "optimizer=sgd", "recipe.total_steps=6", "checkpoint.every_steps=1", f"output_root={root}")
    jobs = [assignment_of(composed(*words, f"seed={seed}"), words, root / str(seed)) for seed in range(3)]
    at(4, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_apart(jobs)
    client = open_store(store_uri(None, root))
    ended = run_id_of(root / "1")
    client.delete_tag(ended, REASON)
    client.set_terminated(ended, "FINISHED", end_time=12345)
    resumed = cli("resume", str(root / "0"), "--output-root", str(root))
    assert resumed.status == 0, resumed.err
    runs = store_runs(root)
    assert [run.info.status for run in runs] == ["FINISHED"] * 3
    assert {run.data.tags["seed"]: run.data.metrics.get("resumed") for run in runs} == {"0": 4, "1": None, "2": 4}
    assert client.get_run(ended).info.end_time == 12345


@pytest.mark.long
def test_a_stack_that_is_over_holds_nobody(odd, cli, composed, root, store_runs):
    """Of a process that was killed once its runs were closed: the one that diverged is trained anew, and it alone."""
    words = ("recipe=odd", "optimizer=sgd", "recipe.total_steps=6", "recipe.diverging=[0]", f"output_root={root}")
    folders = [root / str(seed) for seed in range(3)]
    run_apart([assignment_of(composed(*words, f"seed={s}"), words, folders[s]) for s in range(3)])
    before = {run.info.run_id: run.info.end_time for run in store_runs(root)}
    (root / "stack-0e0e0e0e").mkdir()
    write_members(root / "stack-0e0e0e0e", [(f, "a title", run_id_of(f)) for f in folders], folders)
    (root / "stack-0e0e0e0e/state-000000000006.pt").touch()
    resumed = cli("resume", str(folders[0]), "--output-root", str(root))
    assert resumed.status == 1
    after = {run.info.run_id: run for run in store_runs(root)}
    assert {id: after[id].info.end_time for id in before} == before
    assert [after[id].data.tags["seed"] for id in after.keys() - before] == ["0"]
    assert not (root / "stack-0e0e0e0e").exists()


@pytest.mark.long
@pytest.mark.parametrize("named", ["folder", "id"])
def test_a_whole_study(cli, lab, at, root, store_runs, odd, tmp_path, named):
    """From another folder than it was started in."""
    lab.chdir(tmp_path)
    words = ("recipe=odd", "recipe.total_steps=6", "seed=range(3)", "checkpoint.every_steps=1")
    at(4, interrupt)
    assert cli("run", "-m", *words, f"output_root={root.name}").status == 130
    (study,) = [run for run in store_runs(root) if run.data.tags.get("alphagrad.kind") == "study"]
    assert study.info.status == "KILLED"
    what = study.data.tags["output_folder"] if named == "folder" else study.info.run_id[:10]
    lab.chdir("/")
    resumed = cli("resume", what, "--output-root", str(root))
    assert resumed.status == 0, resumed.err
    runs = store_runs(root)
    assert [run.info.status for run in runs] == ["FINISHED"] * 4
    assert sorted(run.data.metrics["resumed"] for run in runs if "seed" in run.data.tags) == [0, 0, 4]
    again = cli("resume", what, "--output-root", str(root))
    assert again.status == 0
    assert "is finished, nothing is left to do" in again.out
    assert len(store_runs(root)) == 4


@pytest.mark.long
def test_a_stack_goes_on_in_a_new_store(odd, cli, composed, at, root, store_runs, empty_store):
    """All its members, whichever is named, with what was logged last."""
    words = ("recipe=odd", "optimizer=sgd", "recipe.total_steps=6", "checkpoint.every_steps=1", f"output_root={root}")
    jobs = [assignment_of(composed(*words, f"seed={seed}"), words, root / str(seed)) for seed in range(3)]
    at(4, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_apart(jobs)
    before = {run.info.run_id for run in store_runs(root)}
    (root / "mlflow.db").unlink()
    refused = cli("resume", str(root / "2"))
    assert (refused.status, "--new-store" in refused.err) == (2, True)
    shutil.copy(empty_store, root / "mlflow.db")
    resumed = cli("resume", str(root / "2"), "--new-store")
    assert resumed.status == 0, resumed.err
    runs = store_runs(root)
    assert [(run.info.status, run.data.metrics["resumed"]) for run in runs] == [("FINISHED", 4)] * 3
    assert not before & {run.info.run_id for run in runs}
    assert {run.data.tags["seed"] for run in runs} == {"0", "1", "2"}
    assert not list(root.glob("**/state-*.pt"))
    for seed in range(3):
        assert "is finished" in cli("resume", str(root / str(seed))).out


@pytest.mark.long
def test_a_study_whose_store_is_lost(odd, cli, at, root, store_runs, empty_store):
    """It says what is left of it: its runs go on one by one, and the study can be started anew."""
    folder = root / "study"
    words = ("recipe=odd", "optimizer=sgd", "recipe.total_steps=6", "seed=range(2)", "checkpoint.every_steps=1")
    words += (f"output_root={root}", f"hydra.sweep.dir={folder}")
    at(4, interrupt)
    assert cli("run", "-m", *words).status == 130
    for lost in (True, False):
        (root / "mlflow.db").unlink()
        if not lost:
            shutil.copy(empty_store, root / "mlflow.db")
        for more in ((), ("--new-store",)):
            refused = cli("resume", str(folder), *more)
            assert (refused.status, len(refused.err.splitlines()), refused.out) == (2, 1, ""), refused
            assert "--new-store" in refused.err
            assert (root / "mlflow.db").exists() != lost
            assert list(folder.glob("**/state-*.pt"))
        if lost:
            (root / "mlflow.db").touch()
    (state, *_) = folder.glob("**/state-*.pt")
    resumed = cli("resume", str(state.parent), "--new-store")
    assert resumed.status == 0, resumed.err
    (run,) = store_runs(root)
    assert (run.info.status, run.data.metrics["resumed"]) == ("FINISHED", 4)


def test_the_list_of_optimizers_is_whole():
    named = {word.partition("=")[2] for word in chain(*MORE) if word.startswith("optimizer=")}
    assert named < set(OPTIMIZERS)
    assert len(OPTIMIZERS) > 20
