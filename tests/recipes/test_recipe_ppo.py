"""PPO over a stack of runs, against single runs and against a plain loop written from CleanRL's."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
import yaml
from alphagrad.recipes import ppo as ppo_module
from alphagrad.recipes import rollout as rollout_module
from alphagrad.recipes.actor_critic import ActorCritic
from alphagrad.recipes.advantages import generalized_advantages
from alphagrad.recipes.envs import EnvStack
from alphagrad.recipes.gradients import gradients_of
from alphagrad.recipes.normalize import ObservationNormalizer
from alphagrad.recipes.ppo import PPO, PPOSettings
from alphagrad.recipes.rollout import Rollout
from gymnasium import wrappers
from test_recipe_dqn import Recorder, assert_same_history, largest_gap
from torch import nn
from torch.distributions import Normal

from alphagrad import variants
from alphagrad.harness import metrics
from alphagrad.harness.driver import Observation, OptimizerSpec
from alphagrad.harness.stack import RunSpec, RunStack
from alphagrad.harness.tensors import split
from alphagrad.optimizer import AlphaGrad

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


def ours(params, **stacked):
    return AlphaGrad(params, lr=1e-3, rule=variants.alphagrad(98.0), momentum=0.9, **stacked)


def lamb(params):
    from pytorch_optimizer import Lamb

    return Lamb(params, lr=1e-3)


ADAM = OptimizerSpec("adam", adam, "elementwise", clip_grad_norm=0.5)
OURS = OptimizerSpec("alphagrad", ours, "batch_dims")
LAMB = OptimizerSpec("lamb", lamb, "per_run", clip_grad_norm=0.5)


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


def test_initialisation_is_cleanrls():
    torch.manual_seed(0)
    network = ActorCritic(17, 6, [64, 64])
    assert sum(p.numel() for p in network.parameters()) == 11_085  # CleanRL's network; beside Table 2 of the paper
    assert [tuple(p.shape) for p in network.critic.parameters()][-2:] == [(1, 64), (1,)]
    for part, last in ((network.critic, 1.0), (network.actor_mean, 0.01)):
        layers = [layer for layer in part if isinstance(layer, nn.Linear)]
        assert [type(layer) for layer in part] == [nn.Linear, nn.Tanh] * 2 + [nn.Linear]
        for layer, gain in zip(layers, (2**0.5, 2**0.5, last), strict=True):
            w = layer.weight.detach()
            product = w @ w.T if len(w) <= w.shape[1] else w.T @ w
            torch.testing.assert_close(product, gain**2 * torch.eye(len(product)), rtol=1e-4, atol=1e-5)
            assert not layer.bias.any()
    assert not network.actor_logstd.any()


def test_defaults_are_cleanrls():
    s = PPOSettings(**{**DEFAULTS, "env": FILE["env"]})
    assert FILE["optimizer_defaults"] == {"lr": 3e-4, "adam_eps": 1e-5, "clip_grad_norm": 0.5}
    assert (s.env.id, s.total_steps, s.anneal_lr) == ("HalfCheetah-v5", 1_000_000, True)
    assert (s.num_steps, s.epochs, s.minibatches, s.gamma, s.gae_lambda, s.clip) == (2048, 10, 32, 0.99, 0.95, 0.2)
    assert (s.clip_value_loss, s.normalize_advantages) == (True, True)
    assert (s.entropy_coefficient, s.value_coefficient, s.hidden) == (0.0, 0.5, [64, 64])
    assert PPO(s).total_steps == 488 * 2048


@pytest.fixture(scope="module")
def stacked_and_alone():
    """Four runs of unequal optimizers on Hopper: as one stack, and each alone."""
    ppo = recipe("Hopper-v5", total_steps=1024, num_steps=256, epochs=4, eval_every=512)
    runs = [RunSpec(1, ADAM), RunSpec(2, OURS), RunSpec(1, LAMB), RunSpec(4, ADAM)]
    return runs, train(ppo, *runs, observe=8), [train(ppo, run, observe=8) for run in runs]


def test_run_k_of_a_stack_is_the_run_alone(stacked_and_alone):
    runs, (together, log), singles = stacked_and_alone
    for k, ((single,), single_log) in enumerate(singles):
        for name in (metrics.EPISODIC_RETURN, metrics.EPISODIC_LENGTH, metrics.FINAL_RETURN, metrics.EVAL_RETURN):
            assert_same_history(log.of(k, name), single_log.of(0, name), f"run {k}: {name}")
        assert len(log.of(k, metrics.EPISODIC_RETURN)) > 15
        assert largest_gap(together[k]["actor_critic"], single["actor_critic"]) < 1e-4
        for name in ("observation_mean", "observation_var"):
            torch.testing.assert_close(together[k][name], single[name], rtol=1e-6, atol=1e-6)
        for name, state in single["optimizer"].items():
            assert set(together[k]["optimizer"][name]) == set(state)
            for key, value in state.items():
                torch.testing.assert_close(together[k]["optimizer"][name][key], value, rtol=1e-3, atol=1e-5)
    returns = [log.of(k, metrics.EPISODIC_RETURN) for k in range(len(runs))]
    assert all(a != b for k, a in enumerate(returns) for b in returns[:k])


def test_a_runs_measurements_do_not_depend_on_the_stack(stacked_and_alone):
    runs, (_, log), singles = stacked_and_alone
    for k, (_, single_log) in enumerate(singles):
        names = {name for _, name, _ in single_log.points[0]} - {metrics.STEPS_PER_SECOND}
        assert names == {name for _, name, _ in log.points[k]} - {metrics.STEPS_PER_SECOND}
        assert {*ppo_module.MEASURES, metrics.EXPLAINED_VARIANCE, metrics.LEARNING_RATE} <= names
        assert ("saturation/critic.2.weight" in names) == (runs[k].optimizer is OURS)
        for name in names:
            found, expected = log.of(k, name), single_log.of(0, name)
            assert [s for s, _ in found] == [s for s, _ in expected]
            np.testing.assert_allclose([v for _, v in found], [v for _, v in expected], rtol=2e-3, atol=1e-5)


def test_learning_rates_are_annealed_from_each_optimizers_own(stacked_and_alone):
    _, (_, log), _ = stacked_and_alone
    for k, first in enumerate((3e-3, 1e-3, 1e-3, 3e-3)):
        found = log.of(k, metrics.LEARNING_RATE)
        assert [step for step, _ in found] == [255, 511, 767, 1023]
        np.testing.assert_allclose([rate for _, rate in found], [first * f for f in (1, 0.75, 0.5, 0.25)], rtol=1e-6)


def test_evaluation_leaves_training_and_its_statistics_alone():
    often, log = train(recipe(eval_every=64), RunSpec(6, OURS))
    once, single = train(recipe(), RunSpec(6, OURS))
    assert [step for step, _ in log.of(0, metrics.EVAL_RETURN)] == [63, 127, 191, 255]
    assert log.of(0, metrics.EPISODIC_RETURN) == single.of(0, metrics.EPISODIC_RETURN)
    assert torch.equal(often[0]["observation_mean"], once[0]["observation_mean"])
    assert torch.equal(often[0]["observation_var"], once[0]["observation_var"])
    assert largest_gap(often[0]["actor_critic"], once[0]["actor_critic"]) == 0


def test_evaluation_plays_the_mean_action_of_the_checkpoint():
    """Rebuilt from the checkpoint alone: parameters and the observations' statistics."""
    checkpoints, log = train(recipe(), RunSpec(6, OURS), RunSpec(9, ADAM))
    for run, seed in enumerate((6, 9)):
        mean, var = checkpoints[run]["observation_mean"], checkpoints[run]["observation_var"]
        agent = Agent(3, 2).load({n: p.unsqueeze(0) for n, p in checkpoints[run]["actor_critic"].items()})
        policy = recipe().policy(checkpoints[run])
        lengths, returns = [], []
        for start in RunStack([RunSpec(seed, ADAM)]).generators("evaluation")[0].integers(2**31, size=2):
            env = wrappers.ClipAction(gym.make(TRAY))
            obs, over, total, length = env.reset(seed=int(start))[0], False, 0.0, 0
            while not over:
                x = ((torch.as_tensor(obs).double() - mean) / (var + 1e-8).sqrt()).clamp(-10, 10).float()
                with torch.no_grad():
                    action = agent.actor_mean(x).numpy()
                box = env.unwrapped.action_space
                bounded = action.clip(box.low, box.high)
                np.testing.assert_allclose(policy(np.float32(obs)[None])[0], bounded, rtol=1e-4, atol=1e-5)
                obs, reward, terminated, truncated, _ = env.step(action)
                total, length, over = total + float(reward), length + 1, terminated or truncated
            returns.append(total)
            lengths.append(length)
        ((step, value),) = log.of(run, metrics.EVAL_RETURN)
        assert step == 255
        assert value == pytest.approx(np.mean(returns), rel=1e-5)
        assert log.of(run, metrics.EVAL_LENGTH) == [(255, np.mean(lengths))]


