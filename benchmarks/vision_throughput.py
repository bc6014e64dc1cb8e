"""Images per second of the recipe image and of loops written by hand, in turn, on one machine.

    python benchmarks/vision_throughput.py [--task mlp cnn resnet18] [--rounds 3] [--threads 1] [--runs 8] [SETTING ...]

A round trains once with `alphagrad run`, store, instruments and all, and once with a plain loop: the same model,
images, batch, crops and flips, Adam, PyTorch's one-cycle schedule. Both are timed over the second half of their steps,
evaluations left out. The images are noise, which takes as long as any. The table holds the medians over the rounds and
the ratio of each round.

A second table holds the images per second of a stack of ``--runs`` runs, summed over them, as one tensor program
(vmap) and one after the other (loop); 0 for none.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from alphagrad.lab import metrics
from alphagrad.lab.build import build
from alphagrad.lab.compose import compose, hydra_initialized
from alphagrad.lab.results import Results
from alphagrad.lab.stack import RunSpec, RunStack
from alphagrad.lab.store import store_uri

LOG_EVERY = 10
BASE = ["recipe=image", "optimizer=adam", "recipe.eval_every=0", f"recipe.log_every={LOG_EVERY}", "data.name=noise"]
BASE += ["recipe.schedule.kind=one_cycle", "recipe.gap_images=0"]
TASKS = {
    "mlp": ["data=mnist", "model=mlp", "recipe.epochs=5"],
    "cnn": ["data=cifar10", "model=cnn", "model.norm=batch"],
    "resnet18": ["data=cifar10", "model=resnet18", "recipe.batch_size=32"],
}
SHAPES = {"mlp": (12_800, 28, 28, 1), "cnn": (12_800, 32, 32, 3), "resnet18": (640, 32, 32, 3)}
STACKED = ("mlp", "cnn")


def make_noise(root: Path, shape: tuple[int, ...]) -> None:
    """Writes a data set of noise in ten classes."""
    rng = np.random.default_rng(0)
    (root / "noise").mkdir()
    for split, count in (("train", shape[0]), ("test", 100)):
        images = rng.integers(256, size=(count, *shape[1:]), dtype=np.uint8)
        np.savez(root / f"noise/{split}.npz", images=images, labels=np.arange(count) % 10)


def ours(settings: list[str], steps: int, threads: int) -> float:
    """Images per second of a run over the second half of its steps, from its store."""
    with tempfile.TemporaryDirectory() as root:
        command = [sys.executable, "-m", "alphagrad_cli", "run", *settings, f"threads={threads}", f"output_root={root}"]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MLFLOW_DISABLE_TELEMETRY": "true"}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        results = Results(store_uri(f"sqlite:///{root}/mlflow.db", Path(root)), "alphagrad")
        ((run,),) = (group.finished() for group in results.study().groups)
        at, values = results.history(run, metrics.IMAGES_PER_SECOND)
        late = values[at >= steps / 2]
        return float(len(late) / sum(1 / v for v in late))


def by_hand(recipe: Any, root: Path, device: torch.device) -> float:
    """Images per second of a plain loop over the second half of its steps."""
    s = recipe.settings
    torch.manual_seed(0)
    model = recipe.networks()["model"].to(device)
    if s.channels_last:
        model = model.to(memory_format=torch.channels_last)
    arrays = np.load(root / "noise/train.npz")
    images = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2).contiguous().to(device)
    labels = torch.from_numpy(arrays["labels"]).to(device)
    mean = 255 * torch.tensor(s.data.mean, device=device)[:, None, None]
    std = 255 * torch.tensor(s.data.std, device=device)[:, None, None]
    pad, (height, width) = s.data.pad, images.shape[2:]
    padded = nn.functional.pad(images, [pad] * 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=recipe.total_steps)
    step, begun = 0, 0.0
    model.train()
    for _ in range(s.epochs):
        for chosen in torch.randperm(len(images), device=device).split(s.batch_size):
            if len(chosen) < s.batch_size:
                continue
            if step == recipe.total_steps // 2:
                begun = now(device)
            x = padded[chosen]
            if pad:  # each image has its own crop
                top, left = torch.randint(2 * pad + 1, (2, len(x), 1), device=device)
                rows, columns = top + torch.arange(height, device=device), left + torch.arange(width, device=device)
                each = torch.arange(len(x), device=device)[:, None, None]
                x = x[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
            if s.data.flip:
                x = torch.where(torch.rand(len(x), 1, 1, 1, device=device) < 0.5, x.flip(-1), x)
            x = (x - mean) / std
            x = x.contiguous(memory_format=torch.channels_last if s.channels_last else torch.contiguous_format)
            loss = nn.functional.cross_entropy(model(x), labels[chosen])
            loss.backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            if step % LOG_EVERY == 0:
                loss.item()  # what is printed
            step += 1
    return (step - recipe.total_steps // 2) * s.batch_size / (now(device) - begun)


def now(device: torch.device) -> float:
    """The time, once all that was begun is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def of_a_stack(settings: list[str], runs: int, steps: int = 20) -> float:
    """Images per second of a stack, summed over its runs, of training steps alone."""
    from alphagrad.recipes.supervised.learner import learner_of
    from alphagrad.recipes.supervised.parallel import Parallel
    from alphagrad.recipes.supervised.precision import Numbers

    with hydra_initialized():
        job = build(compose(settings))
    recipe: Any = job.recipe
    s = recipe.settings
    stack = RunStack([RunSpec(seed, job.optimizer) for seed in range(runs)], job.device)
    numbers = Numbers(s.precision, job.device)
    learner = learner_of(stack, recipe.training, numbers, Parallel(), recipe.vmaps(runs))
    batches = recipe.data.batches(stack, s.batch_size, (0, 1))
    for step in range(2 * steps):
        if step == steps:
            begun = now(job.device)
        learner.step(*batches.at(step), None)
    return steps * runs * s.batch_size / (now(job.device) - begun)


def main() -> None:
    """Runs the rounds and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="*", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--rounds", type=int, default=3, help="(default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of both (default %(default)s)")
    parser.add_argument("--runs", type=int, default=8, help="of a stack (default %(default)s)")
    parser.add_argument("settings", nargs="*", help="of the recipe")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print("| model | ours, images/s | by hand, images/s | ratio, each round |\n|---|---|---|---|")
    stacks = []
    for name in args.task:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            make_noise(root, SHAPES[name])
            settings = [*TASKS[name], *BASE, f"data.root={root}", *args.settings]
            with hydra_initialized():
                job = build(compose(settings))
            recipe, steps = job.recipe, job.recipe.total_steps
            pairs = [
                (ours(settings, steps, args.threads), by_hand(recipe, root, job.device)) for _ in range(args.rounds)
            ]
            if name in STACKED and args.runs:
                small = [*settings, "model.norm=none"] if name == "cnn" else settings  # vmap knows no batch statistics
                ways = ([*small, f"recipe.stack={how}"] for how in ("vmap", "loop"))
                stacks.append((name, *(of_a_stack(way, args.runs) for way in ways)))
        mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"| {name} | {mine:,.0f} | {theirs:,.0f} | {', '.join(f'{a / b:.2f}' for a, b in pairs)} |", flush=True)
    if stacks:
        print(f"\n| model | {args.runs} runs by vmap, images/s | by loop, images/s | ratio |\n|---|---|---|---|")
    for name, vmapped, looped in stacks:
        print(f"| {name} | {vmapped:,.0f} | {looped:,.0f} | {vmapped / looped:.2f} |")


if __name__ == "__main__":
    main()
