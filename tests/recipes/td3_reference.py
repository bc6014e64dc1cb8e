"""TD3 as a plain loop, written from CleanRL's."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
import yaml
from alphagrad.recipes.td3 import TD3, TD3Settings
from dqn_cases import Recorder
from ppo_reference import TRAY
from torch import nn

from alphagrad.harness.driver import Observation, OptimizerSpec
from alphagrad.harness.stack import RunSpec, RunStack

FILE = yaml.safe_load((Path(__file__).resolve().parents[2] / "conf/recipe/td3_hopper.yaml").read_text())
DEFAULTS = {k: v for k, v in FILE["recipe"].items() if k != "_target_"}


def recipe(env_id: str = TRAY, **settings) -> TD3:
    small = {"total_steps": 240, "learning_starts": 60, "batch_size": 16, "hidden": [24, 16], "log_every": 40}
    small |= {"eval_episodes": 2, "compile": False}
    return TD3(TD3Settings(**{**DEFAULTS, **small, **settings, "env": {"id": env_id}}))


def adam(params):
    return torch.optim.Adam(params, lr=3e-3)


ADAM = OptimizerSpec("adam", adam, "elementwise")


def train(td3: TD3, *runs: RunSpec, observe: int = 0):
    log = Recorder(len(runs), Observation(2, 2.5), observe)
    return td3.train(RunStack(runs), log), log


class QNetwork(nn.Module):
    """CleanRL's critic, of any width."""

    def __init__(self, inputs: int, hidden: list[int]) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(inputs, hidden[0]), nn.Linear(hidden[0], hidden[1])
        self.fc3 = nn.Linear(hidden[1], 1)

    def forward(self, x, a):
        x = F.relu(self.fc1(torch.cat([x, a], 1)))
        return self.fc3(F.relu(self.fc2(x)))


class Actor(nn.Module):
    """CleanRL's actor, of any width."""

    def __init__(self, inputs: int, hidden: list[int], space: gym.spaces.Box) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(inputs, hidden[0]), nn.Linear(hidden[0], hidden[1])
        self.fc_mu = nn.Linear(hidden[1], space.shape[0])
        self.action_scale = torch.tensor((space.high - space.low) / 2.0, dtype=torch.float32)
        self.action_bias = torch.tensor((space.high + space.low) / 2.0, dtype=torch.float32)

    def forward(self, x):
        x = F.relu(self.fc2(F.relu(self.fc1(x))))
        return torch.tanh(self.fc_mu(x)) * self.action_scale + self.action_bias


def load(network: nn.Module, params, prefix: str, run: int) -> nn.Module:
    """A network with the parameters of a run of a stack whose names begin with ``prefix``."""
    rows = [p[run] for name, p in params.items() if name.startswith(prefix)]
    for p, row in zip(network.parameters(), rows, strict=True):
        p.data.copy_(row)
    return network


class Reference:
    """One run's networks and CleanRL's losses of a minibatch."""

    def __init__(self, s: TD3Settings, params, run: int = 0) -> None:
        env = gym.make(s.env.id)
        self.s, self.space = s, env.action_space
        n, a = env.observation_space.shape[0], self.space.shape[0]

        def actor():
            return load(Actor(n, s.hidden, self.space), params, "actor.", run)

        def critic(name):
            return load(QNetwork(n + a, s.hidden), params, f"critics.{name}.", run)

        self.actor, self.target_actor = actor(), actor()
        self.qf1, self.qf1_target = critic("qf1"), critic("qf1")
        self.qf2, self.qf2_target = critic("qf2"), critic("qf2")

    def critic_loss(self, obs, next_obs, actions, rewards, dones, normal):
        s = self.s
        with torch.no_grad():
            clipped_noise = (normal * s.policy_noise).clamp(-s.noise_clip, s.noise_clip)
            clipped_noise = clipped_noise * self.target_actor.action_scale
            # CleanRL clamps by the first dimension's bounds alone
            low, high = torch.tensor(self.space.low), torch.tensor(self.space.high)
            next_actions = (self.target_actor(next_obs) + clipped_noise).clamp(low, high)
            best = torch.min(self.qf1_target(next_obs, next_actions), self.qf2_target(next_obs, next_actions))
            next_q_value = rewards.flatten() + (1 - dones.flatten()) * s.gamma * best.view(-1)
        q1, q2 = self.qf1(obs, actions).view(-1), self.qf2(obs, actions).view(-1)
        return F.mse_loss(q1, next_q_value) + F.mse_loss(q2, next_q_value), q1.mean().detach()

    def actor_loss(self, obs):
        return -self.qf1(obs, self.actor(obs)).mean()

    def gap(self, checkpoint) -> float:
        """The largest difference to a run's checkpoint."""
        pairs = {
            "actor": [self.actor],
            "critics": [self.qf1, self.qf2],
            "target_actor": [self.target_actor],
            "target_critics": [self.qf1_target, self.qf2_target],
        }
        assert set(pairs) <= set(checkpoint)
        gaps = []
        for net, networks in pairs.items():
            own = [p for network in networks for p in network.parameters()]
            gaps += [float((a - b).detach().abs().max()) for a, b in zip(own, checkpoint[net].values(), strict=True)]
        return max(gaps)


