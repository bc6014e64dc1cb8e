"""Deep Q-learning (Mnih et al. 2015) as CleanRL's dqn.py has it, over a stack of runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from alphagrad.harness import metrics
from alphagrad.harness.memory import check_memory
from alphagrad.harness.recipe import Capability, EnvSettings, Log, Objective
from alphagrad.harness.recipe import Settings as BaseSettings
from alphagrad.harness.stack import RunStack
from alphagrad.harness.state import Stateful

from .environment import env_bytes, spaces
from .envs import EnvStack, evaluate_episodes
from .gradients import gradients_of
from .measures import Episodes
from .mlp import Forward, as_stack, mlp, mlp_bytes, stacked_mlp
from .play import Policy, Watchable
from .replay import Replay, replay_bytes
from .windows import Window, stop_diverged

Params = Mapping[str, Tensor]

LARGE = ("recipe.buffer_size", "recipe.batch_size", "recipe.hidden", "recipe.eval_episodes")
"""Settings that say what a run takes in memory."""
COMPILE_FROM = 30_000
"""Gradient steps from which compilation repays itself: it takes about 12 s and saves 0.5 ms a step."""
MEASURES = {metrics.TD_LOSS: "mean", metrics.TD_LOSS_MAX: "max", metrics.Q_VALUES: "mean"}
"""What :func:`td_losses` reports of an update, and how a window of updates is summed up."""


class DQNSettings(BaseSettings):
    """See conf/recipe/dqn_cartpole.yaml for what each means and CleanRL's values."""

    name: str
    env: EnvSettings
    total_steps: PositiveInt
    buffer_size: PositiveInt
    batch_size: PositiveInt
    gamma: float = Field(ge=0, le=1)
    tau: float = Field(gt=0, le=1)
    target_every: PositiveInt
    start_epsilon: float = Field(ge=0, le=1)
    end_epsilon: float = Field(ge=0, le=1)
    exploration_fraction: float = Field(gt=0, le=1)
    learning_starts: int = Field(ge=0)
    train_every: PositiveInt
    hidden: list[PositiveInt] = Field(min_length=1)
    log_every: PositiveInt
    eval_every: int = Field(ge=0)
    eval_episodes: PositiveInt
    compile: Literal["auto", True, False]


class DQN(Watchable):
    """DQN with a target network, ε-greedy exploration, uniform replay and the MSE loss.

    A truncated episode bootstraps, a terminated one does not. CleanRL's semantics throughout: no
    learning up to step ``learning_starts``, then a gradient step where ``step % train_every == 0`` and a
    target update where ``step % target_every == 0``.
    """

    Settings = DQNSettings
    objective = Objective(metrics.EVAL_RETURN)
    headlines = metrics.RETURNS
    capabilities = (Capability.STACKED, Capability.PLAYED)
    logs = metrics.EPISODES | {*MEASURES, metrics.EPSILON}

    def __init__(self, settings: DQNSettings) -> None:
        self.settings = settings
        observation, action = spaces(settings.env)
        if not isinstance(observation, gym.spaces.Box) or len(observation.shape) != 1:
            raise ValueError(f"env.id={settings.env.id}: DQN needs a flat Box observation, got {observation}")
        if not isinstance(action, gym.spaces.Discrete) or action.start != 0:
            raise ValueError(f"env.id={settings.env.id}: DQN needs Discrete actions from 0, got {action}")
        self.n_observations = observation.shape[0]
        self.n_actions = int(action.n)
        check_memory(settings, self.bytes_of, LARGE)

    def bytes_of(self, s: DQNSettings, runs: int = 1) -> float:
        """What runs take in memory, about."""
        n, a = self.n_observations, self.n_actions
        learning = replay_bytes(s.buffer_size, 2 * n + 3, s.batch_size) + mlp_bytes([n, *s.hidden, a], s.batch_size)
        return runs * (learning + env_bytes(s.env) * s.eval_episodes)

    @property
    def total_steps(self) -> int:
        """Environment steps of each run."""
        return self.settings.total_steps

    def networks(self) -> dict[str, nn.Module]:
        """The Q-network."""
        return {"q_network": mlp([self.n_observations, *self.settings.hidden, self.n_actions])}

    def train(self, stack: RunStack, log: Log) -> list[dict[str, Any]]:
        """Trains all runs in lockstep; see :class:`alphagrad.harness.recipe.Recipe`."""
        s = self.settings
        params = stack.initialize(lambda: self.networks()["q_network"])
        target, network = params.clone(), Forward(params)
        optimizer = stack.optimizer(params, compile=self.compiles)
        envs = EnvStack(s.env, [int(rng.integers(2**31)) for rng in stack.generators("environment")])
        replay = Replay(
            s.buffer_size, 2 * self.n_observations + 3, s.batch_size, stack.generators("minibatch"), stack.device
        )
        explore = Exploration(stack.generators("exploration"), self.n_actions)

        def td(params: Params, target: Params, minibatch: Tensor) -> tuple[Tensor, Tensor]:
            return td_losses(params, target, minibatch, self.n_observations, s.gamma)

        compute_gradients = gradients_of(td, self.compiles)
        episodes, window = Episodes(len(stack), log), Window(len(stack), MEASURES)
        parts = {"params": params, "target": target, "optimizer": optimizer, "envs": envs, "replay": replay}
        parts |= {"exploration": explore, "episodes": episodes, "window": window}

        def result(run: int) -> dict[str, Any]:
            return {
                "q_network": {name: p[run].clone() for name, p in params.items()},
                "target_network": {name: p[run].clone() for name, p in target.items()},
                "optimizer": optimizer.state_of(run),
                "steps": s.total_steps,
            }

        for step in range(log.restore(parts), s.total_steps):
            epsilon = self.epsilon(step)
            before = envs.observations
            actions = explore.actions(epsilon, lambda: greedy(network, envs.observations))
            reached, rewards, terminations, finished = envs.step(actions)
            replay.add(before, reached, actions[:, None].astype(np.float32), rewards[:, None], terminations[:, None])
            episodes.add(finished, step)
            if step > s.learning_starts:
                if step % s.train_every == 0:
                    grads, measures = compute_gradients(params, target, replay.sample())
                    window.add(measures)
                    observe = log.observe_every and window.updates % log.observe_every == 0
                    for run, signals in enumerate(optimizer.step(grads, log.observation if observe else None)):
                        log.metrics(run, step, signals)
                if step % s.target_every == 0:
                    target.flat.lerp_(params.flat, s.tau)
            if (step + 1) % s.log_every == 0:
                rows = window.take(step + 1)
                for run, (row, skipped) in enumerate(zip(rows, optimizer.skipped(), strict=True)):
                    log.metrics(run, step, {**row, **skipped, metrics.EPSILON: epsilon})
                stop_diverged(window, rows, step, log, optimizer)
                log.progress(step + 1, episodes.shown())
            last = step + 1 == s.total_steps
            if last:  # what came after the last point of the log may have diverged too
                stop_diverged(window, window.take(step + 1), step, log, optimizer)
            if last or (s.eval_every and (step + 1) % s.eval_every == 0):
                for run, row in enumerate(self.evaluate(network, stack)):
                    log.metrics(run, step, row)
            log.checkpoint(step + 1, parts, result)
        envs.close()

        episodes.close(s.total_steps - 1)
        return [result(run) for run in range(len(stack))]

    @property
    def compiles(self) -> bool:
        """Whether gradients and optimizer steps are compiled."""
        s = self.settings
        updates = max(0, s.total_steps - s.learning_starts) // s.train_every
        return updates >= COMPILE_FROM if s.compile == "auto" else s.compile

    def epsilon(self, step: int) -> float:
        """The share of random actions at a step: linear from start to end, then constant."""
        s = self.settings
        slope = (s.end_epsilon - s.start_epsilon) / (s.exploration_fraction * s.total_steps)
        reached = s.start_epsilon + slope * step
        return max(reached, s.end_epsilon) if slope < 0 else min(reached, s.end_epsilon)

    def policy(self, checkpoint: Mapping[str, Any]) -> Policy:
        """The greedy policy of a single run's checkpoint."""
        network = Forward(as_stack(checkpoint["q_network"]))
        return lambda observations: greedy(network, observations)

    def evaluate(self, network: Forward, stack: RunStack) -> list[dict[str, float]]:
        """Each run's mean return and length over ``eval_episodes`` episodes of the greedy policy.

        Every evaluation plays the same episodes: its environments are seeded by the run alone.
        """
        runs, each = len(stack), self.settings.eval_episodes
        seeds = [int(seed) for rng in stack.generators("evaluation") for seed in rng.integers(2**31, size=each)]

        def act(observations: np.ndarray) -> np.ndarray:
            return greedy(network, observations.reshape(runs, each, -1)).flatten()

        return evaluate_episodes(EnvStack(self.settings.env, seeds), act, runs)


