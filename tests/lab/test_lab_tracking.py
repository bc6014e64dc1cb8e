"""Runs in the store: what a run leaves behind, and its status when things go wrong."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import gymnasium as gym
import pytest
import torch
import yaml
from alphagrad.recipes.mlp import mlp
from entries import history, parent_and_children

from alphagrad.harness import metrics
from alphagrad.lab.records.run import PARENT_RUN, Tracker
from alphagrad.lab.store.address import store_uri
from alphagrad.lab.store.connection import open_store

BROKEN = '''
import os

from alphagrad.recipes.dqn import DQN


class Broken(DQN):
    """Fails for some seeds after it has logged a metric."""

    def train(self, stack, log):
        if stack.runs[0].seed % 2 and "ALPHAGRAD_TEST_REPAIRED" not in os.environ:
            log.metrics(0, 3, {"loss/td_mean": 1.5})
            raise FloatingPointError("the loss is\\nnot finite")
        return super().train(stack, log)
'''


@pytest.fixture
def broken(lab, tmp_path, checkout):
    """A recipe ``broken`` of the user's own that raises in training for odd seeds."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/alphagrad_test_broken.py").write_text(BROKEN)
    lab.syspath_prepend(tmp_path / "modules")
    (tmp_path / "conf/recipe").mkdir(parents=True)
    text = (checkout / "conf/recipe/dqn_cartpole.yaml").read_text()
    text = text.replace("alphagrad.recipes.dqn.DQN", "alphagrad_test_broken.Broken").replace("dqn_cartpole", "broken")
    (tmp_path / "conf/recipe/broken.yaml").write_text(text)
    lab.setenv("ALPHAGRAD_CONF", str(tmp_path / "conf"))


def artifacts(root: Path, run_id: str) -> set[str]:
    return {a.path for a in open_store(store_uri(None, root)).list_artifacts(run_id)}


def test_a_run_and_everything_it_leaves(cli, root, tiny, store_runs, lab):
    logged: dict[str, list[tuple[int, float]]] = {}
    queue = Tracker.metrics

    def noted(self, step, values):
        for name, value in values.items():
            logged.setdefault(name, []).append((step, float(value)))
        queue(self, step, values)

    lab.setattr(Tracker, "metrics", noted)
    done = cli("run", "optimizer=alphagrad", "alpha.value=93", "seed=4", f"output_root={root}", *tiny)
    assert done.status == 0, done.err
    title, told = done.err.rstrip().rsplit(": ", 1)  # no more than that it begins
    assert title.startswith("dqn_cartpole alphagrad ")
    assert (told, len(done.err.splitlines())) == ("begins, 120 steps", 1)
    (run,) = store_runs(root)
    assert run.info.status == "FINISHED"
    assert run.info.end_time >= run.info.start_time

    params = run.data.params
    assert params["alpha.value"] == "93"
    assert params["optimizer.lr"] == "0.00025"
    assert params["seed"] == "4"
    assert params["recipe.total_steps"] == "120"
    assert params["recipe.hidden"] == "[120, 84]"

    tags = run.data.tags
    assert (tags["variant"], tags["recipe"], tags["seed"]) == ("alphagrad", "dqn_cartpole", "4")
    assert len(tags["config_hash"]) == 8
    assert tags["version.torch"] == torch.__version__.partition("+")[0]
    assert tags["version.gymnasium"] == gym.__version__
    assert tags["version.alphagrad"] == "0.1.0"
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, text=True).strip()
    assert tags["mlflow.source.git.commit"].removesuffix("-dirty") == head

    # every point that was logged is in the store, and no other
    assert history(root, run.info.run_id) == {name: sorted(points) for name, points in logged.items()}
    assert {metrics.EVAL_RETURN, metrics.TD_LOSS, metrics.EPISODIC_RETURN, "alpha/2.weight"} <= set(logged)
    assert {value for _, value in logged["alpha/2.weight"]} == {93.0}

    assert artifacts(root, run.info.run_id) == {"config.yaml", "checkpoint.pt"}
    folder = Path(tags["output_folder"])
    for part in ("alphagrad", "seed4", tags["config_hash"], "dqn_cartpole"):
        assert part in str(folder.relative_to(root))
    assert {f.name for f in folder.iterdir()} == {"run_id", "config.yaml", "checkpoint.pt", "alphagrad.log"}
    assert (folder / "run_id").read_text().strip() == run.info.run_id
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["alpha"]["value"] == 93
    assert config["optimizer"]["lr"] == 2.5e-4  # resolved
    assert str(folder) in done.out


