"""R environments in lockstep against single ones stepped by hand."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from alphagrad.recipes import envs
from alphagrad.recipes.environment import make_env
from alphagrad.recipes.envs import EnvStack, evaluate_episodes

from alphagrad.harness import metrics

SHORT = "AlphagradShortCartPole-v0"


@pytest.fixture(autouse=True)
def short_cartpole():
    """CartPole cut off after 12 steps: random actions both end episodes and run into the limit."""
    gym.register(SHORT, "gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=12)
    yield
    del gym.registry[SHORT]


def by_hand(env_id: str, seed: int, actions: list[int]) -> list[dict]:
    """One environment stepped alone: what it showed, gave and ended with, step by step."""
    env = gym.make(env_id)
    shown, _ = env.reset(seed=seed)
    rows, total, length = [], 0.0, 0
    for action in actions:
        reached, reward, terminated, truncated, _ = env.step(action)
        total, length = total + float(reward), length + 1
        row = {"before": shown, "reached": reached, "reward": reward, "terminated": terminated, "truncated": truncated}
        row["episode"] = (total, length) if terminated or truncated else None
        shown = reached
        if row["episode"]:
            shown, _ = env.reset()
            total, length = 0.0, 0
        row["after"] = shown
        rows.append(row)
    return rows


@pytest.mark.parametrize("env_id", ["CartPole-v1", SHORT, "Acrobot-v1"])
def test_a_stack_of_environments_is_its_environments(env_id):
    seeds, steps = [3, 17, 3], 150
    choices = np.random.default_rng(0).integers(2, size=(steps, len(seeds)))
    alone = [by_hand(env_id, seed, choices[:, k].tolist()) for k, seed in enumerate(seeds)]
    envs = EnvStack(env_id, seeds)
    for step in range(steps):
        rows = [run[step] for run in alone]
        np.testing.assert_array_equal(envs.observations, [row["before"] for row in rows])
        reached, rewards, terminations, finished = envs.step(choices[step])
        np.testing.assert_array_equal(reached, [row["reached"] for row in rows])
        np.testing.assert_array_equal(rewards, np.float32([row["reward"] for row in rows]))
        np.testing.assert_array_equal(terminations, [float(row["terminated"]) for row in rows])
        np.testing.assert_array_equal(envs.observations, [row["after"] for row in rows])
        expected = [(k, *row["episode"]) for k, row in enumerate(rows) if row["episode"]]
        assert [(e.env, e.episodic_return, e.length) for e in finished] == expected
    envs.close()
    ended = [row for run in alone for row in run if row["episode"]]
    if env_id == SHORT:
        assert {row["terminated"] for row in ended} == {True, False}  # both kinds were met


def test_a_truncation_is_no_termination_and_shows_the_last_observation():
    envs = EnvStack(SHORT, [1])
    alternating = [step % 2 for step in range(12)]
    for step, action in enumerate(alternating):
        reached, _, terminations, finished = envs.step([action])
        assert terminations[0] == 0
        assert bool(finished) == (step == 11)
    assert finished[0].length == 12
    assert not np.array_equal(reached, envs.observations)  # one is the end, the other a new start
    assert np.abs(envs.observations).max() <= 0.05  # CartPole starts within ±0.05
    assert reached.dtype == envs.observations.dtype == np.float32


def test_arrays_are_not_shared_with_later_steps():
    envs = EnvStack("CartPole-v1", [1, 2])
    first = envs.step([0, 1])[0]
    kept = first.copy()
    envs.step([1, 0])
    np.testing.assert_array_equal(first, kept)


def test_one_action_sequence_per_environment():
    together = EnvStack("CartPole-v1", [5, 6])
    moved = EnvStack("CartPole-v1", [6, 5])
    for _ in range(30):
        a = together.step([1, 0])[0]
        b = moved.step([0, 1])[0]
        np.testing.assert_array_equal(a, b[::-1])


def test_evaluation_takes_each_environments_first_episode():
    seeds = [4, 9, 1, 7]
    always_left = evaluate_episodes(EnvStack("CartPole-v1", seeds), lambda o: np.zeros(len(o), dtype=int), runs=2)
    lengths = [next(r["episode"][1] for r in by_hand("CartPole-v1", s, [0] * 30) if r["episode"]) for s in seeds]
    expected = [np.mean(lengths[:2]), np.mean(lengths[2:])]
    assert [row[metrics.EVAL_LENGTH] for row in always_left] == expected
    assert [row[metrics.EVAL_RETURN] for row in always_left] == expected  # a reward of 1 a step


@pytest.mark.parametrize("env_id", ["Nope-v0", "nomodule:Foo-v0", "CartPole-v99"])
def test_an_unknown_environment_is_one_line(env_id):
    with pytest.raises(ValueError, match=rf"env\.id={env_id}: ") as caught:
        make_env(env_id)
    assert "\n" not in str(caught.value)


class Endless(gym.Env):
    """It goes on for ever, unless it is seeded with 0."""

    observation_space, action_space = gym.spaces.Box(0, 1, (1,), np.float32), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.ends = seed == 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 0.5, self.ends, False, {}


gym.register("alphagrad_envs/Endless-v0", entry_point=Endless)


def test_an_episode_without_end_counts_as_it_is(monkeypatch):
    monkeypatch.setattr(envs, "LONGEST", 40)
    stack = EnvStack("alphagrad_envs/Endless-v0", [0, 7])
    ended, endless = evaluate_episodes(stack, lambda o: np.zeros(len(o), dtype=int), runs=2)
    assert ended == {metrics.EVAL_RETURN: 0.5, metrics.EVAL_LENGTH: 1}
    assert endless == {metrics.EVAL_RETURN: 20, metrics.EVAL_LENGTH: 40}
