"""The study of `experiment=regression_stability` without a store: `train` writes a row a run, `judge` says the verdict.

    python benchmarks/regression_stability.py train docs/results/regression.csv.gz
    python benchmarks/regression_stability.py judge docs/results/regression.csv.gz

What a run is, is taken from the experiment's file; runs of one problem train as one stack.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import math
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import pandas as pd
import torch
from alphagrad.recipes.tabular.stability import decades_near_best, share_diverged

from alphagrad.common.files import atomic
from alphagrad.harness import metrics
from alphagrad.harness.stack import RunSpec, RunStack
from alphagrad.lab.config import compose, sweep
from alphagrad.lab.config.build import build
from alphagrad.lab.config.overrides import parsed
from alphagrad.lab.evidence.claims.data import Origin, commands, keep
from alphagrad.lab.evidence.claims.ledger import claim
from alphagrad.lab.evidence.statistics.intervals import interval
from alphagrad.lab.records.provenance import provenance

EXPERIMENT = "experiment=regression_stability"
CELL = ("data", "recipe.hidden", "recipe.spread")
KEPT = {"final": metrics.FINAL_ERROR, "test": metrics.EVAL_ERROR, "roughness": metrics.ROUGHNESS}
MEASURES = {"roughness": -1, "diverged": -1, "width": 1}
"""Measure → whether more or less of it is more stable."""
Row = dict[str, str]


class Kept:
    """A log that keeps the last values of each run."""

    observation, observe_every = None, 0

    def __init__(self, runs: int) -> None:
        self.last: list[dict[str, float]] = [{} for _ in range(runs)]

    def metrics(self, run: int, step: int, values: Mapping[str, float]) -> None:
        self.last[run].update(values)

    def diverged(self, run: int, step: int, reason: str) -> None:
        self.last[run] |= dict.fromkeys(KEPT.values(), math.inf)

    def progress(self, step: int, shown: str) -> None: ...

    def restore(self, parts: Mapping[str, Any]) -> int:
        return 0

    def checkpoint(self, step: int, parts: Mapping[str, Any], result: Any) -> None: ...


def swept() -> dict[str, list[str]]:
    """Setting → its values, as the experiment's file has them."""
    overrides = parsed(sweep.sweep_parameters([EXPERIMENT]))
    return {o.get_key_element(): sweep.choices_of(o) if o.is_sweep_override() else [str(o.value())] for o in overrides}


def opened(file: Path, mode: Literal["rt", "wt"]) -> IO[str]:
    """A text file, packed where its name ends in .gz."""
    return (gzip.open if file.suffix == ".gz" else open)(file, mode, encoding="utf-8", newline="")


def words_of(names: Sequence[str], values: Sequence[str]) -> list[str]:
    """Settings as they are given to a command."""
    return [f"{name}={value}" for name, value in zip(names, values, strict=True)]


