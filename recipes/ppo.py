"""Proximal policy optimisation (Schulman et al. 2017) as CleanRL's ppo_continuous_action.py has it, over a stack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from alphagrad.harness import metrics
from alphagrad.harness.memory import check_memory
from alphagrad.harness.recipe import Capability, EnvSettings, Log, Objective
from alphagrad.harness.recipe import Settings as BaseSettings
from alphagrad.harness.stack import RunStack

from .actor_critic import ActorCritic, Params, log_probability, mean_actions, values_of
from .environment import env_bytes, flat_boxes
from .envs import EnvStack, evaluate_episodes
from .gradients import gradients_of
from .measures import Episodes
from .mlp import as_stack, mlp_bytes
from .normalize import ObservationNormalizer
from .play import Policy, Watchable
from .rollout import Rollout
from .windows import Window, stop_diverged

LARGE = ("recipe.num_steps", "recipe.hidden", "recipe.eval_episodes")
"""Settings that say what a run takes in memory."""
COMPILE_FROM = 15_000
"""Gradient steps from which compilation repays itself: it takes about 12 s and saves 0.8 ms a step."""
MEASURES = {
    metrics.POLICY_LOSS: "mean",
    metrics.VALUE_LOSS: "mean",
    metrics.ENTROPY: "mean",
    metrics.APPROX_KL: "mean",
    metrics.CLIP_FRACTION: "mean",
}
"""What is logged of a rollout's minibatches: means over all of them, where CleanRL logs most of the last one."""


class PPOSettings(BaseSettings):
    """See conf/recipe/ppo_halfcheetah.yaml for what each means and CleanRL's values."""

    name: str
    env: EnvSettings
    total_steps: PositiveInt
    anneal_lr: bool
    num_steps: PositiveInt
    minibatches: PositiveInt
    epochs: PositiveInt
    gamma: float = Field(ge=0, le=1)
    gae_lambda: float = Field(ge=0, le=1)
    clip: float = Field(gt=0)
    clip_value_loss: bool
    normalize_advantages: bool
    entropy_coefficient: float = Field(ge=0)
    value_coefficient: float = Field(ge=0)
    bootstrap_truncated: bool
    hidden: list[PositiveInt] = Field(min_length=1)
    eval_every: int = Field(ge=0)
    eval_episodes: PositiveInt
    compile: Literal["auto", True, False]


