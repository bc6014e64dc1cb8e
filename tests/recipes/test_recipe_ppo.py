"""PPO over a stack of runs, against single runs and against a plain loop written from CleanRL's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from alphagrad.recipes import ppo as ppo_module
from alphagrad.recipes import rollout as rollout_module
from alphagrad.recipes.actor_critic import ActorCritic
from alphagrad.recipes.advantages import generalized_advantages
from alphagrad.recipes.envs import EnvStack
from alphagrad.recipes.gradients import gradients_of
from alphagrad.recipes.normalize import ObservationNormalizer
from alphagrad.recipes.rollout import Rollout
from dqn_cases import Recorder, largest_gap
from ppo_reference import ADAM, Agent, recipe, reference_losses, reference_ppo, train

from alphagrad.harness import metrics
from alphagrad.harness.stack import RunSpec, RunStack
from alphagrad.harness.tensors import split


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"normalize_advantages": False, "clip_value_loss": False, "entropy_coefficient": 0.3},
        {"clip": 0.02, "value_coefficient": 2.0},
    ],
)
def test_losses_and_gradients_are_each_runs_own(settings):
    ppo = recipe(**settings)
    runs, batch = 3, 37
    g = torch.Generator().manual_seed(1)
    params = RunStack([RunSpec(k, ADAM) for k in range(runs)]).initialize(lambda: ActorCritic(3, 2, [64, 64]))
    params["actor_logstd"].copy_(torch.randn(runs, 2, generator=g) * 0.3)
    obs, actions = (torch.randn(runs, batch, n, generator=g) for n in (3, 2))
    scale = torch.tensor([0.1, 1.0, 30.0]).unsqueeze(1)  # of advantages and returns: runs may be most unequal
    advantages, returns = (torch.randn(runs, batch, generator=g) * scale for _ in range(2))
    old_values = torch.randn(runs, batch, generator=g)
    agents = [Agent(3, 2).load(params, k) for k in range(runs)]
    with torch.no_grad():  # ratios about 1, beyond the clip on both sides
        logprob = torch.stack([a.distribution(obs[k]).log_prob(actions[k]).sum(1) for k, a in enumerate(agents)])
    old_logprob = logprob + 0.2 * torch.randn(runs, batch, generator=g)
    rows = torch.cat([obs, actions, *(c.unsqueeze(-1) for c in (old_logprob, advantages, returns, old_values))], -1)
    flat, measures = gradients_of(ppo.losses, False)(params, rows)
    grads = split(flat, params.layout)
    for k, agent in enumerate(agents):
        columns = (c[k] for c in (obs, actions, old_logprob, advantages, returns, old_values))
        loss, expected = reference_losses(agent, ppo.settings, *columns)
        loss.backward()
        torch.testing.assert_close(measures[:, k], expected, rtol=1e-5, atol=1e-6)
        assert 0.1 < expected[4] < 1  # some are clipped
        for name, p in agent.named_parameters():
            torch.testing.assert_close(grads[name][k].view_as(p), p.grad, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"total_steps": 300},  # 4 whole rollouts
        {"bootstrap_truncated": False, "anneal_lr": False, "gae_lambda": 0.7, "gamma": 0.9, "minibatches": 1},
        {
            "normalize_advantages": False,
            "clip_value_loss": False,
            "entropy_coefficient": 0.05,
            "clip": 0.05,
            "value_coefficient": 0.25,
            "num_steps": 32,
        },
    ],
)
def test_training_is_cleanrls(settings):
    ppo = recipe(**settings)
    agent, moments, episodes, rows = reference_ppo(3, ppo.settings)
    (checkpoint,), log = train(ppo, RunSpec(3, ADAM))
    found = log.of(0, metrics.EPISODIC_RETURN)
    assert [step for step, _ in found] == [step for step, _ in episodes]
    np.testing.assert_allclose([r for _, r in found], [r for _, r in episodes], rtol=1e-4, atol=1e-5)
    lengths = [length for _, length in log.of(0, metrics.EPISODIC_LENGTH)]
    assert lengths.count(12) > 2  # truncated episodes and terminated ones were both among them
    assert sum(length < 12 for length in lengths) > 2
    reference = {name: p.view_as(checkpoint["actor_critic"][name]) for name, p in agent.named_parameters()}
    assert largest_gap(checkpoint["actor_critic"], reference) < 5e-5
    np.testing.assert_allclose(checkpoint["observation_mean"], moments.mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(checkpoint["observation_var"], moments.var, rtol=1e-4, atol=1e-5)
    assert checkpoint["steps"] == rows[-1][0] + 1 == ppo.total_steps
    for name in rows[0][1]:
        found, expected = log.of(0, name), [(step, row[name]) for step, row in rows]
        assert [step for step, _ in found] == [step for step, _ in expected]
        np.testing.assert_allclose([v for _, v in found], [v for _, v in expected], rtol=2e-3, atol=2e-5, err_msg=name)


def test_advantages_by_hand():
    """Three steps whose second ends an episode, γ = 1/2, λ = 1/2."""
    rewards, ended = np.array([[1.0], [2.0], [3.0]]), np.array([[0.0], [1.0], [0.0]])
    values = np.array([[10.0], [20.0], [30.0], [40.0]])
    # δ = 1 + 10 − 10, 2 − 20, 3 + 20 − 30
    expected = [[1 - 18 / 4], [-18.0], [-7.0]]
    np.testing.assert_array_equal(generalized_advantages(rewards, values, ended, 0.5, 0.5), expected)


@pytest.mark.parametrize(("gamma", "lam"), [(0.99, 0.95), (0.9, 0.0), (1.0, 1.0), (0.0, 0.5)])
def test_advantages_are_sums_of_discounted_errors(gamma, lam):
    """Σ (γλ)^l δ, for each step written out up to its episode's end."""
    rng = np.random.default_rng(0)
    steps, runs = 40, 3
    rewards, ended = rng.normal(size=(steps, runs)), (rng.random((steps, runs)) < 0.15).astype(float)
    values = rng.normal(size=(steps + 1, runs))
    expected = np.zeros((steps, runs))
    for run in range(runs):
        for t in range(steps):
            for k in range(t, steps):
                following = 0 if ended[k, run] else values[k + 1, run]
                expected[t, run] += (gamma * lam) ** (k - t) * (rewards[k, run] + gamma * following - values[k, run])
                if ended[k, run]:
                    break
    np.testing.assert_allclose(generalized_advantages(rewards, values, ended, gamma, lam), expected, atol=1e-12)


