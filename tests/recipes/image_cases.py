"""The recipe image with settings of a second."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml
from alphagrad.recipes.image import Image, ImageSettings

from alphagrad import variants
from alphagrad.harness.driver import Observation, OptimizerSpec
from alphagrad.harness.stack import RunSpec, RunStack
from alphagrad.optimizer import AlphaGrad

CONF = Path(__file__).resolve().parents[2] / "conf"


def file_of(name: str) -> dict:
    return {k: v for k, v in yaml.safe_load((CONF / name).read_text()).items() if k != "defaults"}


DATA, DEFAULTS = file_of("data/digits.yaml"), file_of("recipe/image.yaml")["recipe"]
DEFAULTS = {k: v for k, v in DEFAULTS.items() if k not in ("_target_", "data", "model")}
SHORT = {"epochs": 2, "batch_size": 64, "eval_every": 0, "gap_images": 0}
SMALL = {"mlp": {"hidden": [12]}, "cnn": {"channels": [4, 6], "hidden": [8], "norm": "none"}}


def recipe(model: str = "mlp", data: dict | None = None, shape: dict | None = None, **settings) -> Image:
    chosen = {"name": model, **SMALL.get(model, {}), **(shape or {})}
    values = {**DEFAULTS, **SHORT, **settings, "data": {**DATA, **(data or {})}, "model": chosen}
    return Image(ImageSettings(**values))


ADAM = OptimizerSpec("adam", lambda params: torch.optim.Adam(params, lr=3e-3), "elementwise")
OURS = OptimizerSpec(
    "alphagrad",
    lambda params, **stacked: AlphaGrad(params, lr=3e-3, rule=variants.alphagrad(30.0), momentum=0.9, **stacked),
    "batch_dims",
)


class Recorder:
    """A log that remembers everything."""

    def __init__(self, runs: int = 1, observe: int = 0, folder: Path | None = None) -> None:
        self.observation = Observation(2, 1.0)
        self.observe_every, self.folder = observe, folder
        self.points: list[list[tuple[int, str, float]]] = [[] for _ in range(runs)]
        self.artifacts: list[tuple[int, str]] = []
        self.ended: list[tuple[int, int, str]] = []
        self.states: dict[int, dict] = {}

    def metrics(self, run, step, values):
        self.points[run] += [(step, name, float(value)) for name, value in values.items()]

    def diverged(self, run, step, reason):
        self.ended.append((run, step, reason))

    def progress(self, step, shown):
        pass

    def artifact(self, run, name, write):
        self.artifacts.append((run, name))
        if self.folder is not None:
            write(self.folder / f"{run}-{name}")

    def restore(self, parts):
        return 0

    def checkpoint(self, step, parts, result):
        pass

    def of(self, run: int, name: str) -> dict[int, float]:
        return {step: value for step, n, value in self.points[run] if n == name}


def train(image: Image, *runs: RunSpec, **recorder) -> tuple[list[dict], Recorder]:
    torch.set_num_threads(1)
    log = Recorder(len(runs), **recorder)
    return image.train(RunStack(runs), log), log


def flat(model: dict) -> torch.Tensor:
    return torch.cat([t.flatten().double() for t in model.values()])


def outcome(model: str = "mlp", spec: OptimizerSpec = ADAM, **settings) -> torch.Tensor:
    return flat(train(recipe(model, **settings), RunSpec(0, spec))[0][0]["model"])
