"""DQN over a stack of runs, against single runs and against a plain loop written from CleanRL's."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from alphagrad.recipes.dqn import DQNSettings, td_losses
from alphagrad.recipes.envs import EnvStack
from alphagrad.recipes.mlp import mlp
from dqn_cases import ADAM, CLIPPED, OURS, PER_RUN, largest_gap, recipe, train
from tiers import one_in
from torch import nn

from alphagrad.harness import metrics
from alphagrad.harness.sharing import StackOptimizer
from alphagrad.harness.stack import RunSpec, RunStack


@pytest.fixture(scope="module")
def stacked_and_alone():
    """Four runs of unequal optimizers for 5,000 steps: as one stack, and each alone."""
    dqn = recipe(total_steps=5000, learning_starts=500, eval_every=2500)
    runs = [RunSpec(1, ADAM), RunSpec(2, OURS), RunSpec(1, PER_RUN), RunSpec(4, CLIPPED)]
    return runs, train(dqn, *runs, observe=100), [train(dqn, run, observe=100) for run in runs]


@pytest.mark.long
def test_run_k_of_a_stack_is_the_run_alone(stacked_and_alone):
    runs, (together, log), singles = stacked_and_alone
    for k, (single, single_log) in enumerate(singles):
        for name in (metrics.EPISODIC_RETURN, metrics.EPISODIC_LENGTH, metrics.FINAL_RETURN, metrics.EVAL_RETURN):
            assert log.of(k, name) == single_log.of(0, name), f"run {k}: {name}"
        assert len(log.of(k, metrics.EPISODIC_RETURN)) > 50
        assert largest_gap(together[k]["q_network"], single[0]["q_network"]) < 1e-4
        assert largest_gap(together[k]["target_network"], single[0]["target_network"]) < 1e-4
        assert together[k]["steps"] == single[0]["steps"] == 5000
    different = [log.of(k, metrics.EPISODIC_RETURN) for k in range(len(runs))]
    assert all(different[0] != other for other in different[1:])


@pytest.mark.long
def test_a_runs_measurements_do_not_depend_on_the_stack(stacked_and_alone):
    runs, (_, log), singles = stacked_and_alone
    for k, (_, single_log) in enumerate(singles):
        names = {name for _, name, _ in single_log.points[0]} - {metrics.STEPS_PER_SECOND}
        assert names == {name for _, name, _ in log.points[k]} - {metrics.STEPS_PER_SECOND}
        assert {"grad_norm/2.weight", "update_norm/2.weight"} <= names
        assert ("saturation/2.weight" in names) == (runs[k].optimizer is OURS)
        for name in names:
            found, expected = log.of(k, name), single_log.of(0, name)
            assert [s for s, _ in found] == [s for s, _ in expected]
            np.testing.assert_allclose([v for _, v in found], [v for _, v in expected], rtol=2e-3, atol=1e-5)


@pytest.mark.long
def test_optimizer_state_of_a_run_in_the_checkpoint(stacked_and_alone):
    _, (together, _), singles = stacked_and_alone
    for k, (single, _) in enumerate(singles):
        state, reference = together[k]["optimizer"], single[0]["optimizer"]
        assert set(state) == set(together[k]["q_network"])
        for name in reference:
            for key, value in reference[name].items():
                torch.testing.assert_close(state[name][key], value, rtol=1e-3, atol=1e-4)


def reference_dqn(seed: int, env_id: str, s: DQNSettings) -> tuple[nn.Sequential, nn.Sequential, list]:
    """CleanRL's dqn.py for one run with torch's Adam, reading random numbers from the run's own streams."""
    exploration, minibatch, environment = (
        RunStack([RunSpec(seed, ADAM)]).generators(n)[0] for n in ("exploration", "minibatch", "environment")
    )
    env = gym.make(env_id)
    obs, _ = env.reset(seed=int(environment.integers(2**31)))
    n_actions = int(env.action_space.n)
    q_network, target = (mlp([len(obs), *s.hidden, n_actions]) for _ in range(2))
    start = RunStack([RunSpec(seed, ADAM)]).initialize(lambda: mlp([len(obs), *s.hidden, n_actions]))
    for network in (q_network, target):
        network.load_state_dict({name: p[0] for name, p in start.items()})
    optimizer = torch.optim.Adam(q_network.parameters(), lr=2.5e-4)
    memory: list[tuple] = []
    coins: list = []
    draws: list = []
    episodes, total = [], 0.0
    for step in range(s.total_steps):
        if not coins:
            coins = list(zip(exploration.random(4096), exploration.integers(n_actions, size=4096), strict=True))
        coin, random_action = coins.pop(0)
        duration = s.exploration_fraction * s.total_steps
        epsilon = max((s.end_epsilon - s.start_epsilon) / duration * step + s.start_epsilon, s.end_epsilon)
        with torch.no_grad():
            best = int(q_network(torch.as_tensor(obs)).argmax())
        action = int(random_action) if coin < epsilon else best
        next_obs, reward, terminated, truncated, _ = env.step(action)
        memory.append((obs, next_obs, action, reward, terminated))
        total += float(reward)
        obs = next_obs
        if terminated or truncated:
            episodes.append((step, total))
            total = 0.0
            obs, _ = env.reset()
        if step > s.learning_starts:
            if step % s.train_every == 0:
                if not draws:
                    draws = list(minibatch.random((64, s.batch_size)))
                kept = memory[-s.buffer_size :]
                # the buffer is a ring: its row i holds the latest transition written there
                count = step + 1
                ring = {t % s.buffer_size: kept[t - (count - len(kept))] for t in range(count - len(kept), count)}
                rows = [ring[int(u * len(kept))] for u in draws.pop(0)]
                o, o2, a, r, done = (torch.as_tensor(np.array(c)) for c in zip(*rows, strict=True))
                with torch.no_grad():
                    aim = r.float() + s.gamma * target(o2).max(dim=1)[0] * (1 - done.float())
                value = q_network(o).gather(1, a[:, None]).squeeze()
                loss = nn.functional.mse_loss(aim, value)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if step % s.target_every == 0:
                for slow, fast in zip(target.parameters(), q_network.parameters(), strict=True):
                    slow.data.copy_(s.tau * fast.data + (1.0 - s.tau) * slow.data)
    env.close()
    return q_network, target, episodes


