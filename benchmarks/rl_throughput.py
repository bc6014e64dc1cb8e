"""Steps per second of these recipes and of CleanRL's own scripts, in turn, on one machine.

    python benchmarks/rl_throughput.py --cleanrl DIR [--python PYTHON] [--task ppo dqn td3] [--repeats 3]

DIR is a checkout of CleanRL, PYTHON an interpreter that can run its scripts (it pins older packages than
these recipes; both must have the same torch). A round runs each program once; the table holds the medians
over the rounds and the ratios of each round. An ablation of ours is ten runs in two processes; CleanRL's is
two of its scripts at a time, since each is a process of its own.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Task:
    """A pair of programs that do the same."""

    recipe: str
    script: str
    env_id: str
    steps: int
    """Environment steps of a run, long enough that start-up and compilation fade."""
    learning_starts: int
    """Where the steady rate begins; 0 where learning begins at once."""


TASKS = {
    "ppo": Task("ppo_halfcheetah", "ppo_continuous_action.py", "HalfCheetah-v4", 61_440, 0),
    "dqn": Task("dqn_cartpole", "dqn.py", "CartPole-v1", 100_000, 10_000),
    "td3": Task("td3_hopper", "td3_continuous_action.py", "Hopper-v4", 12_000, 2_000),
}
ABLATION = 10
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}


def ours(task: Task, runs: int) -> float:
    """Steps per second, summed over ``runs`` runs, of the second half of training."""
    with tempfile.TemporaryDirectory() as root:
        settings = [f"recipe={task.recipe}", f"env.id={task.env_id}", "optimizer=adam", f"output_root={root}"]
        settings += [f"recipe.total_steps={task.steps}", "recipe.eval_episodes=1", "recipe.eval_every=0"]
        settings += ["recipe.compile=true", f"seed=range({runs})", "hydra/launcher=stacked"]
        if task.learning_starts:
            settings.append(f"recipe.learning_starts={task.learning_starts}")
        command = [sys.executable, "-m", "alphagrad_cli", "run", "-m", *settings]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, **ENVIRONMENT})
        return sum(steady_rates(Path(root), task))


def steady_rates(root: Path, task: Task) -> list[float]:
    """Each run's rate over the second half of its steps, from the store."""
    from alphagrad.harness import metrics
    from alphagrad.lab.evidence.results import Results
    from alphagrad.lab.store.address import store_uri

    results = Results(store_uri(f"sqlite:///{root}/mlflow.db", root), "alphagrad")
    rates = []
    for group in results.study().groups:
        for run in group.finished():
            steps, values = results.history(run, metrics.STEPS_PER_SECOND)
            late = values[steps >= task.steps / 2]
            rates.append(len(late) / sum(1 / v for v in late))
    return rates


def cleanrl(task: Task, folder: Path, python: str, at_once: int) -> float:
    """Steps per second, summed over scripts run at once, of the second half of training."""
    with tempfile.TemporaryDirectory() as work:
        arguments = ["--env-id", task.env_id, "--total-timesteps", str(task.steps), "--no-cuda"]
        if task.learning_starts:
            arguments += ["--learning-starts", str(task.learning_starts)]
        environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(folder), "PYTHONUNBUFFERED": "1"}
        started = [
            subprocess.Popen(
                [python, str(folder / "cleanrl" / task.script), *arguments, "--seed", str(seed)],
                cwd=work,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for seed in range(1, at_once + 1)
        ]
        return sum(rates_together(started, task.steps))


def rates_together(processes: list[subprocess.Popen[str]], total: int) -> list[float]:
    """Each process's rate over the second half, from the times at which its progress was printed."""
    import threading

    rates: list[float] = []

    def follow(process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        middle: tuple[int, float] | None = None
        last = (0, 0.0)
        for line in process.stdout:
            found = re.search(r"global_step=(\d+)", line)
            if found:
                last = (int(found[1]), time.perf_counter())
                if middle is None and last[0] >= total / 2:
                    middle = last
        if process.wait() or middle is None or last[0] <= middle[0]:
            assert process.stderr is not None
            raise SystemExit(f"CleanRL's script failed:\n{process.stderr.read()[-2000:]}")
        rates.append((last[0] - middle[0]) / (last[1] - middle[1]))

    threads = [threading.Thread(target=follow, args=(process,)) for process in processes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return rates


def main() -> None:
    """Runs the rounds and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cleanrl", type=Path, required=True, help="a checkout of CleanRL")
    parser.add_argument("--python", default=sys.executable, help="interpreter for its scripts")
    parser.add_argument("--task", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default %(default)s)")
    args = parser.parse_args()
    print("| task | runs | ours, steps/s | CleanRL, steps/s | ratio, each round |\n|---|---|---|---|---|")
    for name in args.task:
        task = TASKS[name]
        for runs, at_once in ((1, 1), (ABLATION, 2)):
            pairs = []
            for _ in range(args.repeats):
                pairs.append((ours(task, runs), cleanrl(task, args.cleanrl.resolve(), args.python, at_once)))
            mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
            ratios = ", ".join(f"{a / b:.2f}" for a, b in pairs)
            label = "single" if runs == 1 else f"ablation of {runs}"
            print(f"| {name} | {label} | {mine:,.0f} | {theirs:,.0f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
