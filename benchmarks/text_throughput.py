"""Tokens per second of the recipes text and lm and of loops written by hand, in turn, in one process.

    python benchmarks/text_throughput.py [--task lm text] [--steps 400] [--turn 10] [--threads 1] [SETTING ...]

A run of the recipe, with its store, instruments and all, stands still after every turn of so many steps while a plain
loop does as many: the same model, batches of the same size of the same data, AdamW with PyTorch's one-cycle schedule.
So both meet the same machine, whatever else it does. Evaluations and the first turn are left out. The table holds the
rates over all turns, their ratio, the middle half of the ratios of single turns, and the ratio by CPU time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from turns import Turns

from alphagrad.lab.config.build import build_recipe
from alphagrad.lab.config.compose import compose, hydra_initialized
from alphagrad.lab.training.job import assignment_of
from alphagrad.lab.training.runner import run_stack

Data = Iterator[tuple[Tensor, Tensor, int]]
"""Inputs, targets, and how many tokens they are, padding left out."""
TASKS = {
    "lm": ["recipe=lm", "recipe.sample_every=0"],
    "text": ["recipe=text", "model=transformer", "recipe.max_length=128"],
}


def sequences(recipe: Any) -> Data:
    """Batches of recipe lm, as anyone would cut them."""
    from alphagrad.recipes.lm import tokenized

    s = recipe.settings
    row = torch.from_numpy(tokenized(s.data, s.tokenizer, s.vocabulary)[0]).long()
    pieces: Any = [row[k : k + s.length + 1] for k in range(0, len(row) - s.length, s.length)]
    loader: Any = DataLoader(pieces, s.batch_size, shuffle=True, drop_last=True)
    while True:
        for x in loader:
            yield x[:, :-1], x[:, 1:], s.batch_size * s.length


def texts(recipe: Any) -> Data:
    """Batches of recipe text, padded by hand to their longest."""
    from alphagrad.recipes.language.reading import encoded
    from alphagrad.recipes.language.tokens import START

    s = recipe.settings
    rows = [torch.tensor([START, *ids.tolist()])[: s.max_length] for ids in encoded(recipe.reading, "train")]
    pairs: Any = list(zip(rows, recipe.data.train.labels, strict=True))

    def together(batch: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor, int]:
        ids = nn.utils.rnn.pad_sequence([row for row, _ in batch], batch_first=True, padding_value=recipe.pad)
        return ids, torch.tensor([label for _, label in batch]), sum(len(row) for row, _ in batch)

    loader: Any = DataLoader(pairs, s.batch_size, shuffle=True, drop_last=True, collate_fn=together)
    while True:
        yield from loader


def by_hand(recipe: Any, data: Data, steps: int) -> Iterator[int]:
    """A plain loop that stands still after every step; yields its tokens."""
    torch.manual_seed(0)
    model = recipe.networks()["model"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    model.train()
    for inputs, targets, count in data:
        outputs = model(inputs)
        loss = nn.functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())
        loss.backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        yield count


def main() -> None:
    """Runs the tasks and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--steps", type=int, default=400, help="of both (default %(default)s)")
    parser.add_argument("--turn", type=int, default=10, help="steps of a turn (default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="(default %(default)s)")
    parser.add_argument("settings", nargs="*", help="of the recipe")
    args = parser.parse_args()
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    makers: dict[str, Callable[[Any], Data]] = {"lm": sequences, "text": texts}
    print("| task | ours, tokens/s | by hand, tokens/s | ratio | of single turns | by CPU time |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in args.task:
        with hydra_initialized(), tempfile.TemporaryDirectory() as root:
            settings = [*TASKS[name], "optimizer=adamw", "recipe.eval_every=0", f"recipe.log_every={args.turn}"]
            settings += [f"threads={args.threads}", f"output_root={root}", *args.settings]
            recipe: Any = build_recipe(compose(settings))
            if name == "lm":
                tokens = float(recipe.settings.batch_size * recipe.settings.length)
                steps = args.steps
                settings.append(f"recipe.total_steps={steps}")
            else:
                tokens = recipe.settings.batch_size * float(
                    recipe.texts("train", torch.device("cpu")).lengths.double().mean()
                )
                epochs = max(1, round(args.steps / recipe.steps_per_epoch))
                steps = epochs * recipe.steps_per_epoch
                settings.append(f"recipe.epochs={epochs}")
            turns = Turns(by_hand(recipe, makers[name](recipe), 2 * steps), tokens)
            run_stack([assignment_of(compose(settings), settings, Path(root) / "run")], line=turns)
        print(f"| {name} | {turns.row()}", flush=True)


if __name__ == "__main__":
    main()
