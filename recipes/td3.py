"""Twin delayed DDPG (Fujimoto et al. 2018) as CleanRL's td3_continuous_action.py has it, over a stack of runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from alphagrad.harness import metrics
from alphagrad.harness.driver import Observation
from alphagrad.harness.memory import check_memory
from alphagrad.harness.recipe import Capability, EnvSettings, Log, Objective
from alphagrad.harness.recipe import Settings as BaseSettings
from alphagrad.harness.stack import RunStack

from .environment import env_bytes, flat_boxes
from .envs import EnvStack, evaluate_episodes
from .gradients import gradients_of
from .measures import Episodes
from .mlp import Forward, as_stack, mlp, mlp_bytes, stacked_mlp
from .noise import Noise
from .play import Policy, Watchable
from .replay import Replay, replay_bytes
from .windows import Window, stop_diverged

Params = Mapping[str, Tensor]

LARGE = ("recipe.buffer_size", "recipe.batch_size", "recipe.hidden", "recipe.eval_episodes")
"""Settings that say what a run takes in memory."""
COMPILE_FROM = 10_000
"""Gradient steps from which compilation repays itself: it takes about 12 s and saves 1.6 ms a step."""
CRITIC_MEASURES = {metrics.CRITIC_LOSS: "mean", metrics.Q_VALUES: "mean"}
SMOOTHED = 16
"""Minibatches whose noise is drawn at a time."""
ACTOR_MEASURES = {metrics.ACTOR_LOSS: "mean"}
NOTHING: Mapping[str, float] = {}


class TD3Settings(BaseSettings):
    """See conf/recipe/td3_hopper.yaml for what each means and CleanRL's values."""

    name: str
    env: EnvSettings
    total_steps: PositiveInt
    buffer_size: PositiveInt
    batch_size: PositiveInt
    gamma: float = Field(ge=0, le=1)
    tau: float = Field(gt=0, le=1)
    policy_noise: float = Field(ge=0)
    noise_clip: float = Field(ge=0)
    exploration_noise: float = Field(ge=0)
    learning_starts: int = Field(ge=0)
    policy_every: PositiveInt
    hidden: list[PositiveInt] = Field(min_length=1)
    log_every: PositiveInt
    eval_every: int = Field(ge=0)
    eval_episodes: PositiveInt
    compile: Literal["auto", True, False]


