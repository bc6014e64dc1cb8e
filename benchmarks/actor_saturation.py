"""Which actors of finished TD3 studies are saturated: in how many states every action lies at an end of its range.

    python benchmarks/actor_saturation.py outputs/td3_hopper/studies/* --to docs/results/hopper_actors.csv

The states are those that a random policy visits. `return_if_constant` is what the action that an actor takes in the
first state earns by itself, in the mean over episodes; it is empty where the actor does not take it everywhere.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
from alphagrad.recipes.environment import make_env
from omegaconf import OmegaConf

from alphagrad.common.files import write_by
from alphagrad.lab.config.build import build_recipe
from alphagrad.lab.records.checkpoint import load_safely
from alphagrad.lab.training.begun import plain_config

STATES, EPISODES = 2000, 20
END = 0.999
"""Of an action's range from −1 to 1: beyond it tanh's slope is below 0.002, and an actor hardly learns."""
SAME = 1e-3
"""Actions that differ by less are one."""


def measured(folder: Path) -> dict[str, Any] | None:
    """A row for a run's folder; None where there is no checkpoint."""
    checkpoint = folder / "checkpoint.pt"
    if not checkpoint.exists():
        return None
    config = OmegaConf.create(plain_config(folder))
    recipe: Any = build_recipe(config)
    scale, center = (recipe.high - recipe.low) / 2, (recipe.high + recipe.low) / 2
    env = make_env(recipe.settings.env)
    actions = (recipe.policy(load_safely(checkpoint))(states(env)) - center) / scale
    if not np.isfinite(actions).all():
        raise ValueError(f"{folder}: its actor's actions are not finite")
    constant = bool((np.abs(actions - actions[0]) < SAME).all())
    always = tuple(round(float(value), 3) for value in actions[0])
    row = {
        "optimizer": config.optimizer.name,
        "alpha": OmegaConf.select(config, "optimizer.rule.alpha.value"),
        "momentum": OmegaConf.select(config, "optimizer.momentum"),
        "lr": config.optimizer.lr,
        "seed": config.seed,
        "saturated": float((np.abs(actions) > END).all(axis=1).mean()),
        "action": " ".join(f"{value:+.3g}" for value in always) if constant else "",
        "return_if_constant": earned(env, np.array(always, dtype=np.float32) * scale + center) if constant else None,
    }
    env.close()
    return row


def states(env: gym.Env) -> np.ndarray:
    """Observations [2000, n] of a random policy."""
    env.action_space.seed(0)
    seen: list[np.ndarray] = []
    for seed in count():
        seen += [observation for observation, _ in episode(env, seed, env.action_space.sample)]
        if len(seen) >= STATES:
            break
    return np.array(seen[:STATES], dtype=np.float32)


def earned(env: gym.Env, action: np.ndarray) -> float:
    """Mean episodic return of one action in every state."""
    returns = [sum(reward for _, reward in episode(env, seed, lambda: action)) for seed in range(EPISODES)]
    return round(float(np.mean(returns)), 1)


def episode(env: gym.Env, seed: int, act: Callable[[], np.ndarray]) -> list[tuple[np.ndarray, float]]:
    """What is observed in one episode, each with the reward of the step from there."""
    observation, _ = env.reset(seed=seed)
    steps, over = [], False
    while not over:
        after, reward, terminated, truncated, _ = env.step(act())
        steps.append((observation, float(reward)))
        observation, over = after, terminated or truncated
    return steps


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("study", type=Path, nargs="+", help="folder of a study")
    parser.add_argument("--to", type=Path, required=True, help="CSV file, a row for each run")
    asked = parser.parse_args(words)
    runs = {study: [file.parent.resolve() for file in study.glob("*/config.yaml")] for study in asked.study}
    folders = sorted({folder for own in runs.values() for folder in own})
    for study in [study for study, own in runs.items() if folders and not own]:
        parser.error(f"{study}: has no run's folder")
    if not asked.to.absolute().parent.is_dir() or asked.to.is_dir():
        parser.error(f"--to={asked.to}: has to be a file in a folder that exists")
    found = {folder: measured(folder) for folder in folders}
    rows = [row for row in found.values() if row is not None]
    if not rows:
        parser.error("no run of these studies has a checkpoint")
    for folder in [folder for folder, row in found.items() if row is None]:
        print(f"{folder}: has no checkpoint, and is left out", file=sys.stderr)
    table = pd.DataFrame(rows).sort_values(["optimizer", "alpha", "momentum", "lr", "seed"], na_position="first")
    write_by(asked.to, lambda file: table.to_csv(file, index=False))
    told = table.assign(saturated=table["saturated"] == 1, constant=table["action"] != "")
    groups = told.groupby(["optimizer", "alpha", "momentum", "lr"], dropna=False)
    print(groups.agg(runs=("seed", "size"), saturated=("saturated", "sum"), constant=("constant", "sum")).to_string())


if __name__ == "__main__":
    main()
