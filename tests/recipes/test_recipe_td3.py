"""TD3 over a stack of runs, against single runs and against a plain loop written from CleanRL's."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from alphagrad.recipes.envs import EnvStack
from alphagrad.recipes.noise import Noise
from alphagrad.recipes.td3 import Bounds
from dqn_cases import largest_gap
from ppo_reference import Tray
from td3_reference import ADAM, Reference, recipe, reference_td3, train
from tiers import one_in
from torch import nn

from alphagrad.harness import metrics
from alphagrad.harness.driver import OptimizerSpec
from alphagrad.harness.sharing import StackOptimizer
from alphagrad.harness.stack import RunSpec, RunStack
from alphagrad.harness.tensors import split


@pytest.mark.parametrize("settings", [{}, {"policy_noise": 3.0, "noise_clip": 0.3, "gamma": 0.5}])
def test_losses_and_gradients_are_each_runs_own(settings):
    td3 = recipe(**settings)
    runs, batch, n, a = 3, 29, 3, 2
    stack = RunStack([RunSpec(k, ADAM) for k in range(runs)])
    start = stack.initialize(lambda: nn.ModuleDict(td3.networks()))
    target = RunStack([RunSpec(k + 10, ADAM) for k in range(runs)]).initialize(lambda: nn.ModuleDict(td3.networks()))

    g = torch.Generator().manual_seed(2)
    columns = [torch.randn(runs, batch, width, generator=g) for width in (n, n, a, 1)]
    columns[0][2] *= 50  # runs may be most unequal
    columns.append((torch.rand(runs, batch, 1, generator=g) < 0.4).float())
    normal = torch.randn(runs, batch, a, generator=g)
    of_critics, of_actor = td3._gradients(Bounds(td3.low, td3.high, torch.device("cpu")))
    minibatch = torch.cat(columns, dim=-1)
    critic_args = (start.below("critics."), target.below("critics."), target.below("actor."), minibatch, normal)
    flat, measures = of_critics(*critic_args)
    grads = split(flat, critic_args[0].layout)
    flat, actor_measures = of_actor(start.below("actor."), start.below("critics."), minibatch)
    actor_grads = split(flat, start.below("actor.").layout)
    for run in range(runs):
        reference, late = Reference(td3.settings, start, run), Reference(td3.settings, target, run)
        reference.target_actor, reference.qf1_target, reference.qf2_target = late.actor, late.qf1, late.qf2
        loss, q = reference.critic_loss(*(c[run] for c in columns), normal[run])
        loss.backward()
        torch.testing.assert_close(measures[:, run], torch.stack([loss.detach(), q]), rtol=1e-5, atol=1e-6)
        expected = [p.grad for critic in (reference.qf1, reference.qf2) for p in critic.parameters()]
        for name, wanted in zip(grads, expected, strict=True):
            torch.testing.assert_close(grads[name][run], wanted, rtol=1e-4, atol=1e-5)
        reference.actor.zero_grad()
        actor_loss = reference.actor_loss(columns[0][run])
        actor_loss.backward()
        torch.testing.assert_close(actor_measures[:, run], actor_loss.detach().view(1), rtol=1e-5, atol=1e-6)
        for name, p in zip(actor_grads, reference.actor.parameters(), strict=True):
            torch.testing.assert_close(actor_grads[name][run], p.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    one_in(
        4,
        [
            {},
            {"policy_every": 3, "tau": 0.3, "gamma": 0.8, "policy_noise": 1.0, "noise_clip": 0.2, "buffer_size": 50},
            {"policy_every": 1, "exploration_noise": 0.6, "learning_starts": 0, "total_steps": 120},
            {"env_id": "Pendulum-v1", "total_steps": 280, "learning_starts": 100},
        ],
    ),
)
def test_training_is_cleanrls(settings):
    td3 = recipe(**settings)
    reference, episodes, losses = reference_td3(3, td3.settings)
    (checkpoint,), log = train(td3, RunSpec(3, ADAM))
    found = log.of(0, metrics.EPISODIC_RETURN)
    assert [step for step, _ in found] == [step for step, _ in episodes]
    assert episodes
    np.testing.assert_allclose([r for _, r in found], [r for _, r in episodes], rtol=1e-4, atol=1e-4)
    assert reference.gap(checkpoint) < 5e-5
    assert checkpoint["steps"] == td3.settings.total_steps
    for name, loss in ((metrics.CRITIC_LOSS, "critic"), (metrics.ACTOR_LOSS, "actor")):
        points = log.of(0, name)
        assert len(points) > 2
        for step, value in points:
            window = [v for at, v in losses[loss] if step - 40 < at <= step]
            assert value == pytest.approx(np.mean(window), rel=1e-3, abs=1e-5)


def test_when_it_learns(monkeypatch):
    """No update up to learning_starts, none at it; then critics at every step, actor where step % policy_every == 0."""
    now = {"step": -1}
    learned: dict[int, list[int]] = {}
    step_envs, step_optimizer = EnvStack.step, StackOptimizer.step

    def counted(self, actions):
        if len(self.envs) == 1:  # evaluation has two
            now["step"] += 1
        return step_envs(self, actions)

    def noted(self, *args):
        learned.setdefault(len(self.params), []).append(now["step"])
        return step_optimizer(self, *args)

    monkeypatch.setattr(EnvStack, "step", counted)
    monkeypatch.setattr(StackOptimizer, "step", noted)
    train(recipe(total_steps=31, learning_starts=20, policy_every=4), RunSpec(0, ADAM))
    assert learned == {12: list(range(21, 31)), 6: [24, 28]}  # two critics have 12 tensors, the actor 6


def test_targets_follow_at_the_actors_updates_alone():
    """Before the first one they are the initial networks, after it a τ of the way to the online ones."""
    settings = {"learning_starts": 20, "policy_every": 8, "tau": 0.25, "eval_episodes": 1}
    start = recipe().networks
    first = RunStack([RunSpec(0, ADAM)]).initialize(lambda: nn.ModuleDict(start()))
    (before,), _ = train(recipe(total_steps=24, **settings), RunSpec(0, ADAM))  # critics at 21, 22, 23
    (after,), _ = train(recipe(total_steps=25, **settings), RunSpec(0, ADAM))  # and both at 24
    for net in ("actor", "critics"):
        for name, p in before[f"target_{net}"].items():
            initial = first[f"{net}.{name}"][0]
            assert torch.equal(p, initial)
            torch.testing.assert_close(after[f"target_{net}"][name], 0.25 * after[net][name] + 0.75 * initial)
    assert largest_gap(before["actor"], before["target_actor"]) == 0
    assert largest_gap(before["critics"], before["target_critics"]) > 1e-3
    assert largest_gap(after["actor"], before["actor"]) > 1e-3


@pytest.fixture
def actions(monkeypatch):
    """All actions of training, in order."""
    taken = []
    step = EnvStack.step

    def noted(self, chosen):
        if len(self.envs) == 1:
            taken.append(np.array(chosen[0]))
        return step(self, chosen)

    monkeypatch.setattr(EnvStack, "step", noted)
    return taken


def test_actions_are_uniform_before_learning_starts(actions):
    train(recipe(total_steps=1200, learning_starts=1199), RunSpec(0, ADAM))
    drawn = np.array(actions[:1199])
    share = (drawn - Tray.action_space.low) / (Tray.action_space.high - Tray.action_space.low)
    assert ((share >= 0) & (share <= 1)).all()
    for column in share.T:
        quantiles = np.quantile(column, [0.1, 0.25, 0.5, 0.75, 0.9])
        np.testing.assert_allclose(quantiles, [0.1, 0.25, 0.5, 0.75, 0.9], atol=0.05)
    assert abs(np.corrcoef(share.T)[0, 1]) < 0.1


@pytest.mark.long
def test_actions_while_learning_are_the_policys_with_noise_of_their_scale(actions):
    """With a learning rate of 0 the policy stays what it was, so the noise can be told from it."""
    still = OptimizerSpec("sgd", lambda params: torch.optim.SGD(params, lr=0.0), "elementwise")
    td3 = recipe("Pendulum-v1", total_steps=1000, learning_starts=0, exploration_noise=0.1)
    (checkpoint,), _ = train(td3, RunSpec(0, still))
    bounds = Bounds(td3.low, td3.high, torch.device("cpu"))
    start = RunStack([RunSpec(0, ADAM)]).generators("environment")[0].integers(2**31)
    env = gym.make("Pendulum-v1")
    obs, _ = env.reset(seed=int(start))
    noise = []
    for action in actions:
        x = torch.as_tensor(obs).view(1, 1, -1)
        policy = bounds.policy({name: p.unsqueeze(0) for name, p in checkpoint["actor"].items()}, x)
        noise.append(float(action[0] - policy.squeeze()))
        obs, _, _, truncated, _ = env.step(action)
        if truncated:
            obs, _ = env.reset()
    assert np.abs(actions).max() <= 2
    assert np.std(noise) == pytest.approx(0.1 * 2, rel=0.1)  # the bounds are ±2
    assert abs(np.mean(noise)) < 0.03


def test_the_policy_fills_asymmetric_bounds():
    low, high = np.array([-0.5, -2.0], np.float32), np.array([1.5, 0.5], np.float32)
    bounds = Bounds(low, high, torch.device("cpu"))
    actor = {"weight": torch.tensor([[[40.0], [-40.0]]]), "bias": torch.zeros(1, 2)}
    found = bounds.policy(actor, torch.tensor([[[-1.0], [0.0], [1.0]]]))
    torch.testing.assert_close(found, torch.tensor([[[-0.5, 0.5], [0.5, -0.75], [1.5, -2.0]]]))
    beyond = bounds.clamp(torch.tensor([[[-3.0, -3.0], [0.1, 0.2], [3.0, 3.0]]]))
    torch.testing.assert_close(beyond, torch.tensor([[[-0.5, -2.0], [0.1, 0.2], [1.5, 0.5]]]))


def test_exploration_beyond_the_bounds_is_clipped(actions):
    train(recipe(exploration_noise=5.0, learning_starts=0), RunSpec(0, ADAM))  # Tray refuses others
    drawn = np.array(actions)
    assert ((drawn == Tray.action_space.low) | (drawn == Tray.action_space.high)).mean() > 0.5


def test_noise_of_a_run_is_its_own():
    """Whatever the stack and the blocks it is drawn in."""
    together = Noise([np.random.default_rng(k) for k in range(3)], (4,), 5)
    alone = [Noise([np.random.default_rng(k)], (4,), 5) for k in range(3)]
    rows = [(together.normal(), [noise.normal() for noise in alone]) for _ in range(12)]
    rows += [(together.uniform(), [noise.uniform() for noise in alone]) for _ in range(7)]
    for found, singles in rows:
        assert found.shape == (3, 4)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, np.concatenate(singles))
    drawn = np.stack([found for found, _ in rows])
    assert len(np.unique(drawn)) == drawn.size  # none is handed out twice
    assert ((drawn[12:] >= 0) & (drawn[12:] < 1)).all()
    assert (drawn[:12] < 0).any()