class TD3(Watchable):
    """TD3: two critics under one optimizer, a delayed actor under another, smoothed target policy.

    A truncated episode bootstraps, a terminated one does not, as in CleanRL. CleanRL clips target actions
    by the bounds of the first action dimension; here each dimension has its own, which is the same for
    every MuJoCo environment.
    """

    Settings = TD3Settings
    objective = Objective(metrics.EVAL_RETURN)
    headlines = metrics.RETURNS
    capabilities = (Capability.STACKED, Capability.PLAYED)
    logs = metrics.EPISODES | {*CRITIC_MEASURES, *ACTOR_MEASURES}

    def __init__(self, settings: TD3Settings) -> None:
        self.settings = settings
        observation, action = flat_boxes(settings.env, "TD3")
        if not action.is_bounded():
            raise ValueError(f"env.id={settings.env.id}: TD3 needs bounded actions, got {action}")
        self.n_observations, self.n_actions = observation.shape[0], action.shape[0]
        self.low, self.high = action.low.astype(np.float32), action.high.astype(np.float32)
        check_memory(settings, self.bytes_of, LARGE)

    def bytes_of(self, s: TD3Settings, runs: int = 1) -> float:
        """What runs take in memory, about."""
        n, a = self.n_observations, self.n_actions
        rows = min(s.buffer_size, s.total_steps)  # more are never filled
        learning = replay_bytes(rows, 2 * n + a + 2, s.batch_size) + 4 * SMOOTHED * a * s.batch_size
        learning += sum(mlp_bytes(sizes, s.batch_size) for sizes in ([n, *s.hidden, a], *2 * [[n + a, *s.hidden, 1]]))
        return runs * (learning + env_bytes(s.env) * s.eval_episodes)

    @property
    def total_steps(self) -> int:
        """Environment steps of each run."""
        return self.settings.total_steps

    @property
    def compiles(self) -> bool:
        """Whether gradients and optimizer steps are compiled."""
        s = self.settings
        return s.total_steps - s.learning_starts >= COMPILE_FROM if s.compile == "auto" else s.compile

    def networks(self) -> dict[str, nn.Module]:
        """The actor, and both critics, each group under an optimizer of its own."""
        n, a, hidden = self.n_observations, self.n_actions, self.settings.hidden
        critics = {name: mlp([n + a, *hidden, 1]) for name in ("qf1", "qf2")}
        return {"actor": nn.ModuleDict({"actor": mlp([n, *hidden, a])}), "critics": nn.ModuleDict(critics)}

    def train(self, stack: RunStack, log: Log) -> list[dict[str, Any]]:
        """Trains all runs in lockstep; see :class:`alphagrad.harness.recipe.Recipe`."""
        s = self.settings
        both = stack.initialize(lambda: nn.ModuleDict(self.networks()))
        actor, critics = both.below("actor."), both.below("critics.")
        target_actor, target_critics = actor.clone(), critics.clone()
        actor_optimizer = stack.optimizer(actor, compile=self.compiles, network="actor")
        critic_optimizer = stack.optimizer(critics, compile=self.compiles, network="critics")
        envs = EnvStack(s.env, [int(rng.integers(2**31)) for rng in stack.generators("environment")])
        width = 2 * self.n_observations + self.n_actions + 2
        replay = Replay(
            min(s.buffer_size, s.total_steps), width, s.batch_size, stack.generators("minibatch"), stack.device
        )
        explore = Noise(stack.generators("exploration"), (self.n_actions,), 1024)
        smooth = Noise(stack.generators("target policy"), (s.batch_size, self.n_actions), SMOOTHED)
        bounds = Bounds(self.low, self.high, stack.device)
        policy = Forward(actor)
        critic_gradients, actor_gradients = self._gradients(bounds)
        episodes = Episodes(len(stack), log)
        window, actor_window = Window(len(stack), CRITIC_MEASURES), Window(len(stack), ACTOR_MEASURES)
        nets = {"actor": actor, "critics": critics, "target_actor": target_actor, "target_critics": target_critics}
        parts = {**nets, "actor_optimizer": actor_optimizer, "critic_optimizer": critic_optimizer, "envs": envs}
        parts |= {"replay": replay, "exploration": explore, "smoothing": smooth}
        parts |= {"episodes": episodes, "window": window, "actor_window": actor_window}

        def result(run: int) -> dict[str, Any]:
            return {
                **{net: {name: p[run].clone() for name, p in params.items()} for net, params in nets.items()},
                "actor_optimizer": actor_optimizer.state_of(run),
                "critic_optimizer": critic_optimizer.state_of(run),
                "steps": s.total_steps,
            }

        def observation(updates: Window) -> Observation | None:
            # by its own count, else an actor that is updated at odd steps alone would never be observed
            return log.observation if log.observe_every and updates.updates % log.observe_every == 0 else None

        for step in range(log.restore(parts), s.total_steps):
            if step < s.learning_starts:
                actions = self.low + (self.high - self.low) * explore.uniform()
            else:
                noise = (self.high - self.low) / 2 * s.exploration_noise * explore.normal()
                chosen = bounds.squeeze(policy(envs.observations[:, None]))[:, 0]
                actions = (chosen + noise).clip(self.low, self.high)
            before = envs.observations
            reached, rewards, terminations, finished = envs.step(actions)
            replay.add(before, reached, actions, rewards[:, None], terminations[:, None])
            episodes.add(finished, step)
            if step > s.learning_starts:
                minibatch = replay.sample()
                noise = torch.from_numpy(smooth.normal()).to(stack.device)
                grads, measures = critic_gradients(critics, target_critics, target_actor, minibatch, noise)
                window.add(measures)
                signals = critic_optimizer.step(grads, observation(window))
                if step % s.policy_every == 0:
                    grads, measures = actor_gradients(actor, critics, minibatch)
                    actor_window.add(measures)
                    more = actor_optimizer.step(grads, observation(actor_window))
                    signals = [{**row, **also} for row, also in zip_longest(signals, more, fillvalue=NOTHING)]
                    for online, target in ((actor, target_actor), (critics, target_critics)):
                        target.flat.lerp_(online.flat, s.tau)
                for run, row in enumerate(signals):
                    log.metrics(run, step, row)
            if (step + 1) % s.log_every == 0:
                taken = zip(window.take(step + 1), actor_window.take(step + 1), strict=True)
                rows = [{**actor_row, **critic_row} for critic_row, actor_row in taken]
                skips = zip(critic_optimizer.skipped(), actor_optimizer.skipped(), strict=True)
                for run, (row, (of_critics, of_actor)) in enumerate(zip(rows, skips, strict=True)):
                    log.metrics(run, step, {**row, **of_critics, **of_actor})
                stop_diverged(window, rows, step, log, critic_optimizer, actor_optimizer)
                log.progress(step + 1, episodes.shown())
            last = step + 1 == s.total_steps
            if last:  # what came after the last point of the log may have diverged too
                stop_diverged(window, window.take(step + 1), step, log, critic_optimizer, actor_optimizer)
            if last or (s.eval_every and (step + 1) % s.eval_every == 0):
                for run, row in enumerate(self.evaluate(policy, bounds, stack)):
                    log.metrics(run, step, row)
            log.checkpoint(step + 1, parts, result)
        envs.close()
        episodes.close(s.total_steps - 1)
        return [result(run) for run in range(len(stack))]

    def _gradients(self, bounds: Bounds) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """Gradients [R, ...] and measures [n, R]: of the critics, and of the actor."""
        s, n, a = self.settings, self.n_observations, self.n_actions

        def split(minibatch: Tensor) -> Sequence[Tensor]:
            return minibatch.split([n, n, a, 1, 1], dim=-1)

        def critic_losses(
            critics: Params, target_critics: Params, target_actor: Params, minibatch: Tensor, noise: Tensor
        ) -> tuple[Tensor, Tensor]:
            observation, following, action, reward, terminated = split(minibatch)
            with torch.no_grad():
                smoothing = (noise * s.policy_noise).clamp(-s.noise_clip, s.noise_clip) * bounds.scale
                chosen = bounds.clamp(bounds.policy(target_actor, following) + smoothing)
                best = torch.minimum(*both_values(target_critics, following, chosen))
                expected = reward.squeeze(-1) + s.gamma * (1 - terminated.squeeze(-1)) * best
            values = both_values(critics, observation, action)
            loss = sum((value - expected).square().mean(-1) for value in values)
            assert isinstance(loss, Tensor)
            return loss.sum(), torch.stack([loss, values[0].mean(-1)]).detach()

        def actor_losses(actor: Params, critics: Params, minibatch: Tensor) -> tuple[Tensor, Tensor]:
            observation = split(minibatch)[0]
            action = bounds.policy(actor, observation)
            loss = -value_of(critics, "qf1.", observation, action).mean(-1)
            return loss.sum(), loss.detach().unsqueeze(0)

        return gradients_of(critic_losses, self.compiles), gradients_of(actor_losses, self.compiles)

    def policy(self, checkpoint: Mapping[str, Any]) -> Policy:
        """The policy without noise of a single run's checkpoint."""
        actor, bounds = Forward(as_stack(checkpoint["actor"])), Bounds(self.low, self.high, torch.device("cpu"))
        return lambda observations: bounds.squeeze(actor(observations[:, None]))[:, 0]

    def evaluate(self, policy: Forward, bounds: Bounds, stack: RunStack) -> list[dict[str, float]]:
        """Each run's mean return and length over ``eval_episodes`` episodes of the policy without noise."""
        runs, each = len(stack), self.settings.eval_episodes
        seeds = [int(seed) for rng in stack.generators("evaluation") for seed in rng.integers(2**31, size=each)]

        def act(observations: np.ndarray) -> np.ndarray:
            return bounds.squeeze(policy(observations.reshape(runs, each, -1))).reshape(runs * each, -1)

        return evaluate_episodes(EnvStack(self.settings.env, seeds), act, runs)