def train(file: Path) -> None:
    """Trains every job, a stack for each problem, and writes a row a run."""
    torch.set_num_threads(1)
    with compose.hydra_initialized(), atomic(file) as unfinished, opened(unfinished, "wt") as out:
        choices = swept()
        seeds = [int(seed) for seed in choices.pop("seed")]
        told = [name for name, values in choices.items() if len(values) > 1]
        fixed = [f"{name}={values[0]}" for name, values in choices.items() if name not in told]
        inner = [name for name in told if name not in CELL]
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow([*told, "seed", *KEPT])
        jobs = [list(values) for values in product(*(choices[name] for name in inner))]
        optimizers = [build(compose.compose([EXPERIMENT, *fixed, *words_of(inner, job)])).optimizer for job in jobs]
        specs = [RunSpec(seed, optimizer) for optimizer in optimizers for seed in seeds]
        for cell in product(*(choices[name] for name in CELL)):
            words = words_of(CELL, cell)
            recipe = build(compose.compose([EXPERIMENT, *fixed, *words, *words_of(inner, jobs[0])])).recipe
            log = Kept(len(specs))
            recipe.train(RunStack(specs), log)  # type: ignore[arg-type]
            for k, last in enumerate(log.last):
                job = jobs[k // len(seeds)]
                values = {**dict(zip(CELL, cell, strict=True)), **dict(zip(inner, job, strict=True))}
                numbers = [f"{last[metric]:.5g}" for metric in KEPT.values()]
                rows.writerow([*(values[name] for name in told), specs[k].seed, *numbers])
            out.flush()
            print(*words, f"{len(specs)} runs", flush=True)


def measured(rows: Sequence[Row]) -> dict[tuple[str, ...], dict[str, dict[int, dict[str, float]]]]:
    """Cell → normalisation → seed → the three measures."""
    found: dict[tuple[str, ...], dict[str, dict[int, dict[str, float]]]] = {}
    grouped: dict[tuple[str, ...], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        grouped[tuple(row[name] for name in CELL)][row["normalization"]].append(row)
    for cell, normalizations in grouped.items():
        found[cell] = {}
        for normalization, runs in normalizations.items():
            finals: dict[int, dict[float, float]] = defaultdict(dict)
            rough: dict[int, dict[float, float]] = defaultdict(dict)
            for row in runs:
                seed, rate = int(row["seed"]), float(row["optimizer.lr"])
                finals[seed][rate], rough[seed][rate] = float(row["final"]), float(row["roughness"])
            rates = sorted(next(iter(finals.values())))
            best = min(rates, key=lambda rate: np.mean([own[rate] for own in finals.values()]))
            found[cell][normalization] = {
                seed: {
                    "roughness": math.log10(max(rough[seed][best], 1e-12)),
                    "diverged": share_diverged(list(own.values())),
                    "width": decades_near_best(own),
                    "final": own[best],
                    "rate": best,
                }
                for seed, own in finals.items()
            }
    return found


def differences(found: Mapping[tuple[str, ...], Any], one: str, other: str, measure: str) -> list[float]:
    """One minus other for each seed, in the mean over the cells."""
    seeds = sorted(next(iter(found.values()))[one])
    return [
        float(np.mean([cell[one][seed][measure] - cell[other][seed][measure] for cell in found.values()]))
        for seed in seeds
    ]


def judge(file: Path) -> None:
    """Prints the verdict, by the rule in the experiment's file, and the tables behind it."""
    with opened(file, "rt") as text:
        found = measured(list(csv.DictReader(text)))
    print(f"{len(found)} cells, {len(next(iter(found.values()))['tensor'])} seeds\n")
    print("| tensor minus | roughness (log₁₀) | share diverged | width (decades) |\n|---|---|---|---|")
    speaks: dict[str, int] = {}
    for other in ("module", "group", "global", "blend"):
        cells = []
        for measure, better in MEASURES.items():
            values = differences(found, "tensor", other, measure)
            bounds = interval(values)
            assert bounds is not None
            side = 0 if bounds[0] <= 0 <= bounds[1] else int(math.copysign(better, bounds[0]))
            cells.append(f"{np.mean(values):+.3f} [{bounds[0]:+.3f}, {bounds[1]:+.3f}]")
            if other == "module":
                speaks[measure] = side
        print(f"| {other} | {' | '.join(cells)} |")
    print("\n| mean over cells and seeds | final error at the best rate | roughness | diverged | width |")
    print("|---|---|---|---|---|")
    for name in next(iter(found.values())):
        means = [
            np.mean([row[measure] for cell in found.values() for row in cell[name].values()])
            for measure in ("final", *MEASURES)
        ]
        print(f"| {name} | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")
    for_tensor, for_module = list(speaks.values()).count(1), list(speaks.values()).count(-1)
    verdict = "undecided"
    if for_tensor >= 2 and not for_module:
        verdict = "confirmed"
    if for_module >= 2 and not for_tensor:
        verdict = "refuted"
    print(f"\nC9 {verdict}: {for_tensor} of {len(speaks)} measures speak for tensor, {for_module} for module")


def as_evidence(file: Path, folder: Path) -> None:
    """Keeps the three measures of each seed and normalisation, in the mean over the cells, as evidence of C9."""
    with opened(file, "rt") as text:
        runs = list(csv.DictReader(text))
    found = measured(runs)
    rows = [
        {"seed": seed, "normalization": name}
        | {measure: float(np.mean([cell[name][seed][measure] for cell in found.values()])) for measure in MEASURES}
        for name in next(iter(found.values()))
        for seed in sorted(next(iter(found.values()))[name])
    ]
    commit, day = made(file)
    versions = {"torch": torch.__version__.partition("+")[0]}
    one = claim("C9")
    with compose.hydra_initialized():
        planned = math.prod(map(len, swept().values()))
    origin = Origin(commands(one), commit, versions, len(runs), day, planned, rows=len(rows))
    keep(folder, one, pd.DataFrame(rows), origin)


def made(file: Path) -> tuple[str, str]:
    """The commit of a file of runs and its day; of one that is in none yet this tree's, and today."""

    def git(*words: str) -> str:
        told = subprocess.run(["git", *words, "--", str(file)], capture_output=True, text=True, check=False)
        return told.stdout.strip()

    kept = git("log", "-1", "--format=%H %cs").split()
    if kept and not git("status", "--porcelain"):
        return kept[0], kept[1]
    return provenance().get("mlflow.source.git.commit", ""), f"{datetime.now(UTC):%Y-%m-%d}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("train", "judge", "evidence"))
    parser.add_argument("file", type=Path)
    parser.add_argument("folder", type=Path, nargs="?", help="of the evidence", default=Path("evidence"))
    args = parser.parse_args()
    if args.what != "train" and not args.file.is_file():
        parser.error(f"{args.file}: is no file of runs")
    if args.what == "evidence":
        as_evidence(args.file, args.folder)
    else:
        {"train": train, "judge": judge}[args.what](args.file)


if __name__ == "__main__":
    main()
