"""Every recipe trains to the same numbers as when ``data/same_numbers.json`` was recorded, bit for bit.

Only the command line is used, and what it leaves in an MLflow store, so a move of modules does not touch this file.
The file holds, for each kind of machine that was recorded on, each run's metrics (a digest of all points, and some of
them to read) and digests of its final model. Times and costs are left out.

- On a machine of a recorded kind (the same vendor, instructions, threads and versions) all must be equal to the bit.
- On another kind, rounding differs, and training amplifies it. There the first point of each metric must agree to one
  in a hundred, but for what a trained policy reaches, and the names of the metrics and the parts of the model must be
  the same. A warning says that no more was compared.

Where a change of the numbers is meant, or to add a kind of machine, record at a commit that is known to be right:

    ALPHAGRAD_RECORD_NUMBERS=1 pytest -m '' tests/test_same_numbers.py
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from machine import differences, kind_of_machine

FILE = Path(__file__).parent / "data/same_numbers.json"
RECORD = "ALPHAGRAD_RECORD_NUMBERS"
NEARLY = {"rel_tol": 1e-2, "abs_tol": 1e-3}
"""How near the first points of a metric are on machines of different kinds."""
UNSTABLE = ("eval/return", "eval/length", "final/return")
"""What a trained policy reaches depends on rounding: one other action, and the episode is another."""
DIFFERENCES = ("value/explained_variance", "eval/generalization_gap")
"""Differences of two numbers near 1: those agree to one in a hundred, not the small number that they leave."""
SHOWN = 32
"""Digits of a metric's digest that are kept."""
OPTIMIZERS = ("alphagrad", "adam")
LONGER = ("image", "lm", "td3_hopper")
"""Recipes whose runs take seconds."""
RECIPES = {
    "dqn_cartpole": (
        "recipe.total_steps=900",
        "recipe.eval_episodes=2",
        "recipe.eval_every=300",
        "recipe.learning_starts=100",
        "recipe.target_every=150",
        "recipe.log_every=50",
        "recipe.batch_size=32",
        "recipe.compile=false",
    ),
    "ppo_halfcheetah": (
        "env.kwargs.max_episode_steps=40",
        "recipe.total_steps=768",
        "recipe.eval_episodes=1",
        "recipe.num_steps=128",
        "recipe.minibatches=4",
        "recipe.epochs=2",
        "recipe.compile=false",
    ),
    "td3_hopper": (
        "env.kwargs.max_episode_steps=40",
        "recipe.total_steps=300",
        "recipe.eval_episodes=1",
        "recipe.learning_starts=100",
        "recipe.log_every=20",
        "recipe.batch_size=16",
        "recipe.hidden=[24,16]",
        "recipe.compile=false",
    ),
    "image": (
        "data=digits",
        "data.pad=1",
        "model=cnn",
        "model.channels=[4]",
        "model.norm=batch",
        "recipe.epochs=2",
        "recipe.batch_size=128",
        "recipe.gap_images=100",
        "recipe.log_every=5",
        "recipe.ema=0.9",
    ),
    "text": (
        "data=table",
        "data.train=train.csv",
        "data.test=test.csv",
        "model=mlp",
        "model.hidden=[8]",
        "recipe.epochs=3",
        "recipe.batch_size=16",
        "recipe.vocabulary=100",
        "recipe.max_length=12",
        "recipe.dropout=0.1",
        "recipe.log_every=5",
    ),
    "lm": (
        "data=text_files",
        "data.train=train.txt",
        "data.test=test.txt",
        "model=gpt2",
        "model.width=8",
        "model.layers=1",
        "model.heads=2",
        "recipe.total_steps=30",
        "recipe.length=16",
        "recipe.batch_size=4",
        "recipe.dropout=0.1",
        "recipe.log_every=5",
        "recipe.eval_every=10",
        "recipe.sample_every=10",
        "recipe.sample_tokens=4",
    ),
    "regression": ("recipe.hidden=[8,4]", "recipe.total_steps=40", "recipe.log_every=10"),
    "theory": ("problem=logistic", "problem.batch_size=32", "recipe.total_steps=40", "recipe.figure=false"),
}
SINGLE = {f"{recipe} {optimizer}": (recipe, optimizer, ()) for recipe in RECIPES for optimizer in OPTIMIZERS}
# what reaches further into a run's optimizer: signals, schedules, clipping, sums over parts, mixed precision
SINGLE |= {
    "dqn_cartpole clipped": (
        "dqn_cartpole",
        "saturation",
        ("optimizer.clip_grad_norm=0.01", "instruments=full", "instruments.every=7"),
    ),
}
STACKED = {"dqn_cartpole stacked": ("dqn_cartpole", "alphagrad,adam", ("seed=0,1",))}
SLOW = {
    "image mixed": (
        "image",
        "lion",
        (
            "recipe.schedule.kind=one_cycle",
            "optimizer.clip_grad_norm=0.5",
            "recipe.accumulate=2",
            "recipe.precision=amp_bfloat16",
        ),
    ),
    "ppo_halfcheetah muon": ("ppo_halfcheetah", "muon", ()),
    "td3_hopper shampoo": ("td3_hopper", "shampoo", ()),
    "image stacked": ("image", "alphagrad,adam,shampoo", ("seed=0,1", "recipe.stack=vmap", "model.norm=group")),
}
CASES = {**SINGLE, **STACKED, **SLOW}
DEFAULT = [*(f"{recipe} alphagrad" for recipe in RECIPES), "dqn_cartpole adam", "dqn_cartpole clipped", *STACKED]
"""Each recipe once, torch's optimizers too, what is clipped and what is stacked; the other cases are slow tests."""


