"""R Gymnasium environments, one for each run, each seeded by its own run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alphagrad.harness import metrics
from alphagrad.harness.recipe import EnvSettings
from alphagrad.harness.state import pack, unpack

from .actions import Actions
from .environment import CheckedEnv, make_env

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

    Environments and recipes share no array: each gets copies of what it could change later.

    Attributes:
        observations: what each environment shows now, [R, *observation], float32; a new array each step.
    """

    def __init__(self, env: EnvSettings | str, seeds: Sequence[int]) -> None:
        self.envs = [make_env(env) for _ in seeds]
        self.name = env if isinstance(env, str) else env.id
        self._checked = [CheckedEnv(made, self.name) for made in self.envs]
        self.observation_space = self.envs[0].observation_space
        self.action_space = self.envs[0].action_space
        shape = (len(seeds), *(self.observation_space.shape or ()))
        self.observations = np.empty(shape, dtype=np.float32)
        self._actions = Actions(len(seeds))
        # what each environment was last reset from: a seed, or its generator's state
        self._origins: list[Any] = [int(seed) for seed in seeds]
        for k, (checked, seed) in enumerate(zip(self._checked, self._origins, strict=True)):
            self.observations[k] = checked.reset(seed=seed)
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
        actions = np.array(actions)  # a copy, which the environments may do with as they like
        self._actions.add(actions)
        for k, env in enumerate(self._checked):
            reached[k], rewards[k], terminated, truncated = env.step(actions[k])
            if terminated or truncated:
                terminations[k] = terminated
                over.append(k)
        self._returns += rewards
        self._lengths += 1
        self.observations = reached.copy() if over else reached
        for k in over:
            finished.append(Episode(k, float(self._returns[k]), int(self._lengths[k])))
            self._returns[k], self._lengths[k] = 0.0, 0
            self._origins[k] = self.envs[k].unwrapped.np_random.bit_generator.state
            self._actions.reset(k)
            self.observations[k] = self._checked[k].reset()
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
            "steps": [env.steps for env in self._checked],
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
        for k, (checked, origin) in enumerate(zip(self._checked, self._origins, strict=True)):
            checked.steps = 0
            if isinstance(origin, int):
                observation = checked.reset(seed=origin)
            else:
                unpack(self.envs[k].unwrapped.np_random, origin)
                observation = checked.reset()
            for action in taken[k]:
                observation, *_ = checked.step(action.copy())
            if not np.array_equal(observation, self.observations[k], equal_nan=True):
                raise ValueError(
                    f"env.id={self.name}: cannot be resumed: its course is not decided by np_random and actions"
                )
        for checked, steps in zip(self._checked, state.get("steps", [0] * len(self.envs)), strict=True):
            checked.steps = steps
        self._returns = unpack(self._returns, state["returns"])
        self._lengths = unpack(self._lengths, state["lengths"])

    def close(self) -> None:
        """Closes the environments."""
        for env in self.envs:
            env.close()


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