def td_losses(params: Params, target: Params, minibatch: Tensor, n: int, gamma: float) -> tuple[Tensor, Tensor]:
    """The runs' MSE losses summed, so that each run's gradient is its own, and what is logged of them.

    Args:
        params: online network [R, ...].
        target: target network [R, ...].
        minibatch: rows [R, B, 2n + 3] of observation, next observation, action, reward, termination.
        n: size of an observation.
        gamma: discount.

    Returns:
        Σ_R mean_B (r + γ·(1 − terminated)·max_a Q⁻(s', a) − Q(s, a))², and [3, R]: that mean, the
        largest squared error, the mean Q(s, a).
    """
    observation, following, action, reward, terminated = minibatch.split([n, n, 1, 1, 1], dim=-1)
    with torch.no_grad():
        best = stacked_mlp(target, following).amax(-1, keepdim=True)
        expected = reward + gamma * (1 - terminated) * best
    value = stacked_mlp(params, observation).gather(-1, action.long())
    squared = (expected - value).square().squeeze(-1)
    loss = squared.mean(-1)
    return loss.sum(), torch.stack([loss, squared.amax(-1), value.mean((-1, -2))]).detach()


def greedy(network: Forward, observations: np.ndarray) -> np.ndarray:
    """The actions of largest Q for observations [R, n] or [R, B, n]: [R] or [R, B]."""
    if observations.ndim == 2:
        return network(observations[:, None]).argmax(-1)[:, 0]
    return network(observations).argmax(-1)


class Exploration(Stateful):
    """ε-greedy choices of R runs, drawn from each run's own generator in blocks."""

    STATE = ("generators", "_coins", "_random", "_next")
    BLOCK = 4096

    def __init__(self, generators: Sequence[np.random.Generator], n_actions: int) -> None:
        self.generators = list(generators)
        self.n_actions = n_actions
        self._coins = self._random = np.empty((0, len(self.generators)))
        self._next = 0

    def actions(self, epsilon: float, greedy: Callable[[], np.ndarray]) -> np.ndarray:
        """Each run's action [R]: random with probability ``epsilon``, else greedy."""
        if self._next == len(self._coins):
            self._coins = np.stack([rng.random(self.BLOCK) for rng in self.generators], axis=1)
            self._random = np.stack([rng.integers(self.n_actions, size=self.BLOCK) for rng in self.generators], axis=1)
            self._next = 0
        explores, random = self._coins[self._next] < epsilon, self._random[self._next]
        self._next += 1
        return random if explores.all() else np.where(explores, random, greedy())