@pytest.fixture(scope="module")
def place(tmp_path_factory, empty_store) -> Path:
    """A folder for all runs, with a store, and with texts that no library ships."""
    folder = tmp_path_factory.mktemp("numbers")
    shutil.copy(empty_store, folder / "mlflow.db")
    for split, count in (("train", 96), ("test", 32)):
        rows = [f"{sentence(k, k % 3)},class{k % 3}" for k in range(count)]
        (folder / f"{split}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
        (folder / f"{split}.txt").write_text("\n".join(sentence(5 * k, k % 3) for k in range(count)) + "\n")
    return folder


def sentence(number: int, label: int) -> str:
    """Eight words of sixty, those of a class more often."""
    return " ".join(f"w{(number * number + 7 * k + 20 * label * (k % 2)) % 60}" for k in range(8))


def trained(cli, case: str, place: Path) -> list[Any]:
    """Trains a case, a study in an experiment of its own; its runs by optimizer and seed."""
    recipe, optimizer, more = CASES[case]
    stacked = ("-m", "hydra/launcher=stacked", "stack.processes=1") if case.endswith("stacked") else ()
    data = (f"data.root={place}",) if recipe in ("text", "lm") else ()
    told = cli(
        "run",
        *stacked,
        f"recipe={recipe}",
        f"optimizer={optimizer}",
        *RECIPES[recipe],
        *data,
        *more,
        "device=cpu",
        f"tracking.experiment={case}",
        f"output_root={place}",
    )
    assert told.status == 0, told.err
    client = client_of(place)
    experiment = client.get_experiment_by_name(case)
    runs = [run for run in client.search_runs([experiment.experiment_id]) if "seed" in run.data.tags]
    assert {run.info.status for run in runs} == {"FINISHED"}
    return sorted(runs, key=name_of)


def client_of(place: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{place / 'mlflow.db'}")


def name_of(run: Any) -> str:
    return f"{run.data.tags['variant']} {run.data.tags['seed']}"


def numbers_of(run: Any, place: Path) -> dict[str, Any]:
    """A run's metrics and model: digests of all, and some of the points to read."""
    client, metrics = client_of(place), {}
    for name in sorted(run.data.metrics):
        if name.startswith(("time/", "cost/")):
            continue
        points = sorted((p.step, p.value.hex()) for p in client.get_metric_history(run.info.run_id, name))
        some = sorted({0, len(points) // 2, len(points) - 1})
        digest = hashlib.sha256(json.dumps(points).encode()).hexdigest()
        metrics[name] = [len(points), digest[:SHOWN], *(f"{points[k][0]}: {points[k][1]}" for k in some)]
    file = client.download_artifacts(run.info.run_id, "checkpoint.pt", str(place))
    return {"metrics": metrics, "model": {k: digest_of(v) for k, v in torch.load(file, weights_only=True).items()}}


def digest_of(entry: Any) -> str:
    """SHA-256 of an entry of a model's file: its tensors' names, types, shapes and bits."""
    found = hashlib.sha256()
    for leaf in leaves(entry, ""):
        found.update(leaf)
    return found.hexdigest()


def leaves(value: Any, name: str) -> Iterator[bytes]:
    """All tensors and plain values in a nest of dicts and lists, each as bytes, with its name."""
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from leaves(value[key], f"{name}/{key}")
    elif isinstance(value, (list, tuple)):
        for key, entry in enumerate(value):
            yield from leaves(entry, f"{name}/{key}")
    elif isinstance(value, torch.Tensor):
        yield f"{name} {value.dtype} {tuple(value.shape)} ".encode()
        yield value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    else:
        yield f"{name} {value.hex() if isinstance(value, float) else repr(value)} ".encode()


def recorded() -> list[dict[str, Any]]:
    """What was recorded, a kind of machine each, with the numbers of each case."""
    return json.loads(FILE.read_text()) if FILE.exists() else []


def record(case: str, found: dict[str, Any]) -> None:
    """Writes a case's numbers into the file, in place of those that this kind of machine had."""
    kinds, own = recorded(), kind_of_machine()
    entry = next((kind for kind in kinds if kind["machine"] == own), None)
    if entry is None:
        kinds.append(entry := {"machine": own, "cases": {}})
    entry["cases"][case] = found
    entry["cases"] = {name: entry["cases"][name] for name in CASES if name in entry["cases"]}
    # a line a metric
    text = re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", json.dumps(kinds, indent=1))
    FILE.write_text(text + "\n")


def marks_of(case: str) -> list[pytest.MarkDecorator]:
    """By default a run of most recipes is made; stacks, other optimizers and longer recipes are long, the rest slow."""
    if case not in DEFAULT:
        return [pytest.mark.slow]
    return [] if case.endswith(" alphagrad") and case.partition(" ")[0] not in LONGER else [pytest.mark.long]


@pytest.mark.parametrize("case", [pytest.param(case, marks=marks_of(case)) for case in CASES])
def test_a_run_has_the_numbers_that_were_recorded(cli, place, case):
    found = {name_of(run): numbers_of(run, place) for run in trained(cli, case, place)}
    if os.environ.get(RECORD):
        record(case, found)
    kinds, own = [kind for kind in recorded() if case in kind["cases"]], kind_of_machine()
    alike = [kind for kind in kinds if kind["machine"] == own]
    expected = (alike or kinds)[0]["cases"][case]
    assert found.keys() == expected.keys()
    for run in expected:
        if alike:
            assert_equal(found[run], expected[run])
        else:
            assert_near(found[run], expected[run])
    if not alike:
        told = differences(kinds[0]["machine"])
        warnings.warn(f"{case}: compared to rounding alone, this machine has {told}", stacklevel=1)


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """All points of all metrics, and the model, are the same bits."""
    assert found["metrics"].keys() == expected["metrics"].keys()
    for name, points in expected["metrics"].items():
        assert found["metrics"][name] == points, name
    assert found["model"] == expected["model"]


def assert_near(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """What holds on every machine: the names, and the first point of each metric that is stable."""
    assert found["metrics"].keys() == expected["metrics"].keys()
    assert found["model"].keys() == expected["model"].keys()
    for name, points in expected["metrics"].items():
        (step, value), (known_step, known) = (each[2].split(": ") for each in (found["metrics"][name], points))
        assert step == known_step, name
        nearly = NEARLY | {"abs_tol": 1e-2} if name in DIFFERENCES else NEARLY
        assert name in UNSTABLE or math.isclose(float.fromhex(value), float.fromhex(known), **nearly), name