def test_the_checkpoint_is_the_policy_that_was_evaluated(cli, root, tiny, store_runs):
    from alphagrad.harness.driver import OptimizerSpec
    from alphagrad.harness.stack import RunSpec, RunStack

    assert cli("run", "optimizer=adam", "seed=6", f"output_root={root}", *tiny).status == 0
    (run,) = store_runs(root)
    path = open_store(store_uri(None, root)).download_artifacts(run.info.run_id, "checkpoint.pt")
    checkpoint = torch.load(path, weights_only=True)
    network = mlp([4, 120, 84, 2])
    network.load_state_dict(checkpoint["q_network"])
    seeds = RunStack([RunSpec(6, OptimizerSpec("", torch.optim.Adam))]).generators("evaluation")[0]
    total = 0.0
    for seed in seeds.integers(2**31, size=2):
        env = gym.make("CartPole-v1")
        obs, over = env.reset(seed=int(seed))[0], False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(int(network(torch.as_tensor(obs)).argmax()))
            total, over = total + float(reward), terminated or truncated
    assert run.data.metrics[metrics.EVAL_RETURN] == total / 2
    assert set(checkpoint["optimizer"]["0.weight"]) == {"step", "exp_avg", "exp_avg_sq"}
    assert int(checkpoint["optimizer"]["0.weight"]["step"]) == 9  # updates at 30, 40, ..., 110


@pytest.mark.long
def test_the_same_settings_give_the_same_numbers(cli, root, tiny, store_runs):
    for _ in range(2):
        assert cli("run", "optimizer=sqrt_dim", f"output_root={root}", *tiny).status == 0
    a, b = (history(root, run.info.run_id) for run in store_runs(root))
    for own in (a, b):
        del own[metrics.STEPS_PER_SECOND], own[metrics.PEAK_BYTES]
    assert a == b
    folders = {run.data.tags["output_folder"] for run in store_runs(root)}
    assert len(folders) == 2


def test_the_environment_variable_names_the_store(cli, lab, tmp_path, root, tiny, store_runs):
    lab.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
    assert cli("run", f"output_root={tmp_path / 'elsewhere'}", "tracking.experiment=mine", *tiny).status == 0
    (run,) = store_runs(root)
    assert not (tmp_path / "elsewhere/mlflow.db").exists()
    client = open_store(store_uri(None, root))
    assert client.get_experiment(run.info.experiment_id).name == "mine"


@pytest.mark.long
def test_a_failure_in_training(broken, cli, root, tiny, store_runs):
    failed = cli("run", "recipe=broken", "seed=1", f"output_root={root}", *tiny)
    assert failed.status == 1
    said = [line for line in failed.err.splitlines() if line.startswith("alphagrad: ")]
    assert said == ["alphagrad: FloatingPointError: the loss is not finite (--traceback shows where)"]
    assert "Traceback" not in failed.err
    (run,) = store_runs(root)
    assert run.info.status == "FAILED"
    assert run.data.tags["alphagrad.reason"] == "FloatingPointError: the loss is not finite"
    assert run.data.metrics == {metrics.TD_LOSS: 1.5}  # what was logged before it is kept
    assert artifacts(root, run.info.run_id) == {"config.yaml"}
    log = (Path(run.data.tags["output_folder"]) / "alphagrad.log").read_text()
    assert "Traceback" in log
    assert "FloatingPointError" in log


def test_a_failure_with_its_traceback(broken, cli, root, tiny, store_runs):
    with pytest.raises(FloatingPointError):
        cli("run", "--traceback", "recipe=broken", "seed=1", f"output_root={root}", *tiny)
    assert [run.info.status for run in store_runs(root)] == ["FAILED"]


def test_a_multirun(cli, root, tiny, store_runs):
    words = ("recipe=dqn_cartpole", "optimizer=adam,alphagrad", "seed=range(2)")
    done = cli("run", "-m", *words, f"output_root={root}", *tiny)
    assert done.status == 0, done.err
    parent, children = parent_and_children(store_runs(root))
    assert parent.info.status == "FINISHED"
    assert "mlflow.parentRunId" not in parent.data.tags
    assert parent.info.run_name.startswith("recipe=dqn_cartpole optimizer=adam,alphagrad seed=range(2)")
    assert [c.info.status for c in children] == ["FINISHED"] * 4
    jobs = [(c.data.tags["variant"], c.data.tags["seed"]) for c in children]
    assert jobs == [("adam", "0"), ("adam", "1"), ("alphagrad", "0"), ("alphagrad", "1")]
    hashes = [c.data.tags["config_hash"] for c in children]
    assert hashes[0] == hashes[1] != hashes[2] == hashes[3]
    for child in children:
        assert artifacts(root, child.info.run_id) == {"config.yaml", "checkpoint.pt"}
        assert child.data.metrics[metrics.EVAL_RETURN] > 0
        assert child.data.params["optimizer.name"] == child.data.tags["variant"]
    assert len({c.data.tags["output_folder"] for c in children}) == 4
    assert PARENT_RUN not in os.environ


