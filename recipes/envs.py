"""R Gymnasium environments, one for each run, each seeded by its own run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from alphagrad.lab import metrics
from alphagrad.lab.state import pack, unpack

from .actions import Actions

LONGEST = 100_000
"""Steps of an evaluation's episode; Gymnasium's own environments end after at most 1,600."""


@dataclass(frozen=True)
class Episode:
    """A finished episode of one environment."""

    env: int
    episodic_return: float
    length: int


class EnvStack:
    """Environments stepped in lockstep, each reset in the step that ends its episode.

    Gymnasium's own vector environments share one generator, or spend a step on each reset; a run of a
    stack could then not be the run alone, nor count steps as CleanRL does.

    The state of an environment is how it came about: its generator before the last reset and the actions
    since. Loading resets it and takes these actions again, at most one episode, so it holds for every
    environment whose course is decided by ``np_random`` and the actions; another one is refused.

    Attributes:
        observations: what each environment shows now, [R, *observation], float32; a new array each step.
    """

    def __init__(self, env_id: str, seeds: Sequence[int]) -> None:
        self.envs = [make_env(env_id) for _ in seeds]
        self.observation_space = self.envs[0].observation_space
        self.action_space = self.envs[0].action_space
        shape = (len(seeds), *(self.observation_space.shape or ()))
        self.observations = np.empty(shape, dtype=np.float32)
        self._actions = Actions(len(seeds))
        # what each environment was last reset from: a seed, or its generator's state
        self._origins: list[Any] = [int(seed) for seed in seeds]
        for k, (env, seed) in enumerate(zip(self.envs, self._origins, strict=True)):
            self.observations[k] = env.reset(seed=seed)[0]
        self._steps = [env.step for env in self.envs]
        self._returns = np.zeros(len(seeds))
        self._lengths = np.zeros(len(seeds), dtype=np.int64)

    def step(self, actions: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[Episode]]:
        """Steps every environment.

        Returns:
            The observations the actions led to, [R, *observation], final ones where an episode ended;
            rewards [R]; terminations [R] (a truncated episode has not terminated); finished episodes.
        """
        reached = np.empty_like(self.observations)
        rewards = np.empty(len(self.envs))
        terminations = np.zeros(len(self.envs), dtype=np.float32)
        finished: list[Episode] = []
        over: list[int] = []
        actions = np.asarray(actions)
        self._actions.add(actions)
        for k, step in enumerate(self._steps):
            reached[k], rewards[k], terminated, truncated, _ = step(actions[k])
            if terminated or truncated:
                terminations[k] = terminated
                over.append(k)
        self._returns += rewards
        self._lengths += 1
        self.observations = reached.copy() if over else reached
        for k in over:
            finished.append(Episode(k, float(self._returns[k]), int(self._lengths[k])))
            self._returns[k], self._lengths[k] = 0.0, 0
            env = self.envs[k]
            self._origins[k] = env.unwrapped.np_random.bit_generator.state
            self._actions.reset(k)
            self.observations[k] = env.reset()[0]
        return reached, rewards.astype(np.float32), terminations, finished

    def unfinished(self) -> list[Episode]:
        """The episodes that go on, as they are."""
        told = zip(self._returns.tolist(), self._lengths.tolist(), strict=True)
        return [Episode(k, total, length) for k, (total, length) in enumerate(told)]

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` needs to bring every environment to where it is."""
        return {
            "origins": pack(self._origins),
            "actions": [pack(self._actions.of(k)) for k in range(len(self.envs))],
            "observations": pack(self.observations),
            "returns": pack(self._returns),
            "lengths": pack(self._lengths),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Plays every environment's present episode again.

        Raises:
            ValueError: an environment does not get where it was: its course depends on something else.
        """
        taken = [unpack(np.empty(0), actions) for actions in state["actions"]]
        self._actions.load(taken)
        self._origins = list(state["origins"])
        self.observations = unpack(self.observations, state["observations"])
        for k, (env, origin) in enumerate(zip(self.envs, self._origins, strict=True)):
            if isinstance(origin, int):
                observation, _ = env.reset(seed=origin)
            else:
                unpack(env.unwrapped.np_random, origin)
                observation, _ = env.reset()
            for action in taken[k]:
                observation, *_ = env.step(action)
            if not np.array_equal(np.asarray(observation, dtype=np.float32), self.observations[k], equal_nan=True):
                name = env.spec.id if env.spec else env
                raise ValueError(
                    f"env.id={name}: cannot be resumed: its course is not decided by np_random and actions"
                )
        self._returns = unpack(self._returns, state["returns"])
        self._lengths = unpack(self._lengths, state["lengths"])

    def close(self) -> None:
        """Closes the environments."""
        for env in self.envs:
            env.close()


def make_env(env_id: str, render_mode: str | None = None) -> gym.Env:
    """One environment; ``ValueError`` with one line if there is none of this name."""
    try:
        if "mujoco" in str(gym.spec(env_id).entry_point):
            quiet_mujoco()
        # an environment need not know of rendering
        drawn: dict[str, Any] = {"render_mode": render_mode} if render_mode else {}
        return gym.make(env_id, disable_env_checker=True, **drawn)
    except (gym.error.Error, ModuleNotFoundError) as error:
        raise ValueError(f"env.id={env_id}: {' '.join(str(error).split())}") from error


def flat_boxes(env_id: str, algorithm: str) -> tuple[gym.spaces.Box, gym.spaces.Box]:
    """An environment's spaces of observations and actions; ``ValueError`` unless both are flat boxes."""
    env = make_env(env_id)
    observation, action = env.observation_space, env.action_space
    env.close()
    if not isinstance(observation, gym.spaces.Box) or len(observation.shape) != 1:
        raise ValueError(f"env.id={env_id}: {algorithm} needs a flat Box observation, got {observation}")
    if not isinstance(action, gym.spaces.Box) or len(action.shape) != 1:
        raise ValueError(f"env.id={env_id}: {algorithm} needs a flat Box action, got {action}")
    return observation, action


def quiet_mujoco() -> None:
    """Keeps MuJoCo from warning of its own models' deprecated attributes, and from a log file in the cwd."""
    import mujoco

    mujoco.set_mju_user_warning(lambda _: None)


def evaluate_episodes(envs: EnvStack, act: Callable[[np.ndarray], np.ndarray], runs: int) -> list[dict[str, float]]:
    """Each run's mean return and length over the first episode of each of its environments.

    An episode that does not end, where an environment has no time limit, counts as it is after ``LONGEST`` steps.

    Args:
        envs: runs · n environments, those of a run side by side; closed at the end.
        act: observations of all environments → their actions.
        runs: R.
    """
    returns, lengths = np.zeros(len(envs.envs)), np.zeros(len(envs.envs))
    for _ in range(LONGEST):
        for episode in envs.step(act(envs.observations))[3]:
            if not lengths[episode.env]:
                returns[episode.env], lengths[episode.env] = episode.episodic_return, episode.length
        if lengths.all():  # lengths, because the return of a run that diverges may be NaN
            break
    for episode in envs.unfinished():
        if not lengths[episode.env]:
            returns[episode.env], lengths[episode.env] = episode.episodic_return, episode.length
    envs.close()
    return [
        {metrics.EVAL_RETURN: float(r.mean()), metrics.EVAL_LENGTH: float(n.mean())}
        for r, n in zip(returns.reshape(runs, -1), lengths.reshape(runs, -1), strict=True)
    ]
