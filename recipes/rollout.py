"""What PPO's runs play between two updates, as rows to learn from."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from alphagrad.harness.stack import RunStack
from alphagrad.harness.state import Stateful

from .actor_critic import Params, log_probability, mean_actions, values_of
from .advantages import generalized_advantages
from .envs import EnvStack
from .measures import Episodes
from .normalize import ObservationNormalizer, RewardNormalizer


class Player(Protocol):
    """What a rollout asks of the recipe."""

    settings: Any
    n_observations: int
    n_actions: int

    def clip_actions(self, actions: np.ndarray) -> np.ndarray:
        """Actions as the environment takes them."""


class Rollout(Stateful):
    """Environments of R runs, their normalisation, and the rollouts collected from them."""

    STATE = ("envs", "normalize", "normalize_rewards", "noise", "observation")

    def __init__(self, recipe: Player, stack: RunStack) -> None:
        self.recipe, self.settings, self.stack = recipe, recipe.settings, stack
        s = self.settings
        self.envs = EnvStack(s.env, [int(rng.integers(2**31)) for rng in stack.generators("environment")])
        self.normalize = ObservationNormalizer(self.envs.observations.shape)
        self.normalize_rewards = RewardNormalizer(len(stack), s.gamma)
        self.noise = stack.generators("exploration")
        self.observation = self.normalize(self.envs.observations)

    def collect(self, params: Params, start: int, episodes: Episodes) -> tuple[Tensor, np.ndarray]:
        """Plays ``num_steps`` steps of each run.

        Returns:
            Rows [R, num_steps, columns] (see ``PPO.widths``) and the explained variance of the values [R].
        """
        s, runs, n = self.settings, len(self.stack), self.settings.num_steps
        recipe, device = self.recipe, self.stack.device
        noise = np.stack([rng.standard_normal((n, recipe.n_actions), dtype=np.float32) for rng in self.noise], axis=1)
        policy = mean_actions(params)
        noise *= params["actor_logstd"].exp().cpu().numpy()
        observations = np.empty((n + 1, runs, recipe.n_observations), dtype=np.float32)
        actions = np.empty((n, runs, recipe.n_actions), dtype=np.float32)
        raw, terminations = np.empty((n, runs), dtype=np.float32), np.empty((n, runs), dtype=np.float32)
        ended = np.zeros((n, runs), dtype=np.float32)
        truncated: list[tuple[int, int, np.ndarray]] = []
        for t in range(n):
            observations[t] = self.observation
            actions[t] = policy(self.observation[:, None])[:, 0] + noise[t]
            reached, raw[t], terminations[t], finished = self.envs.step(recipe.clip_actions(actions[t]))
            self.observation = self.normalize(reached)
            if finished:
                over = np.array([episode.env for episode in finished])
                ended[t, over] = 1
                truncated += [(t, run, self.observation[run].copy()) for run in over if not terminations[t, run]]
                self.observation[over] = self.normalize(self.envs.observations[over], over)
                episodes.add(finished, start + t)
        observations[n] = self.observation
        rewards = self.normalize_rewards(raw, terminations)

        seen = torch.from_numpy(observations).to(device).transpose(0, 1).contiguous()
        taken = torch.from_numpy(actions).to(device).transpose(0, 1).contiguous()
        with torch.no_grad():
            values = values_of(params, seen).cpu().numpy().T
            logprob = log_probability(params, seen[:, :-1], taken)
        if s.bootstrap_truncated and truncated:
            self._bootstrap(params, rewards, truncated)
        advantages = generalized_advantages(rewards, values, ended, s.gamma, s.gae_lambda)
        returns = advantages + values[:-1]
        columns = [torch.from_numpy(c.T.copy()).to(device) for c in (advantages, returns, values[:-1])]
        rows = torch.cat([seen[:, :-1], taken, *(c.unsqueeze(-1) for c in (logprob, *columns))], dim=-1)
        variance = np.var(returns, axis=0)
        variance[variance == 0] = np.nan  # constant returns leave nothing to explain
        return rows, 1 - np.var(returns - values[:-1], axis=0) / variance

    def _bootstrap(self, params: Params, rewards: np.ndarray, truncated: list[tuple[int, int, np.ndarray]]) -> None:
        """Adds γ·V(final observation) to the reward of each truncated step (t, run, observation)."""
        for t, run, observation in truncated:
            own = {name: p[run : run + 1] for name, p in params.items()}
            x = torch.from_numpy(observation).to(self.stack.device).view(1, 1, -1)
            with torch.no_grad():
                rewards[t, run] += self.settings.gamma * float(values_of(own, x))