class PPO(Watchable):
    """PPO with clipping, GAE and normalised observations and rewards.

    CleanRL ends the return at a truncation as at a termination; here a truncated episode bootstraps from
    the value of its final observation, unless ``bootstrap_truncated`` is false.
    """

    Settings = PPOSettings
    objective = Objective(metrics.EVAL_RETURN)
    headlines = metrics.RETURNS
    capabilities = (Capability.STACKED, Capability.PLAYED)
    logs = metrics.EPISODES | {*MEASURES, metrics.EXPLAINED_VARIANCE, metrics.LEARNING_RATE}

    def __init__(self, settings: PPOSettings) -> None:
        self.settings = settings
        observation, action = flat_boxes(settings.env, "PPO")
        if settings.num_steps % settings.minibatches:
            raise ValueError(
                f"recipe.minibatches={settings.minibatches}: must divide recipe.num_steps={settings.num_steps}"
            )
        if settings.total_steps < settings.num_steps:
            raise ValueError(
                f"recipe.total_steps={settings.total_steps}: must be at least recipe.num_steps={settings.num_steps}"
            )
        self.n_observations, self.n_actions = observation.shape[0], action.shape[0]
        self.low, self.high = action.low, action.high
        self.iterations = settings.total_steps // settings.num_steps
        # columns of a rollout's rows: observation, action, old log-probability, advantage, return, old value
        self.widths = [self.n_observations, self.n_actions, 1, 1, 1, 1]
        check_memory(settings, self.bytes_of, LARGE)

    def bytes_of(self, s: PPOSettings, runs: int = 1) -> float:
        """What runs take in memory, about."""
        n, a, minibatch = self.n_observations, self.n_actions, -(-s.num_steps // s.minibatches)
        learning = 12 * sum(self.widths) * s.num_steps
        learning += sum(mlp_bytes([n, *s.hidden, outputs], minibatch) for outputs in (a, 1))
        return runs * (learning + env_bytes(s.env) * s.eval_episodes)

    @property
    def total_steps(self) -> int:
        """Environment steps of each run: whole rollouts only, as in CleanRL."""
        return self.iterations * self.settings.num_steps

    @property
    def compiles(self) -> bool:
        """Whether gradients and optimizer steps are compiled."""
        s = self.settings
        updates = self.iterations * s.epochs * s.minibatches
        return updates >= COMPILE_FROM if s.compile == "auto" else s.compile

    def networks(self) -> dict[str, nn.Module]:
        """Actor and critic, under one optimizer."""
        return {"actor_critic": ActorCritic(self.n_observations, self.n_actions, self.settings.hidden)}

    def train(self, stack: RunStack, log: Log) -> list[dict[str, Any]]:
        """Trains all runs in lockstep; see :class:`alphagrad.harness.recipe.Recipe`."""
        s = self.settings
        params = stack.initialize(lambda: self.networks()["actor_critic"])
        optimizer = stack.optimizer(params, compile=self.compiles)
        rollout = Rollout(self, stack)
        shuffles = stack.generators("minibatch")
        compute_gradients = gradients_of(self.losses, self.compiles)
        episodes, window = Episodes(len(stack), log), Window(len(stack), MEASURES)
        parts = {"params": params, "optimizer": optimizer, "rollout": rollout, "shuffles": shuffles}
        parts |= {"episodes": episodes, "window": window}

        def result(run: int) -> dict[str, Any]:
            moments = rollout.normalize.moments
            return {
                "actor_critic": {name: p[run].clone() for name, p in params.items()},
                "observation_mean": torch.from_numpy(moments.mean[run].copy()),
                "observation_var": torch.from_numpy(moments.var[run].copy()),
                "optimizer": optimizer.state_of(run),
                "steps": self.total_steps,
            }

        for iteration in range(log.restore(parts) // s.num_steps, self.iterations):
            if s.anneal_lr:
                optimizer.scale_lr(1 - iteration / self.iterations)
            start = iteration * s.num_steps
            rows, explained = rollout.collect(params, start, episodes)
            flat = rows.flatten(0, 1)
            offsets = torch.arange(len(stack), device=stack.device).unsqueeze(1) * s.num_steps
            observed: list[dict[str, float]] = []
            for _ in range(s.epochs):
                order = np.stack([rng.permutation(s.num_steps) for rng in shuffles])
                for chosen in torch.from_numpy(order).to(stack.device).chunk(s.minibatches, dim=1):
                    minibatch = flat.index_select(0, (chosen + offsets).flatten()).view(*chosen.shape, -1)
                    grads, measures = compute_gradients(params, minibatch)
                    window.add(measures)
                    observe = log.observe_every and window.updates % log.observe_every == 0
                    observed = optimizer.step(grads, log.observation if observe else None) or observed
            step = start + s.num_steps
            measured, rates, skips = window.take(step), optimizer.learning_rates(), optimizer.skipped()
            for run, (row, rate, skipped) in enumerate(zip(measured, rates, skips, strict=True)):
                row[metrics.EXPLAINED_VARIANCE] = float(explained[run])
                row[metrics.LEARNING_RATE] = rate
                # a metric has one value at a step: of the rollout's measurements the last
                log.metrics(run, step - 1, {**row, **skipped, **(observed[run] if observed else {})})
            stop_diverged(window, measured, step - 1, log, optimizer)
            log.progress(step, episodes.shown())
            due = s.eval_every and step // s.eval_every > start // s.eval_every
            if due or iteration + 1 == self.iterations:
                for run, row in enumerate(self.evaluate(params, rollout.normalize, stack)):
                    log.metrics(run, step - 1, row)
            log.checkpoint(step, parts, result)
        rollout.envs.close()
        episodes.close(self.total_steps - 1)
        return [result(run) for run in range(len(stack))]

    def losses(self, params: Params, minibatch: Tensor) -> tuple[Tensor, Tensor]:
        """The runs' losses summed, so that each run's gradient is its own, and :data:`MEASURES` [5, R].

        ``minibatch`` is [R, B, columns], see ``widths``.
        """
        s = self.settings
        observation, action, *columns = minibatch.split(self.widths, dim=-1)
        old_logprob, advantage, target, old_value = (column.squeeze(-1) for column in columns)
        logprob = log_probability(params, observation, action)
        value = values_of(params, observation)
        log_ratio = logprob - old_logprob
        ratio = log_ratio.exp()
        if s.normalize_advantages:
            centred = advantage - advantage.mean(-1, keepdim=True)
            advantage = centred / (advantage.std(-1, keepdim=True) + 1e-8)
        policy_loss = -torch.minimum(advantage * ratio, advantage * ratio.clamp(1 - s.clip, 1 + s.clip)).mean(-1)
        squared = (value - target).square()
        if s.clip_value_loss:
            clipped = old_value + (value - old_value).clamp(-s.clip, s.clip)
            squared = torch.maximum(squared, (clipped - target).square())
        value_loss = 0.5 * squared.mean(-1)
        # of a diagonal Gaussian: Σ log σ + n/2·(1 + log 2π)
        entropy = (params["actor_logstd"] + 0.5 * (1 + np.log(2 * np.pi))).sum(-1)
        loss = policy_loss - s.entropy_coefficient * entropy + s.value_coefficient * value_loss
        with torch.no_grad():
            approx_kl = (ratio - 1 - log_ratio).mean(-1)
            clip_fraction = ((ratio - 1).abs() > s.clip).float().mean(-1)
        measures = [policy_loss, value_loss, entropy, approx_kl, clip_fraction]
        return loss.sum(), torch.stack([m.detach() for m in measures])

    def policy(self, checkpoint: Mapping[str, Any]) -> Policy:
        """The mean action of a single run's checkpoint, observations normalised as at its end."""
        mean, var = (checkpoint[f"observation_{moment}"].numpy()[None] for moment in ("mean", "var"))
        means, frozen = mean_actions(as_stack(checkpoint["actor_critic"])), ObservationNormalizer(mean.shape)
        frozen.moments.mean, frozen.moments.var = mean, var
        return lambda x: self.clip_actions(means(frozen(x, learn=False)[:, None])[:, 0])

    def evaluate(self, params: Params, normalize: ObservationNormalizer, stack: RunStack) -> list[dict[str, float]]:
        """Each run's mean return and length over ``eval_episodes`` episodes of the mean action.

        Observations are normalised by the statistics of training, which stay as they are.
        """
        runs, each = len(stack), self.settings.eval_episodes
        seeds = [int(seed) for rng in stack.generators("evaluation") for seed in rng.integers(2**31, size=each)]
        mean, var = (np.repeat(m, each, axis=0) for m in (normalize.moments.mean, normalize.moments.var))
        policy = mean_actions(params)
        frozen = ObservationNormalizer(mean.shape)
        frozen.moments.mean, frozen.moments.var = mean, var

        def act(observations: np.ndarray) -> np.ndarray:
            x = frozen(observations, learn=False).reshape(runs, each, -1)
            return self.clip_actions(policy(x).reshape(runs * each, -1))

        return evaluate_episodes(EnvStack(self.settings.env, seeds), act, runs)

    def clip_actions(self, actions: np.ndarray) -> np.ndarray:
        """Actions within the environment's bounds."""
        return np.minimum(np.maximum(actions, self.low), self.high)  # np.clip costs three times as much