def test_actions_are_clipped_for_the_environment_alone(monkeypatch):
    """What is learned from is the action as drawn, beyond the bounds too; Tray itself refuses any other."""
    ppo = recipe(num_steps=256)
    stack = RunStack([RunSpec(0, ADAM)])
    params = stack.initialize(lambda: ppo.networks()["actor_critic"])
    taken = []
    step = EnvStack.step
    monkeypatch.setattr(EnvStack, "step", lambda self, actions: taken.append(actions.copy()) or step(self, actions))
    rows, _ = Rollout(ppo, stack).collect(params, 0, ppo_module.Episodes(1, Recorder(1)))
    drawn, taken = rows[0, :, 3:5].numpy(), np.concatenate(taken)
    assert (drawn < Tray.action_space.low).any(axis=0).all()
    assert (drawn > Tray.action_space.high).any(axis=0).all()
    np.testing.assert_array_equal(taken, np.clip(drawn, Tray.action_space.low, Tray.action_space.high))


def test_a_run_that_diverges_ends_alone():
    wild = OptimizerSpec("sgd", lambda params: torch.optim.SGD(params, lr=1e30), "elementwise")
    ppo = recipe("HalfCheetah-v5")
    together, log = train(ppo, RunSpec(1, OURS), RunSpec(2, wild), RunSpec(3, ADAM))
    ((run, step, reason),) = log.ended  # told once
    assert (run, step) == (1, 63)
    assert metrics.POLICY_LOSS in reason
    assert all(not p.any() for p in together[1]["actor_critic"].values())
    for k, spec in ((0, RunSpec(1, OURS)), (2, RunSpec(3, ADAM))):
        (single,), single_log = train(ppo, spec)
        assert log.of(k, metrics.EVAL_RETURN) == single_log.of(0, metrics.EVAL_RETURN)
        assert largest_gap(together[k]["actor_critic"], single["actor_critic"]) < 1e-5