@pytest.mark.parametrize(
    "settings",
    one_in(
        4,
        [
            {"total_steps": 1500, "learning_starts": 300},
            {
                "total_steps": 1200,
                "learning_starts": 100,
                "tau": 0.3,
                "target_every": 7,
                "train_every": 4,
                "gamma": 0.9,
            },
            {"total_steps": 900, "learning_starts": 100, "buffer_size": 150, "batch_size": 17, "hidden": [16]},
            {
                "total_steps": 800,
                "learning_starts": 90,
                "exploration_fraction": 0.1,
                "end_epsilon": 0.3,
                "train_every": 7,
            },
            {"total_steps": 900, "learning_starts": 100, "env_id": "Acrobot-v1", "hidden": [16, 12, 8]},
        ],
    ),
)
def test_training_is_cleanrls(settings):
    dqn = recipe(**settings)
    q_network, target, episodes = reference_dqn(3, dqn.settings.env.id, dqn.settings)
    (checkpoint,), log = train(dqn, RunSpec(3, ADAM))
    assert log.of(0, metrics.EPISODIC_RETURN) == episodes
    assert largest_gap(checkpoint["q_network"], dict(q_network.named_parameters())) < 2e-6
    assert largest_gap(checkpoint["target_network"], dict(target.named_parameters())) < 2e-6
    if episodes:
        ((step, final),) = log.of(0, metrics.FINAL_RETURN)
        assert step == dqn.settings.total_steps - 1
        assert final == pytest.approx(np.mean([value for _, value in episodes[-100:]]))


def test_when_it_learns(monkeypatch):
    """No update up to learning_starts, none at it; then where step % train_every == 0."""
    now = {"step": -1}
    learned = []
    step_envs, step_optimizer = EnvStack.step, StackOptimizer.step

    def counted(self, actions):
        if len(self.envs) == 1:  # evaluation has two
            now["step"] += 1
        return step_envs(self, actions)

    def noted(self, *args):
        learned.append(now["step"])
        return step_optimizer(self, *args)

    monkeypatch.setattr(EnvStack, "step", counted)
    monkeypatch.setattr(StackOptimizer, "step", noted)
    train(recipe(total_steps=200, learning_starts=60, train_every=20, eval_episodes=2), RunSpec(0, ADAM))
    assert learned == [80, 100, 120, 140, 160, 180]


