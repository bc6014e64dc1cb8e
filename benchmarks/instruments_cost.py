"""The share of training that ``instruments=economy`` takes, timed inside real runs.

    python benchmarks/instruments_cost.py [--task ppo dqn td3] [--optimizer adam alphagrad] [--repeats 3]

A measured optimizer step costs what it takes beyond the median step without measurement, and the logging
of its signals; the share is their sum over the whole run's time. Whole runs with and without
instruments differ on a shared machine by far more than what is looked for.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}

TASKS = {
    "dqn": ("dqn_cartpole", 60_000, ("recipe.learning_starts=2000",)),
    "ppo": ("ppo_halfcheetah", 40_960, ()),
    "td3": ("td3_hopper", 6_000, ("recipe.learning_starts=1000",)),
}


@dataclass
class Clock:
    """Seconds of one run's optimizer steps and of logging their signals."""

    plain: list[float] = field(default_factory=list)
    measured: list[float] = field(default_factory=list)
    logging: float = 0.0

    def extra(self) -> float:
        """The seconds that measurement added."""
        usual = statistics.median(self.plain)
        return sum(t - usual for t in self.measured) + self.logging

    @contextmanager
    def attached(self) -> Any:
        """Times every step of the runs within."""
        from alphagrad.harness.sharing import StackOptimizer
        from alphagrad.instruments.quantities import GRAD_NORM
        from alphagrad.lab.training.log import TrackedLog

        step, record = StackOptimizer.step, TrackedLog.metrics

        def timed_step(optimizer: StackOptimizer, grads: Any, observe: Any = None) -> Any:
            start = time.perf_counter()
            result = step(optimizer, grads, observe)
            (self.plain if observe is None else self.measured).append(time.perf_counter() - start)
            return result

        def timed_record(log: TrackedLog, run: int, at: int, row: Any) -> None:
            start = time.perf_counter()
            record(log, run, at, row)
            if any(name.startswith(GRAD_NORM) for name in row):
                self.logging += time.perf_counter() - start

        with patch.object(StackOptimizer, "step", timed_step), patch.object(TrackedLog, "metrics", timed_record):
            yield


def share_of(task: str, optimizer: str) -> tuple[float, int, int]:
    """One run's share, its measured steps and all its steps."""
    import alphagrad_cli

    recipe, steps, more = TASKS[task]
    clock = Clock()
    with tempfile.TemporaryDirectory() as root, clock.attached():
        command = ["run", f"recipe={recipe}", f"optimizer={optimizer}", f"recipe.total_steps={steps}", *more]
        command += [f"output_root={root}", "recipe.eval_every=0", "recipe.eval_episodes=1", "recipe.compile=true"]
        start = time.perf_counter()
        if alphagrad_cli.main(command):
            raise SystemExit(f"the run of {recipe} failed")
        elapsed = time.perf_counter() - start
    return clock.extra() / elapsed, len(clock.measured), len(clock.measured) + len(clock.plain)


def main() -> None:
    """Runs and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--optimizer", nargs="+", default=["adam", "alphagrad"])
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (default %(default)s)")
    args = parser.parse_args()
    print("| recipe | optimizer | measured steps | share of the run, each repeat |\n|---|---|---|---|")
    for task in args.task:
        for optimizer in args.optimizer:
            rows = [share_of(task, optimizer) for _ in range(args.repeats)]
            shares = ", ".join(f"{100 * share:.2f} %" for share, _, _ in rows)
            print(f"| {TASKS[task][0]} | {optimizer} | {rows[0][1]} of {rows[0][2]} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