def reference_td3(seed: int, s: TD3Settings):
    """CleanRL's td3_continuous_action.py for one run, reading random numbers from the run's own streams."""
    stack = RunStack([RunSpec(seed, ADAM)])
    exploration, minibatch, environment, smoothing = (
        stack.generators(name)[0] for name in ("exploration", "minibatch", "environment", "target policy")
    )
    networks = recipe(s.env.id, hidden=s.hidden).networks
    r = Reference(s, stack.initialize(lambda: nn.ModuleDict(networks())))
    q_optimizer = torch.optim.Adam([*r.qf1.parameters(), *r.qf2.parameters()], lr=3e-3)
    actor_optimizer = torch.optim.Adam(r.actor.parameters(), lr=3e-3)
    env = gym.make(s.env.id)
    low, high = r.space.low, r.space.high
    obs, _ = env.reset(seed=int(environment.integers(2**31)))
    capacity = min(s.buffer_size, s.total_steps)
    ring: list = [None] * capacity
    uniform, normal, draws, smooth = [], [], [], []
    episodes, total, losses = [], 0.0, {"critic": [], "actor": []}
    for step in range(s.total_steps):
        if step < s.learning_starts:
            uniform = uniform or list(exploration.random((1024, len(low)), dtype=np.float32))
            action = low + (high - low) * uniform.pop(0)
        else:
            normal = normal or list(exploration.standard_normal((1024, len(low)), dtype=np.float32))
            with torch.no_grad():
                action = r.actor(torch.as_tensor(obs).float().unsqueeze(0))[0]
                action += r.actor.action_scale * s.exploration_noise * torch.as_tensor(normal.pop(0))
            action = action.numpy().clip(low, high)
        next_obs, reward, terminated, truncated, _ = env.step(action)
        ring[step % capacity] = (obs, next_obs, action, reward, terminated)
        total += float(reward)
        obs = next_obs
        if terminated or truncated:
            episodes.append((step, total))
            total = 0.0
            obs, _ = env.reset()
        if step > s.learning_starts:
            draws = draws or list(minibatch.random((64, s.batch_size)))
            smooth = smooth or list(smoothing.standard_normal((16, s.batch_size, len(low)), dtype=np.float32))
            rows = [ring[int(u * min(step + 1, capacity))] for u in draws.pop(0)]
            o, o2, a, rew, done = (torch.as_tensor(np.array(c), dtype=torch.float32) for c in zip(*rows, strict=True))
            qf_loss, _ = r.critic_loss(o, o2, a, rew, done, torch.from_numpy(smooth.pop(0)))
            q_optimizer.zero_grad()
            qf_loss.backward()
            q_optimizer.step()
            losses["critic"].append((step, float(qf_loss.detach())))
            if step % s.policy_every == 0:
                actor_loss = r.actor_loss(o)
                actor_optimizer.zero_grad()
                actor_loss.backward()
                actor_optimizer.step()
                losses["actor"].append((step, float(actor_loss.detach())))
                pairs = ((r.actor, r.target_actor), (r.qf1, r.qf1_target), (r.qf2, r.qf2_target))
                for online, slow in pairs:
                    for p, target in zip(online.parameters(), slow.parameters(), strict=True):
                        target.data.copy_(s.tau * p.data + (1 - s.tau) * target.data)
    env.close()
    return r, episodes, losses
