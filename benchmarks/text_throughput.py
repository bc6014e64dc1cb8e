"""Tokens per second of the recipes text and lm and of loops written by hand, in turn, on one machine.

    python benchmarks/text_throughput.py [--task lm text] [--steps 300] [--rounds 3] [--threads 1] [SETTING ...]

A round trains once with `alphagrad run`, store, instruments and all, and once with a plain loop: the same model,
batches of the same size of the same data, AdamW with PyTorch's one-cycle schedule. Both are timed over the second half
of their steps, evaluations left out. The table holds the medians over the rounds and the ratio of each round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alphagrad.lab import metrics
from alphagrad.lab.build import build_recipe
from alphagrad.lab.compose import compose, hydra_initialized
from alphagrad.lab.results import Results
from alphagrad.lab.store import store_uri

LOG_EVERY = 10
BASE = ["optimizer=adamw", "recipe.eval_every=0", f"recipe.log_every={LOG_EVERY}"]
TASKS = {
    "lm": ["recipe=lm", "recipe.sample_every=0", *BASE],
    "text": ["recipe=text", "model=transformer", "recipe.max_length=128", *BASE],
}


def ours(settings: list[str], steps: int, threads: int) -> float:
    """Tokens per second of a run over the second half of its steps, from its store."""
    with tempfile.TemporaryDirectory() as root:
        command = [sys.executable, "-m", "alphagrad_cli", "run", *settings, f"threads={threads}", f"output_root={root}"]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MLFLOW_DISABLE_TELEMETRY": "true"}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        results = Results(store_uri(f"sqlite:///{root}/mlflow.db", Path(root)), "alphagrad")
        ((run,),) = (group.finished() for group in results.study().groups)
        at, values = results.history(run, metrics.TOKENS_PER_SECOND)
        late = values[at >= steps / 2]
        return float(len(late) / sum(1 / v for v in late))


def sequences(recipe: Any) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Inputs, targets and tokens of recipe lm, as a loader of one's own would cut them."""
    from alphagrad.recipes.lm import tokenized

    s = recipe.settings
    row = torch.from_numpy(tokenized(s.data, s.tokenizer, s.vocabulary)[0]).long()
    pieces = [row[k : k + s.length + 1] for k in range(0, len(row) - s.length, s.length)]
    loader = torch.utils.data.DataLoader(pieces, s.batch_size, shuffle=True, drop_last=True)  # type: ignore[arg-type]
    while True:
        for x in loader:
            yield x[:, :-1], x[:, 1:], s.batch_size * s.length


def texts(recipe: Any) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Inputs, classes and tokens of recipe text, padded by hand."""
    from alphagrad.recipes.language.reading import encoded
    from alphagrad.recipes.language.tokens import START

    s = recipe.settings
    rows = [torch.tensor([START, *ids.tolist()])[: s.max_length] for ids in encoded(recipe.reading, "train")]
    pairs = list(zip(rows, recipe.data.train.labels, strict=True))

    def together(batch: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor, int]:
        ids = nn.utils.rnn.pad_sequence([row for row, _ in batch], batch_first=True, padding_value=recipe.pad)
        return ids, torch.tensor([label for _, label in batch]), sum(len(row) for row, _ in batch)

    loader = torch.utils.data.DataLoader(pairs, s.batch_size, shuffle=True, drop_last=True, collate_fn=together)  # type: ignore[arg-type]
    while True:
        yield from loader


def by_hand(recipe: Any, data: Callable[[Any], Iterator[tuple[Tensor, Tensor, int]]], steps: int) -> float:
    """Tokens per second of a plain loop over the second half of its steps."""
    torch.manual_seed(0)
    model = recipe.networks()["model"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    batches, tokens, begun = data(recipe), 0, 0.0
    model.train()
    for step in range(steps):
        if step == steps // 2:
            tokens, begun = 0, time.perf_counter()
        inputs, targets, count = next(batches)
        outputs = model(inputs)
        loss = nn.functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())
        loss.backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        tokens += count
        if step % LOG_EVERY == 0:
            float(loss)  # what is printed
    return tokens / (time.perf_counter() - begun)


def main() -> None:
    """Runs the rounds and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--steps", type=int, default=300, help="of a run (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of both (default %(default)s)")
    parser.add_argument("settings", nargs="*", help="of the recipe")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print("| task | ours, tokens/s | by hand, tokens/s | ratio, each round |\n|---|---|---|---|")
    for name in args.task:
        settings = [*TASKS[name], *args.settings]
        with hydra_initialized():
            recipe = build_recipe(compose(settings))
        if name == "lm":
            settings.append(f"recipe.total_steps={args.steps}")
        else:
            epochs = round(args.steps / recipe.steps_per_epoch)  # type: ignore[attr-defined]
            settings.append(f"recipe.epochs={epochs}")
        steps = args.steps if name == "lm" else epochs * recipe.steps_per_epoch  # type: ignore[attr-defined]
        data = sequences if name == "lm" else texts
        pairs = [(ours(settings, steps, args.threads), by_hand(recipe, data, steps)) for _ in range(args.rounds)]
        mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratios = ", ".join(f"{a / b:.2f}" for a, b in pairs)
        print(f"| {name} | {mine:,.0f} | {theirs:,.0f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
