"""What one setting changes by itself, pair by pair, from the runs kept in the repository.

    python benchmarks/paired_effects.py momentum
    python benchmarks/paired_effects.py ppo
    python benchmarks/paired_effects.py hopper

`momentum` is of `experiment=momentum` (docs/results/vision.md), `ppo` of claim C3 and `hopper` of C2 (docs/paper.md).
All are judged as claims are: runs of one seed are a pair, intervals are of 95 %, and a best rate is chosen on the even
seeds and compared on the odd ones.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from alphagrad.lab.evidence.claims import ledger
from alphagrad.lab.evidence.claims.data import read
from alphagrad.lab.evidence.claims.ledger import Cell, Claim, Part
from alphagrad.lab.evidence.claims.verdict import decide
from alphagrad.lab.evidence.statistics.intervals import interval

ROOT = Path(__file__).resolve().parents[1]
LR, MOMENTUM, CLIP, EPS = "optimizer.lr", "optimizer.momentum", "optimizer.clip_grad_norm", "optimizer.eps"
DIGITS = Claim.model_construct(name="-", objective="eval/accuracy", seeds=20, worst={"eval/accuracy": 0.0}, parts={})
"""What `momentum` is judged as; its parts are the pairs."""


def momentum() -> None:
    """What momentum is worth on digits."""
    table = pd.read_csv(ROOT / "docs/results/momentum.csv.gz")
    none: list[Cell] = [{"variant": variant, MOMENTUM: 0.0} for variant in ("alphagrad", "sqrt_dim")]
    pairs = {
        f"{cell['variant']}: momentum 0.9 minus none, each at its best rate": (cell | {MOMENTUM: 0.9}, cell)
        for cell in none
    }
    told(DIGITS, table, pairs, ("variant", MOMENTUM, LR), (".4f", ".4f"), best=(LR,))


def ppo() -> None:
    """What clipping, ε and momentum change in the paper's comparison on HalfCheetah, all at its rate."""
    claim = ledger.claim("C3")
    table, _ = read(ROOT / "evidence", claim)
    assert table is not None
    table = table[(table["env.id"] == "HalfCheetah-v5") & (table[LR] == 3e-4)]
    adam: Cell = {"optimizer.name": "adam"}
    published = adam | {CLIP: 0.5, EPS: 1e-5}
    alpha: Cell = {"optimizer.name": "alphagrad", "alpha.value": 98}
    bare = alpha | {CLIP: None, MOMENTUM: 0.0}
    pairs = {
        "Adam: no clip minus clip": (adam | {CLIP: None}, adam | {CLIP: 0.5}),
        "Adam: ε = 1e-8 minus 1e-5": (adam | {EPS: 1e-8}, adam | {EPS: 1e-5}),
        "α = 98: no clip minus clip": (alpha | {CLIP: None}, alpha | {CLIP: 0.5}),
        "α = 98, no clip: no momentum minus 0.9": (bare, bare | {MOMENTUM: 0.9}),
        "α = 98, no clip, no momentum, minus the published Adam": (bare, published),
        "α = 98, no clip, no momentum, minus Adam without clip": (bare, published | {CLIP: None}),
    }
    told(claim, table, pairs, ("optimizer.name", "alpha.value", CLIP, EPS, MOMENTUM), (".0f", ".0f"))


def hopper() -> None:
    """Whether α = 100 learns Hopper with less momentum or rate: the rule of conf/experiment/hopper_momentum.yaml."""
    claim = ledger.claim("C2")
    adam, _ = read(ROOT / "evidence", claim)
    assert adam is not None
    own = pd.read_csv(ROOT / "docs/results/hopper_momentum.csv.gz")
    table = pd.concat([own, adam[(adam["optimizer.name"] == "adam") & (adam[LR] == 3e-4)]], ignore_index=True)
    pairs: dict[str, tuple[Cell, Cell]] = {
        f"α = 100: momentum {momentum}, lr {lr:g}, minus Adam at 3e-4": (
            {"optimizer.name": "alphagrad", MOMENTUM: momentum, LR: lr},
            {"optimizer.name": "adam"},
        )
        for momentum in (0.0, 0.9)
        for lr in (3e-5, 1e-4, 3e-4)
    }
    half = 0.301  # of Adam's return, log₁₀
    told(claim, table, pairs, ("optimizer.name", MOMENTUM, LR), (".0f", ".2f"), log=True, within=half)


def told(
    claim: Claim,
    table: pd.DataFrame,
    pairs: dict[str, tuple[Cell, Cell]],
    groups: tuple[str, ...],
    forms: tuple[str, str],
    **rule: Any,
) -> None:
    """Prints the mean of each group of runs, then the difference of each pair, with their intervals.

    A mean is of the runs that finished, and the number of others is told; in a difference these count as the worst.

    Args:
        claim: whose objective is compared, with its seeds and its worst.
        table: a row for each run.
        pairs: what is compared → first and than. Over settings that neither names, a seed's value is the mean.
        groups: settings whose values tell one mean from the next.
        forms: how a mean is written, and how a difference.
        rule: of each pair, as a part of a claim has it. With ``within`` it is said whether first keeps to it.
    """
    measure, of_mean, of_difference = claim.objective, forms[0], "+" + forms[1]
    print(f"| {' | '.join(groups)} | runs | {measure} |\n|{'---|' * (len(groups) + 2)}")
    for values, rows in table.groupby(list(groups), dropna=False):
        cells = ["" if pd.isna(value) else str(value) for value in values]
        ended = rows["status"] == "finished" if "status" in rows else rows[measure].notna()
        runs = rows[measure][ended & rows[measure].notna()].tolist()
        mean = f"{np.mean(runs):{of_mean}} {bounded(interval(runs), of_mean)}" if runs else ""
        failed = f", and {len(rows) - len(runs)} failed" if len(runs) < len(rows) else ""
        print(f"| {' | '.join(cells)} | {len(runs)}{failed} | {mean} |")
    parts = {
        says: Part(says=says, measure=measure, first=first, than=than, **rule) for says, (first, than) in pairs.items()
    }
    asked = claim.model_copy(update={"parts": parts})
    last = "stand" if "within" in rule else "chosen"
    print(f"\n| difference | pairs | mean | {last} |\n|---|---|---|---|")
    for says, found in decide(asked, table).parts.items():
        mean = f"{found.effect:{of_difference}} {bounded(found.interval, of_difference)}"
        print(f"| {says} | {found.n} | {mean} | {getattr(found, last)} |")


def bounded(bounds: tuple[float, float] | None, form: str) -> str:
    """An interval, as pages have it."""
    return "" if bounds is None else f"[{bounds[0]:{form}}, {bounds[1]:{form}}]"


def main() -> None:
    """The command line."""
    questions = {"momentum": momentum, "ppo": ppo, "hopper": hopper}
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("question", choices=questions)
    questions[parser.parse_args().question]()


if __name__ == "__main__":
    main()