def test_compiles_where_it_repays():
    """From 15,000 gradient steps on."""
    assert recipe(compile="auto", total_steps=64 * 1250).compiles  # 1250 rollouts of 12 steps
    assert not recipe(compile="auto", total_steps=64 * 1249).compiles
    assert recipe(compile=True).compiles
    assert not recipe(compile=False, total_steps=10**7).compiles


@pytest.mark.parametrize("env_id", ["HalfCheetah-v4", "Hopper-v4", "Walker2d-v5", "Pendulum-v1"])
@pytest.mark.filterwarnings("ignore:.*is out of date:DeprecationWarning")
def test_environments_by_their_name(env_id):
    checkpoints, log = train(recipe(env_id, num_steps=128, epochs=1), RunSpec(0, OURS), RunSpec(1, ADAM))
    for run, checkpoint in enumerate(checkpoints):
        assert all(p.isfinite().all() for p in checkpoint["actor_critic"].values())
        assert [step for step, _ in log.of(run, metrics.POLICY_LOSS)] == [127, 255]
        ((_, value),) = log.of(run, metrics.EVAL_RETURN)
        assert np.isfinite(value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("env.id=CartPole-v1",), "env.id=CartPole-v1: PPO needs a flat Box action, got Discrete(2)"),
        (("env.id=FrozenLake-v1",), "env.id=FrozenLake-v1: PPO needs a flat Box observation, got Discrete(16)"),
        (("env.id=Nope-v0",), "env.id=Nope-v0: "),
        (("recipe.minibatches=33",), "recipe.minibatches=33: must divide recipe.num_steps=2048"),
        (("recipe.total_steps=2047",), "recipe.total_steps=2047: must be at least recipe.num_steps=2048"),
    ],
)
def test_unsuitable_settings_are_one_line(cli, tmp_path, words, said):
    failed = cli("run", "recipe=ppo_halfcheetah", *words, f"output_root={tmp_path / 'out'}")
    assert failed.status == 2
    (line,) = failed.err.splitlines()
    assert line.startswith(f"alphagrad: {said}")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("spec", [ADAM, OURS, LAMB], ids=lambda spec: spec.name)
def test_compiled_equals_eager(spec):
    settings = {"total_steps": 512, "num_steps": 128}
    runs = [RunSpec(1, spec), RunSpec(2, spec)]
    eager, log_e = train(recipe(**settings), *runs, observe=5)
    compiled, log_c = train(recipe(compile=True, **settings), *runs, observe=5)
    for k in range(2):
        assert largest_gap(eager[k]["actor_critic"], compiled[k]["actor_critic"]) < 1e-4
        for name in (*ppo_module.MEASURES, metrics.EPISODIC_RETURN, "grad_norm/critic.2.weight"):
            a, b = log_e.of(k, name), log_c.of(k, name)
            assert a
            np.testing.assert_allclose([v for _, v in a], [v for _, v in b], rtol=5e-3, atol=1e-4)
