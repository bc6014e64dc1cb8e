"""PPO as a plain loop, written from CleanRL's."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
import yaml
from alphagrad.recipes import ppo as ppo_module
from alphagrad.recipes.actor_critic import ActorCritic
from alphagrad.recipes.ppo import PPO, PPOSettings
from dqn_cases import Recorder
from gymnasium import wrappers
from torch import nn
from torch.distributions import Normal

from alphagrad.harness import metrics
from alphagrad.harness.driver import Observation, OptimizerSpec
from alphagrad.harness.stack import RunSpec, RunStack

FILE = yaml.safe_load((Path(__file__).resolve().parents[2] / "conf/recipe/ppo_halfcheetah.yaml").read_text())
DEFAULTS = {k: v for k, v in FILE["recipe"].items() if k != "_target_"}
TRAY = "alphagrad_ppo/Tray-v0"


class Tray(gym.Env):
    """Something is pushed about until it falls off (termination) or time is up (truncation, TimeLimit)."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gym.spaces.Box(np.array([-0.5, -2.0], np.float32), np.array([1.5, 0.5], np.float32))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.y = (float(v) for v in self.np_random.uniform(-0.3, 0.3, 2))
        return self._seen(), {}

    def step(self, action):
        assert self.action_space.contains(np.asarray(action, np.float32)), f"{action} is out of bounds"
        self.x = 0.8 * self.x + 0.4 * float(action[0])
        self.y = 0.9 * self.y + 0.1 * float(action[1])
        return self._seen(), 1 - self.x**2 + 0.3 * self.y, abs(self.x) > 1.2, False, {}

    def _seen(self):
        return np.array([self.x, self.y, np.sin(3 * self.x + self.y)], np.float32)


gym.register(TRAY, entry_point=Tray, max_episode_steps=12)


def recipe(env_id: str = TRAY, **settings) -> PPO:
    small = {"total_steps": 256, "num_steps": 64, "minibatches": 4, "epochs": 3, "eval_episodes": 2, "compile": False}
    return PPO(PPOSettings(**{**DEFAULTS, **small, **settings, "env": {"id": env_id}}))


def adam(params):
    return torch.optim.Adam(params, lr=3e-3, eps=1e-5)


ADAM = OptimizerSpec("adam", adam, "elementwise", clip_grad_norm=0.5)


def train(ppo: PPO, *runs: RunSpec, observe: int = 0):
    log = Recorder(len(runs), Observation(2, 2.5), observe)
    return ppo.train(RunStack(runs), log), log


class Agent(nn.Module):
    """CleanRL's, without its initialisation."""

    def __init__(self, observations: int, actions: int) -> None:
        super().__init__()

        def network(outputs):
            sizes = [nn.Linear(observations, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs)]
            return nn.Sequential(*sizes)

        self.critic, self.actor_mean = network(1), network(actions)
        self.actor_logstd = nn.Parameter(torch.zeros(1, actions))

    def distribution(self, x):
        mean = self.actor_mean(x)
        return Normal(mean, torch.exp(self.actor_logstd.expand_as(mean)))

    def load(self, params, run: int = 0) -> Agent:
        """With the parameters of a run of a stack."""
        for name, p in self.named_parameters():
            p.data.copy_(params[name][run].view_as(p))
        return self


def reference_losses(agent: Agent, s: PPOSettings, obs, actions, old_logprob, advantages, returns, old_values):
    """CleanRL's loss of a minibatch, and what it measures on the way."""
    distribution = agent.distribution(obs)
    newlogprob, entropy = distribution.log_prob(actions).sum(1), distribution.entropy().sum(1)
    newvalue = agent.critic(obs).view(-1)
    logratio = newlogprob - old_logprob
    ratio = logratio.exp()
    with torch.no_grad():
        approx_kl = ((ratio - 1) - logratio).mean()
        clipfrac = ((ratio - 1.0).abs() > s.clip).float().mean()
    if s.normalize_advantages:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    pg_loss = torch.max(-advantages * ratio, -advantages * torch.clamp(ratio, 1 - s.clip, 1 + s.clip)).mean()
    if s.clip_value_loss:
        unclipped = (newvalue - returns) ** 2
        v_clipped = old_values + torch.clamp(newvalue - old_values, -s.clip, s.clip)
        v_loss = 0.5 * torch.max(unclipped, (v_clipped - returns) ** 2).mean()
    else:
        v_loss = 0.5 * ((newvalue - returns) ** 2).mean()
    entropy_loss = entropy.mean()
    loss = pg_loss - s.entropy_coefficient * entropy_loss + v_loss * s.value_coefficient
    return loss, torch.stack([m.detach() for m in (pg_loss, v_loss, entropy_loss, approx_kl, clipfrac)])


