"""What ``instruments=economy`` and ``instruments=full`` take of a step: PPO, a CNN, a language model.

    python benchmarks/instruments_cost.py [--task ppo cnn lm] [--optimizer adam alphagrad] [--repeats 3]

Within one run the tier changes at every gradient step: none, economy, none, full. A tier's share is the median of what
its measuring takes, and the logging of its signals, over the mean time of a step without; a measured step comes every
200 (economy) or 20 (full) steps. Whole runs with and without instruments differ on a shared machine by far more than
what is looked for.
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

SHORT = ("recipe.eval_every=0", "instruments.every=1")
TASKS = {
    "ppo": ("ppo_halfcheetah", ("recipe.total_steps=2048", "recipe.eval_episodes=1", "recipe.compile=true")),
    "cnn": ("image", ("data=digits", "model=cnn", "recipe.stack=loop", "recipe.epochs=10")),
    "lm": ("lm", ("recipe.total_steps=24",)),
    "dqn": ("dqn_cartpole", ("recipe.total_steps=4000", "recipe.learning_starts=1000", "recipe.eval_episodes=1")),
}
EVERY = {"economy": 200, "full": 20}
"""Steps between measurements, as in conf/instruments."""


@dataclass
class Clock:
    """Seconds of one run's gradient steps, by tier."""

    steps: dict[str, list[float]] = field(default_factory=lambda: {"none": [], "economy": [], "full": []})
    logging: dict[str, list[float]] = field(default_factory=lambda: {"economy": [], "full": []})
    last: float | None = None
    tier: str = "none"
    taken: int = 0

    def next_tier(self) -> str:
        """The tier of the next step; what it costs is told when the step after it begins."""
        self.tier = ("none", "economy", "none", "full")[self.taken % 4]
        self.taken += 1
        return self.tier


def observed(clock: Clock) -> Any:
    """``Driver.observed`` that measures at the clock's pace, and tells the clock what the measuring took."""
    from alphagrad.harness.driver import Driver
    from alphagrad.instruments.sums import Observation

    own = Driver.observed
    tiers = {"economy": Observation(4, 2.5), "full": Observation(1000, 2.5, details=True)}

    @contextmanager
    def timed(driver: Driver, observe: Any, noise: Any = None) -> Any:
        tier = clock.next_tier()
        start = time.perf_counter()
        with own(driver, tiers.get(tier), noise) as seen:
            ready = time.perf_counter()
            yield seen
            done = time.perf_counter()
        clock.steps[tier].append(time.perf_counter() - done + ready - start)

    return timed


def shares_of(task: str, optimizer: str) -> dict[str, float]:
    """Tier → its share of one run's time."""
    import alphagrad_cli
    from alphagrad.harness.driver import Driver
    from alphagrad.lab.training.log import TrackedLog

    recipe, more = TASKS[task]
    clock, record = Clock(), TrackedLog.metrics
    begun: list[float] = []

    def timed_record(log: TrackedLog, run: int, at: int, row: Any) -> None:
        begun.append(time.perf_counter())
        record(log, run, at, row)
        if clock.tier in clock.logging and any(name.startswith("update_ratio/") for name in row):
            clock.logging[clock.tier].append(time.perf_counter() - begun[-1])

    with (
        tempfile.TemporaryDirectory() as root,
        patch.object(Driver, "observed", observed(clock)),
        patch.object(TrackedLog, "metrics", timed_record),
    ):
        command = ["run", f"recipe={recipe}", f"optimizer={optimizer}", *more, *SHORT, f"output_root={root}"]
        ticks = steps_of(command, alphagrad_cli)
    cost = {tier: statistics.median(clock.steps[tier]) - statistics.median(clock.steps["none"]) for tier in EVERY}
    logged = sum(map(len, clock.logging.values())) / clock.taken
    plain = ticks - sum(sum(x) for x in clock.steps.values()) - sum(sum(x) for x in clock.logging.values())
    step = plain / clock.taken
    told = {tier: statistics.mean(took) if took else 0.0 for tier, took in clock.logging.items()}
    # PPO logs the last of a rollout's measurements alone, the others each
    return {tier: (cost[tier] / EVERY[tier] + told[tier] * min(logged, 1 / EVERY[tier])) / step for tier in EVERY}


def steps_of(command: list[str], cli: Any) -> float:
    """Seconds of training of a command: from its first gradient step's end to its last's."""
    from alphagrad.harness.driver import Driver

    ends: list[float] = []
    step = Driver.observed

    @contextmanager
    def marked(driver: Driver, observe: Any, noise: Any = None) -> Any:
        with step(driver, observe, noise) as seen:
            yield seen
        ends.append(time.perf_counter())

    with patch.object(Driver, "observed", marked):
        if cli.main(command):
            raise SystemExit(f"failed: {' '.join(command)}")
    return ends[-1] - ends[0]


def main() -> None:
    """Runs and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="+", choices=list(TASKS), default=["ppo", "cnn", "lm"])
    parser.add_argument("--optimizer", nargs="+", default=["adam", "alphagrad"])
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (default %(default)s)")
    args = parser.parse_args()
    print("| recipe | optimizer | economy, each repeat | full, each repeat |\n|---|---|---|---|")
    for task in args.task:
        for optimizer in args.optimizer:
            rows = [shares_of(task, optimizer) for _ in range(args.repeats)]
            told = [", ".join(f"{100 * row[tier]:.2f} %" for row in rows) for tier in EVERY]
            print(f"| {TASKS[task][0]} | {optimizer} | {told[0]} | {told[1]} |", flush=True)


if __name__ == "__main__":
    main()
