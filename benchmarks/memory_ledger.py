"""The bytes of training: parameters, gradients, an optimizer's state, and the peak of a step, measured.

    python benchmarks/memory_ledger.py                     # the tables of docs/precision.md
    python benchmarks/memory_ledger.py --optimizers adam alphagrad --budgets 256000

Every optimizer of conf/optimizer takes three steps; of the third torch's profiler tells each allocation on the CPU.
*Peak* is the most that parameters, state and these held at one time, from the forward pass to the end of the update.
Tensors are counted, not the program; what numba's kernels allot is not seen. The second table grows a network, by
bisection, as long as the measured peak fits.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile

from alphagrad.harness.driver import Driver, OptimizerSpec
from alphagrad.lab.config.build import build
from alphagrad.lab.config.compose import compose, hydra_initialized

TASKS: Mapping[str, tuple[str, ...]] = {
    "mlp": ("recipe=image",),
    "cnn": ("recipe=image", "model=cnn"),
    "lm": ("recipe=lm", "model.width=32", "model.layers=1", "model.heads=2", "recipe.length=32", "recipe.batch_size=8"),
}
"""Digits by the recipe's own MLP and CNN, 128 images a step; text by a small GPT-2."""
MORE: Mapping[str, tuple[str, ...]] = {
    "alphagrad, no momentum": ("optimizer=alphagrad", "optimizer.momentum=0"),
    "alphagrad": ("optimizer=alphagrad",),
    "alphagrad, bfloat16 momentum": ("optimizer=alphagrad", "optimizer.momentum_dtype=bfloat16"),
    "sgd, no momentum": ("optimizer=sgd", "optimizer.momentum=0"),
    "signsgd, no momentum": ("optimizer=signsgd", "optimizer.momentum=0"),
}
SMALL = (*MORE, "sgd", "adam")
"""What the second table compares."""
BUDGETS = (256_000, 1_000_000, 16_000_000)


@dataclass(frozen=True)
class Bytes:
    """What one step of training takes."""

    parameters: int
    gradients: int
    state: int
    peak: int


def size(value: Any) -> int:
    """The bytes of all tensors in a value; a scalar counts too."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(map(size, parts))


def measured(module: nn.Module, spec: OptimizerSpec, inputs: Tensor, targets: Tensor) -> Bytes:
    """The bytes of a step on inputs [B, ...] and classes [B, ...]."""
    params = dict(module.named_parameters())
    driver = Driver(spec, params)

    def step() -> int:
        outputs = module(inputs)
        cross_entropy(outputs.flatten(0, -2), targets.flatten()).backward()
        gradients = sum(size(p.grad) for p in params.values())
        driver.clip()
        driver.step()
        for p in params.values():
            p.grad = None
        return gradients

    step()
    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        gradients = step()
    state = size(list(driver.optimizer.state.values()))
    held = size([*params.values(), *module.buffers(), inputs, targets]) + state
    return Bytes(size([*params.values()]), gradients, state, held + most(seen))


def most(seen: Any) -> int:
    """The most bytes that were allotted and not yet given back, of what was profiled."""
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = highest = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        highest = max(highest, held)
    return highest


def spec_of(words: tuple[str, ...]) -> OptimizerSpec:
    """The optimizer that a command line names."""
    return build(compose([*words, "device=cpu"])).optimizer


def task_of(name: str) -> tuple[Callable[[], nn.Module], Tensor, Tensor]:
    """What makes a task's network, and inputs and targets of a step, which are random."""
    recipe: Any = build(compose([*TASKS[name], "device=cpu"])).recipe
    batch, torch_rng = recipe.settings.batch_size, torch.Generator().manual_seed(0)
    make = lambda: next(iter(recipe.networks().values()))  # noqa: E731
    if name == "lm":
        shape = batch, recipe.settings.length
        ids = torch.randint(256, shape, generator=torch_rng)
        return make, ids, ids
    images = torch.randn(batch, *recipe.data.shape, generator=torch_rng)
    return make, images, torch.randint(10, (batch,), generator=torch_rng)


def mlp(width: int) -> nn.Module:
    """784 inputs, one hidden layer, 10 classes."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))


def cnn(width: int) -> nn.Module:
    """3×3 convolutions to ``width`` and twice that many channels of 28×28 images, as the recipe's cnn, 10 classes."""
    return nn.Sequential(
        *(nn.Conv2d(1, width, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(width, 2 * width, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(98 * width, 10)),
    )


FAMILIES: Mapping[str, Callable[[int], nn.Module]] = {"mlp": mlp, "cnn": cnn}


def largest(family: Callable[[int], nn.Module], spec: OptimizerSpec, budget: int) -> tuple[int, int]:
    """The largest width of a family that trains image by image within so many bytes, and its parameters; 0 if none."""
    image, label = torch.randn(1, 1, 28, 28), torch.zeros(1, dtype=torch.int64)

    def fits(width: int) -> bool:
        return measured(family(width), spec, image, label).peak <= budget

    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low, sum(p.numel() for p in family(low).parameters()) if low else 0


def ledger(named: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """A row for each optimizer; kB of each task."""
    heads = " | ".join(f"{task}: state | peak" for task in TASKS)
    tasks = {task: task_of(task) for task in TASKS}
    yield f"| optimizer | {heads} |"
    yield "|---" * (1 + 2 * len(TASKS)) + "|"
    known: dict[str, Bytes] = {}
    for name, words in named.items():
        cells = []
        for task, (make, inputs, targets) in tasks.items():
            torch.manual_seed(0)
            known[task] = found = measured(make(), spec_of((*TASKS[task], *words)), inputs, targets)
            cells += [f"{found.state / 1000:,.1f}", f"{found.peak / 1000:,.0f}"]
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""
    for task, found in known.items():
        yield f"{task}: {found.parameters / 1000:,.1f} kB of parameters, {found.gradients / 1000:,.1f} of gradients"


def fitting(named: Mapping[str, tuple[str, ...]], budgets: list[int]) -> Iterator[str]:
    """A row for each optimizer; the width and the parameters of the largest network within each budget."""
    columns = [(family, budget) for family in FAMILIES for budget in budgets]
    yield f"| optimizer | {' | '.join(f'{family}, {budget / 1000:,.0f} kB' for family, budget in columns)} |"
    yield "|---" * (1 + len(columns)) + "|"
    for name, words in named.items():
        spec = spec_of(("recipe=image", *words))
        found = [largest(FAMILIES[family], spec, budget) for family, budget in columns]
        yield f"| {name} | {' | '.join(f'{width} ({parameters:,})' for width, parameters in found)} |"


def main() -> None:
    """Prints both tables."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--optimizers", nargs="*", help="names of conf/optimizer; default: all")
    options.add_argument("--budgets", nargs="*", type=int, default=list(BUDGETS), help="bytes; none: no second table")
    args = options.parse_args()
    torch.set_num_threads(1)
    folder = Path(__file__).resolve().parents[1] / "conf" / "optimizer"
    files = sorted(file.stem for file in folder.glob("[a-z]*.yaml"))
    chosen = args.optimizers or [*MORE, *(name for name in files if name not in MORE)]
    named = {name: MORE.get(name, (f"optimizer={name}",)) for name in chosen}
    with hydra_initialized():
        for line in ledger(named):
            print(line, flush=True)
        if args.budgets:
            print()
            compared = {name: words for name, words in named.items() if name in SMALL}
            for line in fitting(compared, args.budgets):
                print(line, flush=True)


if __name__ == "__main__":
    main()