def collected(monkeypatch, bootstrap: bool):
    """A rollout of two runs: recipe, parameters, normalised rewards as GAE gets them, ends, and every step."""
    taken, seen = [], []
    advantages, step, normalize = generalized_advantages, EnvStack.step, ObservationNormalizer.__call__

    def noted_advantages(rewards, values, ended, *rest):
        taken.append((rewards.copy(), ended.copy()))
        return advantages(rewards, values, ended, *rest)

    def noted_step(self, actions):
        seen.append([step(self, actions)])
        return seen[-1][0]

    def noted_normalize(self, x, *rest, **more):
        result = normalize(self, x, *rest, **more)
        if seen and len(seen[-1]) == 1:  # the first call after a step: what it led to
            seen[-1].append(result.copy())
        return result

    with monkeypatch.context() as m:
        m.setattr(rollout_module, "generalized_advantages", noted_advantages)
        m.setattr(EnvStack, "step", noted_step)
        m.setattr(ObservationNormalizer, "__call__", noted_normalize)
        ppo = recipe(bootstrap_truncated=bootstrap, num_steps=256)
        stack = RunStack([RunSpec(4, ADAM), RunSpec(5, ADAM)])
        params = stack.initialize(lambda: ppo.networks()["actor_critic"])
        Rollout(ppo, stack).collect(params, 0, ppo_module.Episodes(2, Recorder(2)))
    return params, *taken[0], seen


def test_truncation_bootstraps_and_termination_does_not(monkeypatch):
    params, with_value, ended, seen = collected(monkeypatch, True)
    _, without, ended_too, _ = collected(monkeypatch, False)
    np.testing.assert_array_equal(ended, ended_too)
    agents = [Agent(3, 2).load(params, run) for run in range(2)]
    expected, truncations, terminations = np.zeros_like(without), 0, 0
    for t, ((_, _, terminated, finished), normalized) in enumerate(seen):
        over = {episode.env for episode in finished}
        assert over == set(np.flatnonzero(ended[t]))
        terminations += int(terminated.sum())
        for run in over:
            if not terminated[run]:
                truncations += 1
                with torch.no_grad():
                    expected[t, run] = 0.99 * float(agents[run].critic(torch.from_numpy(normalized[run])))
    assert truncations > 3
    assert terminations > 3
    np.testing.assert_allclose(with_value - without, expected, atol=1e-6)
    assert np.abs(expected).max() > 0.05


def test_explained_variance_of_constant_returns_is_undefined(monkeypatch):
    """As in CleanRL: neither 1 nor −∞."""
    ppo = recipe()
    stack = RunStack([RunSpec(1, ADAM), RunSpec(2, ADAM)])
    params = stack.initialize(lambda: ppo.networks()["actor_critic"])

    def flat(rewards, values, *_):
        advantages = np.random.default_rng(0).normal(size=rewards.shape).astype(np.float32)
        advantages[:, 0] = -values[:-1, 0]  # returns of 0
        return advantages

    monkeypatch.setattr(rollout_module, "generalized_advantages", flat)
    rows, explained = Rollout(ppo, stack).collect(params, 0, ppo_module.Episodes(2, Recorder(2)))
    returns, values = rows[..., -2], rows[..., -1]
    assert not returns[0].any()
    assert values[0].var() > 0
    assert np.isnan(explained[0])
    expected = 1 - float((returns[1] - values[1]).var() / returns[1].var())
    assert explained[1] == pytest.approx(expected, rel=1e-4)
