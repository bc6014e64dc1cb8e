"""Whether these recipes learn as CleanRL's own scripts do: Adam, the same settings, several seeds of each.

    python benchmarks/rl_fidelity.py --cleanrl DIR [--python PYTHON] [--task ppo dqn td3] [--seeds 5] [--first 1]
        [--steps N] [--learning-starts N]

DIR is a checkout of CleanRL, PYTHON an interpreter that can run its scripts. A run's score is the mean
episodic return over the last tenth of its steps. The table has each program's mean over seeds with the
95 % t interval, and the difference with Welch's 95 % interval and p value. The two draw different random
numbers, so equal seeds give no equal runs. PPO is run with CleanRL's own handling of truncation
(``recipe.bootstrap_truncated=false``).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rl_throughput import ENVIRONMENT, TASKS, Task
from scipy import stats

USUAL = {"ppo": 1_000_000, "dqn": 500_000, "td3": 1_000_000}
"""Steps of a run in CleanRL's scripts."""
ROLLOUT = 2048
"""Steps between PPO's updates; neither program trains on what is left over."""
LAST = 0.1
"""The share of a run's steps, at its end, that its score is taken from."""


def score(steps: np.ndarray, returns: np.ndarray, total: int) -> float:
    """The mean return of the episodes that ended in the last tenth of ``total`` steps."""
    late = returns[steps >= (1 - LAST) * total]
    if not len(late):
        raise SystemExit(f"no episode ended in the last {LAST:.0%} of {total} steps; give more --steps")
    return float(late.mean())


def ours(task: Task, seeds: range) -> list[float]:
    """Each run's score."""
    from alphagrad.harness.metrics import EPISODIC_RETURN
    from alphagrad.lab.evidence.results import Results
    from alphagrad.lab.store.address import store_uri

    with tempfile.TemporaryDirectory() as root:
        settings = [f"recipe={task.recipe}", f"env.id={task.env_id}", "optimizer=adam", f"output_root={root}"]
        settings += [f"recipe.total_steps={task.steps}", "recipe.eval_episodes=1", "recipe.eval_every=0"]
        settings += [f"seed=range({seeds.start},{seeds.stop})", "hydra/launcher=stacked", "instruments=none"]
        if task.learning_starts:
            settings.append(f"recipe.learning_starts={task.learning_starts}")
        if task.recipe.startswith("ppo"):
            settings.append("recipe.bootstrap_truncated=false")
        command = [sys.executable, "-m", "alphagrad_cli", "run", "-m", *settings]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **ENVIRONMENT})
        results = Results(store_uri(f"sqlite:///{root}/mlflow.db", root), "alphagrad")
        runs = [run for group in results.study().groups for run in group.finished()]
        histories = [results.history(run, EPISODIC_RETURN) for run in runs]
        # CleanRL's PPO says the number of steps taken, the others of both say the step's, from 0
        return [score(steps + task.recipe.startswith("ppo"), returns, task.steps) for steps, returns in histories]


def cleanrl(task: Task, folder: Path, python: str, seeds: range, at_once: int) -> list[float]:
    """Each script's score; ``at_once`` scripts run side by side."""

    def one(seed: int) -> float:
        command = [python, str(folder / "cleanrl" / task.script), "--env-id", task.env_id, "--seed", str(seed)]
        command += ["--total-timesteps", str(task.steps), "--no-cuda"]
        if task.learning_starts:
            command += ["--learning-starts", str(task.learning_starts)]
        environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(folder)}
        with tempfile.TemporaryDirectory() as work:
            done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"CleanRL's script failed:\n{done.stderr[-2000:]}")
        found = re.findall(r"global_step=(\d+), episodic_return=\[?(-?[\d.]+(?:e[+-]?\d+)?)", done.stdout)
        steps, returns = np.array([(float(s), float(r)) for s, r in found]).reshape(-1, 2).T
        return score(steps, returns, task.steps)

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(one, seeds))


def interval(scores: list[float]) -> str:
    """Mean and 95 % t interval."""
    low, high = stats.t.interval(0.95, len(scores) - 1, np.mean(scores), stats.sem(scores))
    return f"{np.mean(scores):.1f} [{low:.1f}, {high:.1f}]"


def main() -> None:
    """Runs both programs and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cleanrl", type=Path, required=True, help="a checkout of CleanRL")
    parser.add_argument("--python", default=sys.executable, help="interpreter for its scripts")
    parser.add_argument("--task", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=5, help="runs of each program (default %(default)s)")
    parser.add_argument("--first", type=int, default=1, help="the first seed (default %(default)s)")
    parser.add_argument("--steps", type=int, help="of a run (default CleanRL's)")
    parser.add_argument("--learning-starts", type=int, default=0, help="DQN, TD3: first update (default CleanRL's)")
    parser.add_argument("--at-once", type=int, default=2, help="CleanRL's scripts side by side (default %(default)s)")
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error(f"--seeds={args.seeds}: an interval needs at least 2")
    seeds = range(args.first, args.first + args.seeds)
    print("| task | steps | seeds | ours | CleanRL | difference | p |\n|---|---|---|---|---|---|---|")
    for name in args.task:
        base = TASKS[name]
        # PPO learns from the start
        late = 0 if name == "ppo" else args.learning_starts
        steps = args.steps or USUAL[name]
        if name == "ppo":
            steps -= steps % ROLLOUT
        task = Task(base.recipe, base.script, base.env_id, steps, late)
        mine = ours(task, seeds)
        theirs = cleanrl(task, args.cleanrl.resolve(), args.python, seeds, args.at_once)
        test = stats.ttest_ind(mine, theirs, equal_var=False)
        low, high = test.confidence_interval(0.95)
        difference = f"{np.mean(mine) - np.mean(theirs):.1f} [{low:.1f}, {high:.1f}]"
        row = [name, f"{task.steps:,}", f"{seeds.start}-{seeds.stop - 1}", interval(mine), interval(theirs), difference]
        print(f"| {' | '.join(row)} | {test.pvalue:.3f} |", flush=True)
        print(f"{name}: ours {np.round(mine, 1).tolist()}, CleanRL {np.round(theirs, 1).tolist()}", file=sys.stderr)


if __name__ == "__main__":
    main()
