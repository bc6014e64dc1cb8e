"""Images per second of the recipe image and of loops written by hand, in turn, in one process.

    python benchmarks/vision_throughput.py [--task digits mlp cnn resnet18] [--threads 1] [--runs 8] [SETTING ...]

A run of the recipe, with its store, instruments and all, stands still after every point of its log while a plain loop
does as many steps: the same model, images, batch, crops and flips, Adam, PyTorch's one-cycle schedule. So both meet the
same machine, whatever else it does. Evaluations and the first turn are left out. The images are noise, which takes as
long as any. The table holds the rates over all turns, their ratio, the middle half of the ratios of single turns, and
the ratio by CPU time.

A second table holds the images per second of a stack of ``--runs`` runs, summed over them, as one tensor program
(vmap) and one after the other (loop), in turn as well; 0 for none.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from turns import Turns

from alphagrad.harness.stack import RunSpec, RunStack
from alphagrad.lab.config.build import build
from alphagrad.lab.config.compose import compose, hydra_initialized
from alphagrad.lab.training.job import assignment_of
from alphagrad.lab.training.runner import run_stack

BASE = ["recipe=image", "optimizer=adam", "recipe.eval_every=0", "recipe.gap_images=0", "data.name=noise"]
BASE += ["recipe.schedule.kind=one_cycle"]
TASKS = {
    "digits": ["data=digits", "model=mlp", "recipe.epochs=200"],
    "mlp": ["data=mnist", "model=mlp", "recipe.epochs=30"],
    "cnn": ["data=cifar10", "model=cnn", "model.norm=batch", "recipe.epochs=3", "recipe.log_every=10"],
    "resnet18": ["data=cifar10", "model=resnet18", "recipe.batch_size=16", "recipe.epochs=8", "recipe.log_every=10"],
}
SHAPES = {"digits": (1_437, 8, 8, 1)}
SHAPES |= {"mlp": (12_800, 28, 28, 1), "cnn": (12_800, 32, 32, 3), "resnet18": (160, 32, 32, 3)}
# of the runs in a stack; vmap knows no statistics of batches
STACKED = {"digits": TASKS["digits"], "mlp": TASKS["mlp"], "cnn": ["data=cifar10", "model=cnn"]}


def make_noise(root: Path, shape: tuple[int, ...]) -> None:
    """Writes a data set of noise in ten classes."""
    rng = np.random.default_rng(0)
    (root / "noise").mkdir()
    for split, count in (("train", shape[0]), ("test", 100)):
        images = rng.integers(256, size=(count, *shape[1:]), dtype=np.uint8)
        np.savez(root / f"noise/{split}.npz", images=images, labels=np.arange(count) % 10)


def by_hand(recipe: Any, root: Path, device: torch.device) -> Iterator[int]:
    """A plain loop that stands still after every step; yields its images."""
    s = recipe.settings
    torch.manual_seed(0)
    model = recipe.networks()["model"].to(device)
    memory = torch.channels_last if recipe.training.channels_last else torch.contiguous_format
    model = model.to(memory_format=memory)
    arrays = np.load(root / "noise/train.npz")
    images = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2).contiguous().to(device)
    labels = torch.from_numpy(arrays["labels"]).to(device)
    mean = 255 * torch.tensor(s.data.mean, device=device)[:, None, None]
    std = 255 * torch.tensor(s.data.std, device=device)[:, None, None]
    pad, (height, width) = s.data.pad, images.shape[2:]
    padded = nn.functional.pad(images, [pad] * 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=recipe.total_steps)
    model.train()
    for _ in range(s.epochs):
        for chosen in torch.randperm(len(images), device=device).split(s.batch_size):
            x = padded[chosen]
            if pad:  # each image has its own crop
                top, left = torch.randint(2 * pad + 1, (2, len(x), 1), device=device)
                rows, columns = top + torch.arange(height, device=device), left + torch.arange(width, device=device)
                each = torch.arange(len(x), device=device)[:, None, None]
                x = x[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
            if s.data.flip:
                x = torch.where(torch.rand(len(x), 1, 1, 1, device=device) < 0.5, x.flip(-1), x)
            x = (x - mean) / std
            x = x.contiguous(memory_format=memory)
            loss = nn.functional.cross_entropy(model(x), labels[chosen])
            loss.backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            now(device)
            yield len(chosen)


def now(device: torch.device) -> float:
    """The time, once all that was begun is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def stack(settings: list[str], runs: int) -> Iterator[int]:
    """The training steps of a stack; stands still after every one, yields its images."""
    from alphagrad.recipes.supervised.learners import learner_of
    from alphagrad.recipes.supervised.parallel import Parallel
    from alphagrad.recipes.supervised.precision import Numbers

    job = build(compose(settings))
    recipe: Any = job.recipe
    s = recipe.settings
    together = RunStack([RunSpec(seed, job.optimizer) for seed in range(runs)], job.device)
    learner = learner_of(together, recipe.training, Numbers(s.precision, job.device), Parallel(), recipe.vmaps(runs))
    batches = recipe.data.batches(together, s.batch_size, (0, 1))
    for step in range(recipe.total_steps):
        learner.step(*batches.at(step), None)
        now(job.device)
        yield runs * s.batch_size


def compare(settings: list[str], runs: int, steps: int) -> str:
    """A row on stacks that train by vmap and by loop, step by step in turn; the first five are left out."""
    ways = [stack([*settings, f"recipe.stack={how}"], runs) for how in ("vmap", "loop")]
    seconds: list[list[float]] = [[], []]
    for _ in range(steps):
        for way, spent in zip(ways, seconds, strict=True):
            begun = time.perf_counter()
            images = next(way)
            spent.append(time.perf_counter() - begun)
    vmapped, looped = (images * len(spent[5:]) / sum(spent[5:]) for spent in seconds)
    return f"{vmapped:,.0f} | {looped:,.0f} | {vmapped / looped:.2f} |"


def main() -> None:
    """Runs the tasks and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="*", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--threads", type=int, default=1, help="(default %(default)s)")
    parser.add_argument("--runs", type=int, default=8, help="of a stack (default %(default)s)")
    parser.add_argument("settings", nargs="*", help="of the recipe")
    args = parser.parse_args()
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    torch.set_num_threads(args.threads)
    rows = []
    print("| model | ours, images/s | by hand, images/s | ratio | of single turns | by CPU time |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in args.task:
        with hydra_initialized(), tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            make_noise(root, SHAPES[name])
            common = [*BASE, f"data.root={root}", *args.settings]
            settings = [*TASKS[name], *common, f"threads={args.threads}"]
            settings.append(f"output_root={root}/out")
            job = build(compose(settings))
            recipe: Any = job.recipe
            turns = Turns(by_hand(recipe, root, job.device), recipe.settings.batch_size)
            run_stack([assignment_of(compose(settings), settings, root / "out/run")], line=turns)
            print(f"| {name} | {turns.row()}", flush=True)
            if name in STACKED and args.runs:
                rows.append(f"| {name} | {compare([*STACKED[name], *common], args.runs, 25)}")
    if rows:
        print(f"\n| model | {args.runs} runs by vmap, images/s | by loop, images/s | ratio |\n|---|---|---|---|")
        print("\n".join(rows))


if __name__ == "__main__":
    main()
