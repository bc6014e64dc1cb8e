"""How long a report takes of a large study: 200 runs with 500 points of 20 metrics each, 2,000,000 points in all.

    python benchmarks/report_speed.py

The store is made first, with random curves, and is not part of the time. Told are the seconds by the clock and of the
processor that `alphagrad report --html` takes, from the command to its end, the median of several.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from alphagrad.harness import metrics
from alphagrad.lab.records.run import Tracker
from alphagrad.lab.records.search import CELL, CONFIGURATION, PARENT, RECIPE, SEED, VARIANT
from alphagrad.lab.records.study import KIND
from alphagrad.lab.store.address import store_uri

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
VARIANTS = ("adam", "sgd", "alphagrad", "sqrt_dim")


def make_store(root: Path, seeds: int, points: int, kinds: int) -> None:
    """A study of four optimizers at five rates."""
    uri, rng = store_uri(None, root), np.random.default_rng(0)
    named = [f"saturation/{number}.weight" for number in range(kinds - 3)]
    names = [metrics.FINAL_RETURN, metrics.EVAL_RETURN, metrics.EPISODIC_RETURN, *named]
    with Tracker(uri, "dqn_cartpole").run("recipe=dqn_cartpole", {}, {KIND: "study"}) as study:
        for variant in VARIANTS:
            for rate in RATES:
                for seed in range(seeds):
                    cell = f"{variant} optimizer.lr={rate:g}"
                    tags = {RECIPE: "dqn_cartpole", VARIANT: variant, CELL: cell, CONFIGURATION: cell, SEED: str(seed)}
                    tags |= {PARENT: study.run_id, "config_hash": cell}
                    tags["alphagrad.headlines"] = json.dumps({metrics.FINAL_RETURN: 1, metrics.EVAL_RETURN: 1})
                    settings = {"optimizer.name": variant, "optimizer.lr": rate}
                    with Tracker(uri, "dqn_cartpole").run(f"{cell} seed={seed}", settings, tags) as run:
                        curves = rng.normal(size=(points, len(names))).cumsum(0)
                        for step, row in enumerate(curves):
                            run.metrics(step * 1000, dict(zip(names, row.tolist(), strict=True)))


def timed(root: Path) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    command = [sys.executable, "-m", "alphagrad_cli", "report", "--output-root", str(root), "--html", "report.html"]
    began, before = time.perf_counter(), os.times()
    subprocess.run(command, cwd=root, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - began, used


def main() -> None:
    """Makes the store, and tells the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("seeds", 10), ("points", 500), ("metrics", 20), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        make_store(root, args.seeds, args.points, args.metrics)
        found = [timed(root) for _ in range(args.repeats)]
        size = (root / "report.html").stat().st_size
    clock, processor = (statistics.median(column) for column in zip(*found, strict=True))
    runs = len(VARIANTS) * len(RATES) * args.seeds
    print(f"{runs} runs, {args.points} points of {args.metrics} metrics: {clock:.1f} s, of which the processor")
    print(f"{processor:.1f} s; the page has {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