def test_logged_points_and_progress():
    dqn = recipe(total_steps=1050, learning_starts=200, log_every=100, eval_every=400)
    _, log = train(dqn, RunSpec(0, OURS), observe=25)
    ends = [100 * k - 1 for k in range(1, 11)]
    assert [s for s, _ in log.of(0, metrics.EPSILON)] == ends
    assert [v for _, v in log.of(0, metrics.EPSILON)] == [dqn.epsilon(s) for s in ends]
    assert [s for s, _ in log.of(0, metrics.TD_LOSS)] == ends[2:]  # once there have been updates
    assert all(v > 0 for _, v in log.of(0, metrics.STEPS_PER_SECOND))
    assert [s for s, _ in log.of(0, metrics.EVAL_RETURN)] == [399, 799, 1049]
    # updates at 210, 220, ...; measured at the 25th, 50th, 75th
    assert [s for s, _ in log.of(0, "grad_norm/2.weight")] == [450, 700, 950]
    losses, largest = log.of(0, metrics.TD_LOSS), log.of(0, metrics.TD_LOSS_MAX)
    assert all(peak > mean for (_, mean), (_, peak) in zip(losses, largest, strict=True))
    steps = [s for s, _ in log.shown]
    assert steps == sorted(steps)
    assert steps[-1] <= dqn.total_steps
    returns, lengths = log.of(0, metrics.EPISODIC_RETURN), log.of(0, metrics.EPISODIC_LENGTH)
    assert returns == lengths  # CartPole pays 1 a step
    assert np.diff([-1, *(s for s, _ in lengths)]).tolist() == [v for _, v in lengths]


def test_td_losses_against_single_networks():
    runs, batch, gamma = 3, 32, 0.97
    sizes = [4, 9, 7, 2]
    torch.manual_seed(0)
    online, slow = ([mlp(sizes) for _ in range(runs)] for _ in range(2))
    minibatch = torch.randn(runs, batch, 11)
    minibatch[..., 8] = torch.randint(2, (runs, batch)).float()
    minibatch[..., 10] = (torch.rand(runs, batch) < 0.3).float()

    def stacked(networks):
        rows = [dict(network.named_parameters()) for network in networks]
        return {name: torch.stack([row[name].detach() for row in rows]).requires_grad_() for name in rows[0]}

    params, target = stacked(online), stacked(slow)
    total, measures = td_losses(params, target, minibatch, 4, gamma)
    grads = torch.autograd.grad(total, list(params.values()))
    for run in range(runs):
        o, o2, a, r, done = minibatch[run].split([4, 4, 1, 1, 1], dim=1)
        bootstrapped = r + gamma * slow[run](o2).max(1, keepdim=True).values * (done == 0)
        value = online[run](o).gather(1, a.long())
        loss = nn.functional.mse_loss(value, bootstrapped.detach())
        loss.backward()
        assert float(measures[0, run]) == pytest.approx(float(loss), rel=1e-5)
        assert float(measures[1, run]) == pytest.approx(float(((value - bootstrapped) ** 2).max()), rel=1e-5)
        assert float(measures[2, run]) == pytest.approx(float(value.mean()), rel=1e-5, abs=1e-6)
        for grad, p in zip(grads, online[run].parameters(), strict=True):
            torch.testing.assert_close(grad[run], p.grad, rtol=1e-5, atol=1e-6)
    assert all(p.grad is None for p in target.values())


def test_truncated_episodes_bootstrap(monkeypatch):
    """What is stored at a time limit says «not terminated» and holds the last observation, not the next start."""
    env_id = "AlphagradShortCartPole-v1"
    gym.register(env_id, "gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=6)  # before it can fall
    stored = []
    from alphagrad.recipes.replay import Replay

    add = Replay.add
    monkeypatch.setattr(
        Replay, "add", lambda self, *columns: (stored.append(np.concatenate(columns, 1)), add(self, *columns))
    )
    try:
        _, log = train(recipe(env_id=env_id, total_steps=400, learning_starts=399), RunSpec(0, ADAM))
    finally:
        del gym.registry[env_id]
    rows = np.concatenate(stored)
    ends = [step for step, _ in log.of(0, metrics.EPISODIC_RETURN)]
    lengths = dict(log.of(0, metrics.EPISODIC_LENGTH))
    truncated = [step for step in ends if lengths[step] == 6]
    assert len(truncated) > 20
    np.testing.assert_array_equal(rows[truncated, 10], 0)
    for step in truncated[:-1]:
        assert not np.array_equal(rows[step, 4:8], rows[step + 1, :4])
    inside = [step for step in range(399) if step not in ends]
    np.testing.assert_array_equal(rows[inside, 4:8], rows[[s + 1 for s in inside], :4])


def test_terminations_are_stored(monkeypatch):
    stored = []
    from alphagrad.recipes.replay import Replay

    add = Replay.add
    monkeypatch.setattr(
        Replay, "add", lambda self, *columns: (stored.append(np.concatenate(columns, 1)), add(self, *columns))
    )
    _, log = train(recipe(total_steps=400, learning_starts=399), RunSpec(0, ADAM))
    rows = np.concatenate(stored)
    ends = [step for step, _ in log.of(0, metrics.EPISODIC_RETURN)]
    assert np.flatnonzero(rows[:, 10]).tolist() == ends  # no CartPole episode of random actions lasts 500 steps