@pytest.mark.long
def test_a_job_of_a_multirun_is_the_run_alone(cli, root, tiny, store_runs):
    assert cli("run", "-m", "seed=0,1", "alpha.value=93", f"output_root={root}", *tiny).status == 0
    assert cli("run", "seed=1", "alpha.value=93", f"output_root={root}", *tiny).status == 0
    runs = store_runs(root)
    of_multirun, alone = runs[-2], runs[-1]
    assert "mlflow.parentRunId" not in alone.data.tags
    assert of_multirun.data.tags["config_hash"] == alone.data.tags["config_hash"]
    a, b = history(root, of_multirun.info.run_id), history(root, alone.info.run_id)
    for own in (a, b):
        del own[metrics.STEPS_PER_SECOND], own[metrics.PEAK_BYTES]
    assert a == b


@pytest.mark.long
def test_a_failing_job_does_not_stop_the_others(broken, cli, root, tiny, store_runs):
    failed = cli("run", "-m", "recipe=broken", "seed=range(4)", f"output_root={root}", *tiny)
    assert failed.status == 1
    begun, *said = [line for line in failed.err.splitlines() if line.startswith("alphagrad: ")]
    assert begun.startswith("alphagrad: 4 jobs, in ")
    assert said == ["alphagrad: FloatingPointError: the loss is not finite (--traceback shows where)"]
    parent, children = parent_and_children(store_runs(root))
    assert parent.info.status == "FAILED"
    assert "not finite" in parent.data.tags["alphagrad.reason"]
    statuses = {c.data.tags["seed"]: c.info.status for c in children}
    assert statuses == {"0": "FINISHED", "1": "FAILED", "2": "FINISHED", "3": "FAILED"}
    assert PARENT_RUN not in os.environ


@pytest.mark.long
def test_a_study_started_again_runs_what_is_missing(broken, cli, root, tiny, store_runs, lab):
    words = ("run", "-m", "recipe=broken", "seed=range(4)", f"output_root={root}", *tiny)
    assert cli(*words).status == 1
    parent, before = parent_and_children(store_runs(root))
    lab.setenv("ALPHAGRAD_TEST_REPAIRED", "1")
    again = cli(*words)
    assert again.status == 0, again.err
    assert "2 of 4 jobs are finished" in again.err
    after, children = parent_and_children(store_runs(root))
    assert (after.info.run_id, after.info.status) == (parent.info.run_id, "FINISHED")
    assert "alphagrad.reason" not in after.data.tags
    kept = {c.info.run_id: c.info.status for c in before}
    assert {c.info.run_id: c.info.status for c in children if c.info.run_id in kept} == kept
    added = [c for c in children if c.info.run_id not in kept]
    assert [(c.data.tags["seed"], c.info.status) for c in added] == [("1", "FINISHED"), ("3", "FINISHED")]
    # what is finished is not gone on with: the same words begin a new study
    assert cli(*words).status == 0
    studies = [r for r in store_runs(root) if r.data.tags.get("alphagrad.kind") == "study"]
    assert [s.info.status for s in studies] == ["FINISHED", "FINISHED"]
    assert len(store_runs(root)) == 2 + 6 + 4


@pytest.mark.long
def test_the_stacked_launcher_gives_the_same_runs(cli, root, tiny, store_runs):
    words = ("optimizer=adam,alphagrad", "seed=range(2)", f"output_root={root}", *tiny)
    assert cli("run", "-m", *words, "tracking.experiment=one_by_one").status == 0
    done = cli("run", "-m", *words, "tracking.experiment=stacked", "hydra/launcher=stacked", "stack.processes=1")
    assert done.status == 0, done.err
    runs = store_runs(root)
    alone, stacked = parent_and_children(runs[:5]), parent_and_children(runs[5:])
    assert stacked[0].info.status == "FINISHED"

    def told(run):
        return run.data.tags["variant"], run.data.tags["seed"]

    for a, b in zip(sorted(alone[1], key=told), sorted(stacked[1], key=told), strict=True):
        assert b.info.status == "FINISHED"
        for tag in ("variant", "seed", "recipe", "config_hash", "configuration"):
            assert a.data.tags[tag] == b.data.tags[tag]
        own = ("tracking.experiment", "stack.processes")
        assert {k: v for k, v in a.data.params.items() if k not in own} == {
            k: v for k, v in b.data.params.items() if k not in own
        }
        assert artifacts(root, b.info.run_id) == {"config.yaml", "checkpoint.pt"}
        x, y = history(root, a.info.run_id), history(root, b.info.run_id)
        for own in (x, y):
            del own[metrics.STEPS_PER_SECOND], own[metrics.PEAK_BYTES]
        assert set(x) == set(y)
        assert x[metrics.EPISODIC_RETURN] == y[metrics.EPISODIC_RETURN]
        for name in x:
            assert [s for s, _ in x[name]] == [s for s, _ in y[name]]
            assert [v for _, v in x[name]] == pytest.approx([v for _, v in y[name]], rel=1e-4, abs=1e-6)
