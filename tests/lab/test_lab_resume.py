"""Runs killed at any moment: what is resumed ends as if nothing had happened, for every recipe there is."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
import torch
from forked import finish, start
from tiers import long

from alphagrad.lab.store.address import store_uri
from alphagrad.lab.store.connection import open_store

RECIPES = sorted(file.stem for file in (Path(__file__).parents[2] / "conf/recipe").glob("[!_]*.yaml"))
SHORT = {
    "dqn_cartpole": (
        "recipe.total_steps=3000",
        "recipe.eval_episodes=1",
        "recipe.learning_starts=100",
        "recipe.log_every=50",
    ),
    "td3_hopper": (
        "recipe.total_steps=500",
        "recipe.eval_episodes=1",
        "recipe.learning_starts=100",
        "recipe.log_every=50",
        "recipe.batch_size=16",
        "recipe.hidden=[24,16]",
    ),
    "ppo_halfcheetah": (
        "recipe.total_steps=1536",
        "recipe.eval_episodes=1",
        "recipe.num_steps=128",
        "recipe.minibatches=4",
        "recipe.epochs=2",
    ),
    "image": (
        "recipe.epochs=8",
        "recipe.batch_size=64",
        "recipe.log_every=10",
        "recipe.ema=0.9",
        "recipe.target=0.5",
        "data.pad=1",
        "model=cnn",
        "model.channels=[4]",
        "model.norm=batch",
    ),
    "text": (
        "recipe.epochs=4",
        "recipe.batch_size=256",
        "recipe.vocabulary=500",
        "recipe.max_length=16",
        "recipe.dropout=0.1",
        "recipe.log_every=7",
        "model.hidden=[8]",
        "checkpoint.every_steps=5",
    ),
    "lm": (
        "recipe.total_steps=60",
        "recipe.length=16",
        "recipe.batch_size=4",
        "recipe.dropout=0.1",
        "recipe.ema=0.9",
        "recipe.log_every=7",
        "recipe.eval_every=0",
        "recipe.eval_batch_size=256",
        "recipe.sample_tokens=4",
        "model.width=8",
        "model.layers=1",
        "model.heads=2",
        "checkpoint.every_steps=5",
    ),
    "regression": (
        "recipe.hidden=[8]",
        "recipe.total_steps=400",
        "checkpoint.every_steps=25",
    ),
    "theory": (
        "problem=noisy_quadratic",
        "recipe.total_steps=300",
        "recipe.figure=false",
        "checkpoint.every_steps=25",
    ),
}
"""Settings that make a run of each recipe take a second or two; a recipe that is added needs some, too."""
OFTEN = ("recipe.compile=false", "checkpoint.every_steps=50", "tracking.flush_seconds=0.05")


def outcome_of(root: Path) -> tuple[dict, dict]:
    client = open_store(store_uri(None, root))
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert run.info.status == "FINISHED"
    names = [name for name in run.data.metrics if not name.startswith(("time/", "cost/"))]
    points = {n: [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, n)] for n in names}
    (file,) = [f for f in root.rglob("checkpoint.pt") if "artifacts" not in f.parts]
    return torch.load(file, weights_only=True), {n: sorted(p) for n, p in points.items()}


def same(a, b) -> bool:
    """Equal bit for bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a == b


def kill_and_resume(recipe: str, tmp_path: Path, empty_store: Path, moments: int, *more: str) -> None:
    assert recipe in SHORT, f"{recipe}: give it settings in SHORT, so that it is killed and resumed as well"
    words = (f"recipe={recipe}", "optimizer=adam", *OFTEN, *SHORT[recipe], *more)
    words = tuple({word.partition("=")[0]: word for word in words}.values())

    def root_of(name: str) -> Path:
        (tmp_path / name).mkdir()
        (tmp_path / name / "mlflow.db").write_bytes(empty_store.read_bytes())
        return tmp_path / name

    whole = root_of("whole")
    begun = time.monotonic()
    finish("run", *words, f"output_root={whole}")
    duration = time.monotonic() - begun
    model, history = outcome_of(whole)
    assert all(len({step for step, _ in points}) == len(points) for points in history.values())
    chance, resumed = random.Random(f"{recipe} {moments}"), 0
    for moment in range(moments):
        root = root_of(f"killed{moment}")
        folder = root / "run"
        process = start("run", *words, f"output_root={root}", f"hydra.run.dir={folder}")
        if moment:
            time.sleep(duration * chance.uniform(0.3, 1.0))
        while not moment and process.is_alive() and not list(folder.glob("state-*.pt")):
            time.sleep(0.01)  # the first kill is sure to meet a run that has saved a state
        process.kill()
        process.join()
        if (folder / "config.yaml").exists():
            resumed += bool(list(folder.glob("state-*.pt")))
            finish("resume", str(folder))
        else:
            finish("run", *words, f"output_root={root}", f"hydra.run.dir={folder}")
        again, points = outcome_of(root)
        assert same(model, again), f"moment {moment}"
        assert points == history, f"moment {moment}"
    assert resumed, "no moment met a run that had saved a state"


@pytest.mark.parametrize("recipe", ["regression", *long(*(r for r in RECIPES if r != "regression"))])
def test_a_killed_run_ends_as_if_nothing_had_happened(lab, recipe, tmp_path, empty_store):
    kill_and_resume(recipe, tmp_path, empty_store, 1)


def test_a_killed_run_that_is_held_against_the_statements(lab, tmp_path, empty_store):
    """What they measure comes from NumPy, whose numbers a checkpoint refuses."""
    kill_and_resume("theory", tmp_path, empty_store, 1, "optimizer=alphagrad")


@pytest.mark.slow
@pytest.mark.parametrize("width", ["int8", "int4_weights"])
def test_a_killed_run_of_rounded_weights(lab, width, tmp_path, empty_store):
    kill_and_resume("image", tmp_path, empty_store, 1, f"recipe.quantization={width}", "recipe.ema=null")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_twenty_moments(lab, recipe, tmp_path, empty_store):
    kill_and_resume(recipe, tmp_path, empty_store, 20)
