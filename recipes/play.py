"""Episodes of a policy as pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from alphagrad.harness.recipe import NotDrawable

from .environment import CheckedEnv, make_env

Policy = Callable[[np.ndarray], np.ndarray]
"""Observations [1, n] of a single run's environment → actions [1, ...]."""
DEFAULT_RATE = 30
"""Frames per second of an environment that does not say."""


class Watchable:
    """A recipe whose checkpoints `alphagrad watch` can show: it has ``settings.env`` and :meth:`policy`."""

    settings: Any

    def policy(self, checkpoint: Mapping[str, Any]) -> Policy:
        """What a single run's checkpoint does, without exploration."""
        raise NotImplementedError

    def play(self, checkpoint: Mapping[str, Any], seed: int) -> Iterator[tuple[np.ndarray, float]]:
        """One episode: a frame [H, W, 3] uint8 of each state, with the reward of the step that led there.

        Raises:
            NotDrawable: the environment cannot be drawn.
            ValueError, RuntimeError: the environment's own mistakes, as in training.
        """
        env_id, policy = self.settings.env.id, self.policy(checkpoint)
        env = make_env(self.settings.env, render_mode="rgb_array")
        checked = CheckedEnv(env, env_id)
        try:
            observation = checked.reset(seed=seed)
            yield _frame(env, env_id), 0.0
            over = False
            while not over:
                observation, reward, terminated, truncated = checked.step(policy(observation[None].copy())[0])
                over = terminated or truncated
                yield _frame(env, env_id), reward
        finally:
            env.close()

    def frames_per_second(self) -> int:
        """The environment's own rate."""
        env = make_env(self.settings.env)
        rate = env.metadata.get("render_fps", DEFAULT_RATE)
        env.close()
        return int(rate)


def _frame(env: gym.Env, env_id: str) -> np.ndarray:
    try:
        rendered: Any = env.render()
    except NotImplementedError:  # gymnasium's own, for environments without pictures
        rendered = None
    if not isinstance(rendered, np.ndarray) or rendered.ndim != 3:
        raise NotDrawable(f"env.id={env_id}: cannot be drawn off the screen")
    return rendered.copy()  # some draw into one array again and again