class Bounds:
    """The box of actions, and the policy that a tanh squeezes into it."""

    def __init__(self, low: np.ndarray, high: np.ndarray, device: torch.device) -> None:
        self.low, self.high = torch.from_numpy(low).to(device), torch.from_numpy(high).to(device)
        self.scale, self.center = (self.high - self.low) / 2, (self.high + self.low) / 2
        self.arrays = ((high - low) / 2, (high + low) / 2)

    def policy(self, actor: Params, x: Tensor) -> Tensor:
        """Actions [R, B, a] for observations [R, B, n]."""
        return torch.tanh(stacked_mlp(actor, x)) * self.scale + self.center

    def squeeze(self, outputs: np.ndarray) -> np.ndarray:
        """Actions from what the network gives, as :meth:`policy` has them, on the host."""
        scale, center = self.arrays
        return np.tanh(outputs) * scale + center

    def clamp(self, actions: Tensor) -> Tensor:
        """Actions within the box."""
        return torch.maximum(torch.minimum(actions, self.high), self.low)


def value_of(critics: Params, critic: str, observation: Tensor, action: Tensor) -> Tensor:
    """Q of one critic, [R, B]."""
    own = {name: p for name, p in critics.items() if name.startswith(critic)}
    return stacked_mlp(own, torch.cat([observation, action], dim=-1)).squeeze(-1)


def both_values(critics: Params, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Q of both critics, [R, B] each."""
    return value_of(critics, "qf1.", observation, action), value_of(critics, "qf2.", observation, action)