def reference_ppo(seed: int, s: PPOSettings):
    """CleanRL's ppo_continuous_action.py for one run, reading random numbers from the run's own streams."""
    stack = RunStack([RunSpec(seed, ADAM)])
    exploration, minibatch, environment = (stack.generators(n)[0] for n in ("exploration", "minibatch", "environment"))
    env = wrappers.ClipAction(wrappers.RecordEpisodeStatistics(gym.make(s.env.id)))
    normalized = env = wrappers.NormalizeObservation(env)
    env = wrappers.TransformObservation(env, lambda o: np.clip(o, -10, 10), None)
    env = wrappers.TransformReward(wrappers.NormalizeReward(env, gamma=s.gamma), lambda r: np.clip(r, -10, 10))
    n, actions_n = env.observation_space.shape[0], env.action_space.shape[0]
    agent = Agent(n, actions_n).load(stack.initialize(lambda: ActorCritic(n, actions_n, [64, 64])))
    optimizer = torch.optim.Adam(agent.parameters(), lr=3e-3, eps=1e-5)
    next_obs = torch.as_tensor(env.reset(seed=int(environment.integers(2**31)))[0])
    next_done, episodes, rows, global_step = 0.0, [], [], 0
    iterations = s.total_steps // s.num_steps
    for iteration in range(1, iterations + 1):
        rate = (1.0 - (iteration - 1.0) / iterations) * 3e-3 if s.anneal_lr else 3e-3
        optimizer.param_groups[0]["lr"] = rate
        noise = torch.from_numpy(exploration.standard_normal((s.num_steps, actions_n), dtype=np.float32))
        steps = []
        for t in range(s.num_steps):
            obs, done = next_obs, next_done
            with torch.no_grad():
                distribution = agent.distribution(obs.unsqueeze(0))
                action = distribution.mean + distribution.stddev * noise[t]
                logprob, value = distribution.log_prob(action).sum(1), agent.critic(obs)
            reached, reward, terminated, truncated, info = env.step(action[0].numpy())
            reward = float(np.asarray(reward).item())
            next_obs, next_done = torch.as_tensor(reached), float(terminated or truncated)
            if terminated or truncated:
                if truncated and not terminated and s.bootstrap_truncated:  # what CleanRL does not do
                    with torch.no_grad():
                        reward += s.gamma * float(agent.critic(next_obs))
                episodes.append((global_step, float(info["episode"]["r"])))
                next_obs = torch.as_tensor(env.reset()[0])
            steps.append((obs, action[0], logprob[0], torch.tensor(reward), torch.tensor(done), value[0]))
            global_step += 1
        obs, actions, logprobs, rewards, dones, values = (torch.stack(c) for c in zip(*steps, strict=True))
        with torch.no_grad():
            next_value = agent.critic(next_obs)[0]
        advantages = torch.zeros_like(rewards)
        lastgaelam = torch.tensor(0.0)
        for t in reversed(range(s.num_steps)):
            last = t == s.num_steps - 1
            nextnonterminal = 1.0 - (next_done if last else dones[t + 1])
            delta = rewards[t] + s.gamma * (next_value if last else values[t + 1]) * nextnonterminal - values[t]
            advantages[t] = lastgaelam = delta + s.gamma * s.gae_lambda * nextnonterminal * lastgaelam
        returns = advantages + values
        batch = (obs, actions, logprobs, advantages, returns, values)
        measured = []
        size = s.num_steps // s.minibatches
        for _ in range(s.epochs):
            order = minibatch.permutation(s.num_steps)
            for start in range(0, s.num_steps, size):
                loss, measures = reference_losses(agent, s, *(c[order[start : start + size]] for c in batch))
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                optimizer.step()
                measured.append(measures)
        y_pred, y_true = values.numpy(), returns.numpy()
        row = dict(zip(ppo_module.MEASURES, torch.stack(measured).mean(0).tolist(), strict=True))
        row[metrics.EXPLAINED_VARIANCE] = 1 - np.var(y_true - y_pred) / np.var(y_true)
        rows.append((global_step - 1, {**row, metrics.LEARNING_RATE: rate}))
    env.close()
    return agent, normalized.obs_rms, episodes, rows
