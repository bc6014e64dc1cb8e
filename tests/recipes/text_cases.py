"""What the tests of the recipes on text share: small data, and recipes made of the shipped defaults."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import torch
import yaml
from alphagrad.recipes.lm import LM, LMSettings
from alphagrad.recipes.text import Text, TextSettings

from alphagrad import variants
from alphagrad.harness.driver import Observation, OptimizerSpec
from alphagrad.harness.stack import RunSpec, RunStack
from alphagrad.optimizer import AlphaGrad

CONF = Path(__file__).resolve().parents[2] / "conf"
ADAMW = OptimizerSpec("adamw", lambda params: torch.optim.AdamW(params, lr=3e-3, weight_decay=0.5), "elementwise")
OURS = OptimizerSpec(
    "alphagrad",
    lambda params, **stacked: AlphaGrad(params, lr=3e-3, rule=variants.alphagrad(30.0), momentum=0.9, **stacked),
    "batch_dims",
)
WORDS = {"sea": ["wave", "ship", "salt", "harbour"], "wood": ["tree", "leaf", "moss"], "sky": ["cloud", "star", "moon"]}


def defaults(recipe: str) -> dict:
    values = yaml.safe_load((CONF / f"recipe/{recipe}.yaml").read_text())["recipe"]
    return {k: v for k, v in values.items() if k not in ("_target_", "data", "model")}


def write_tables(folder: Path) -> dict:
    """Texts about three things as CSV, 90 to train on and 30 to test; the settings that name them."""
    chance = random.Random(7)
    for split, count in (("train", 90), ("test", 30)):
        with (folder / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["label", "text"])
            for k in range(count):
                label = list(WORDS)[k % 3]
                words = chance.choices([*WORDS[label] * 3, "the", "and", "of", "a"], k=chance.randint(3, 12))
                writer.writerow([label, " ".join(words)])
    return {
        "name": "files",
        "root": str(folder),
        "train": "train.csv",
        "test": "test.csv",
        "text": "text",
        "label": "label",
    }


def write_corpus(folder: Path) -> dict:
    chance = random.Random(3)
    words = [w for listed in WORDS.values() for w in listed]
    for split, count in (("train", 900), ("test", 150)):
        (folder / f"{split}.txt").write_text(" ".join(chance.choices(words, k=count)) + " – ende\n", encoding="utf-8")
    return {"name": "files", "root": str(folder), "train": "train.txt", "test": "test.txt"}


SHAPES = {
    "mlp": {"hidden": [8]},
    "transformer": {"width": 8, "layers": 1, "heads": 2},
    "gpt2": {"width": 8, "layers": 1, "heads": 2},
    "llama": {"width": 8, "layers": 1, "heads": 2, "kv_heads": 1},
}


def text(data: dict, model: str = "mlp", shape: dict | None = None, **settings) -> Text:
    short = {"epochs": 2, "batch_size": 20, "vocabulary": 40, "max_length": 8, "eval_every": 0, "log_every": 2}
    chosen = {"name": model, **SHAPES.get(model, {}), **(shape or {})}
    return Text(TextSettings(**{**defaults("text"), **short, **settings, "data": data, "model": chosen}))


def lm(data: dict, model: str = "gpt2", shape: dict | None = None, **settings) -> LM:
    short = {"total_steps": 6, "batch_size": 4, "length": 8, "eval_every": 0, "log_every": 2, "sample_every": 0}
    chosen = {"name": model, **SHAPES[model], **(shape or {})}
    return LM(LMSettings(**{**defaults("lm"), **short, **settings, "data": data, "model": chosen}))


class Recorder:
    """A log that remembers everything."""

    observation, observe_every = Observation(2, 1.0), 0

    def __init__(self, runs: int, folder: Path) -> None:
        self.folder = folder
        self.points: list[dict[str, dict[int, float]]] = [{} for _ in range(runs)]

    def metrics(self, run, step, values):
        for name, value in values.items():
            assert step not in self.points[run].setdefault(name, {}), "a metric has one value at a step"
            self.points[run][name][step] = value

    def last(self, run: int, name: str) -> float:
        return list(self.points[run][name].values())[-1]

    def diverged(self, run, step, reason):
        raise AssertionError(reason)

    def progress(self, step, shown):
        pass

    def artifact(self, run, name, write):
        write(self.folder / f"{run}-{name}")

    def restore(self, parts):
        return 0

    def checkpoint(self, step, parts, result):
        pass


def train(recipe: Text | LM, folder: Path, *runs: RunSpec) -> tuple[list[dict], Recorder]:
    torch.set_num_threads(1)
    log = Recorder(len(runs), folder)
    return recipe.train(RunStack(runs), log), log


def flat(model: dict) -> torch.Tensor:
    return torch.cat([t.flatten().double() for t in model.values()])
