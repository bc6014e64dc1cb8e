"""DQN over a stack of runs, against single runs and against a plain loop written from CleanRL's."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
import yaml
from alphagrad.recipes.dqn import DQN, DQNSettings, Exploration, greedy, td_losses
from alphagrad.recipes.envs import EnvStack
from alphagrad.recipes.mlp import Forward, mlp, stacked_mlp
from torch import nn

from alphagrad import variants
from alphagrad.harness import metrics
from alphagrad.harness.driver import Observation, OptimizerSpec
from alphagrad.harness.sharing import StackOptimizer
from alphagrad.harness.stack import RunSpec, RunStack
from alphagrad.optimizer import AlphaGrad

FILE = yaml.safe_load((Path(__file__).resolve().parents[2] / "conf/recipe/dqn_cartpole.yaml").read_text())
DEFAULTS = {k: v for k, v in FILE["recipe"].items() if k != "_target_"} | {"env": {"id": "CartPole-v1"}}


def recipe(**settings) -> DQN:
    env = {"env": {"id": settings.pop("env_id")}} if "env_id" in settings else {}
    return DQN(DQNSettings(**{**DEFAULTS, "compile": False, **env, **settings}))


ADAM = OptimizerSpec("adam", lambda params: torch.optim.Adam(params, lr=2.5e-4), "elementwise")
OURS = OptimizerSpec(
    "alphagrad",
    lambda params, **stacked: AlphaGrad(params, lr=2.5e-4, rule=variants.alphagrad(93.0), momentum=0.9, **stacked),
    "batch_dims",
)
CLIPPED = OptimizerSpec(
    "sgd", lambda params: torch.optim.SGD(params, lr=1e-2, momentum=0.9), "elementwise", clip_grad_norm=0.5
)


def lamb(params):
    from pytorch_optimizer import Lamb

    return Lamb(params, lr=1e-3)


PER_RUN = OptimizerSpec("lamb", lamb, "per_run")


class Recorder:
    """A log that remembers everything."""

    def __init__(self, runs: int = 1, observation: Observation | None = None, observe_every: int = 0) -> None:
        self.observation = observation
        self.observe_every = observe_every
        self.points: list[list[tuple[int, str, float]]] = [[] for _ in range(runs)]
        self.shown: list[tuple[int, str]] = []
        self.ended: list[tuple[int, int, str]] = []

    def metrics(self, run, step, values):
        self.points[run] += [(step, name, float(value)) for name, value in values.items()]

    def diverged(self, run, step, reason):
        self.ended.append((run, step, reason))

    def progress(self, step, shown):
        self.shown.append((step, shown))

    def restore(self, parts):
        return 0

    def checkpoint(self, step, parts, result):
        pass

    def of(self, run: int, name: str) -> list[tuple[int, float]]:
        return [(step, value) for step, n, value in self.points[run] if n == name]


def train(dqn: DQN, *runs: RunSpec, observe: int = 0):
    log = Recorder(len(runs), Observation(2, 2.5), observe)
    return dqn.train(RunStack(runs), log), log


def assert_same_history(history, expected, what):
    """Equal up to the order in which sums are taken: it differs with the number of runs in a product."""
    assert [step for step, _ in history] == [step for step, _ in expected], what
    assert [value for _, value in history] == pytest.approx([value for _, value in expected], rel=1e-6), what


def largest_gap(a: dict, b: dict) -> float:
    assert set(a) == set(b)
    return max(float((a[name] - b[name]).detach().abs().max()) for name in a)


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
    [
        {"total_steps": 1500, "learning_starts": 300},
        {"total_steps": 1200, "learning_starts": 100, "tau": 0.3, "target_every": 7, "train_every": 4, "gamma": 0.9},
        {"total_steps": 900, "learning_starts": 100, "buffer_size": 150, "batch_size": 17, "hidden": [16]},
        {"total_steps": 800, "learning_starts": 90, "exploration_fraction": 0.1, "end_epsilon": 0.3, "train_every": 7},
        {"total_steps": 900, "learning_starts": 100, "env_id": "Acrobot-v1", "hidden": [16, 12, 8]},
    ],
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


def test_epsilon_is_linear_then_constant():
    dqn = recipe(total_steps=1000, start_epsilon=0.9, end_epsilon=0.1, exploration_fraction=0.5)
    expected = [0.9 - 0.8 * min(step / 500, 1) for step in range(1000)]
    assert [dqn.epsilon(step) for step in range(1000)] == pytest.approx(expected, abs=1e-12)
    rising = recipe(total_steps=100, start_epsilon=0.2, end_epsilon=0.6, exploration_fraction=0.25)
    assert [rising.epsilon(s) for s in (0, 5, 25, 99)] == pytest.approx([0.2, 0.28, 0.6, 0.6])
    level = recipe(total_steps=100, start_epsilon=0.3, end_epsilon=0.3)
    assert [level.epsilon(s) for s in (0, 50, 99)] == [0.3, 0.3, 0.3]


def test_exploration_rate_and_actions():
    runs = 40
    explore = Exploration([np.random.default_rng(s) for s in range(runs)], 3)
    taken = np.stack([explore.actions(0.3, lambda: np.full(runs, 7)) for _ in range(2000)])
    random = taken != 7
    # 80,000 coins: a standard deviation of the share is 0.0016
    assert abs(random.mean() - 0.3) < 0.007
    shares = np.bincount(taken[random], minlength=3) / random.sum()
    np.testing.assert_allclose(shares, 1 / 3, atol=0.015)
    never = [explore.actions(0.0, lambda: np.full(runs, 7)) for _ in range(50)]
    assert (np.stack(never) == 7).all()

    def fail():
        raise AssertionError("the greedy policy is not asked when every run explores")

    assert explore.actions(1.0, fail).shape == (runs,)


def test_exploration_of_a_run_is_its_own():
    together = Exploration([np.random.default_rng(s) for s in (4, 5)], 2)
    alone = Exploration([np.random.default_rng(5)], 2)
    for _ in range(5000):  # more than one block
        a = together.actions(0.5, lambda: np.array([9, 9]))
        assert a[1] == alone.actions(0.5, lambda: np.array([9]))[0]


def test_greedy_takes_the_largest_value():
    torch.manual_seed(0)
    networks = [mlp([4, 16, 3]) for _ in range(3)]
    rows = [dict(n.named_parameters()) for n in networks]
    params = {name: torch.stack([row[name].detach() for row in rows]) for name in rows[0]}
    seen = np.random.default_rng(0).normal(size=(3, 25, 4)).astype(np.float32)
    expected = np.stack([n(torch.from_numpy(o)).argmax(1).numpy() for n, o in zip(networks, seen, strict=True)])
    np.testing.assert_array_equal(greedy(Forward(params), seen), expected)
    np.testing.assert_array_equal(greedy(Forward(params), seen[:, 3]), expected[:, 3])
    assert len(set(expected.flatten())) > 1


@pytest.mark.parametrize(
    ("sizes", "activation", "module"),
    [
        ([4, 120, 84, 2], "relu", nn.ReLU),
        ([3, 5, 1], "tanh", nn.Tanh),
        ([6, 2], "relu", nn.ReLU),
    ],
)
def test_stacked_mlp_is_the_networks(sizes, activation, module):
    torch.manual_seed(1)
    networks = [mlp(sizes, module) for _ in range(4)]
    rows = [dict(n.named_parameters()) for n in networks]
    params = {name: torch.stack([row[name].detach() for row in rows]) for name in rows[0]}
    x = torch.randn(4, 11, sizes[0])
    found = stacked_mlp(params, x, activation)
    for run, network in enumerate(networks):
        torch.testing.assert_close(found[run], network(x[run]), rtol=1e-5, atol=1e-6)
    # and on the host, where it sees what is done to the parameters in place
    forward = Forward(params, activation)
    np.testing.assert_allclose(forward(x.numpy()), found.detach().numpy(), rtol=1e-5, atol=1e-6)
    for p in params.values():
        p.mul_(0.5)
    np.testing.assert_allclose(forward(x.numpy()), stacked_mlp(params, x, activation).numpy(), rtol=1e-5, atol=1e-6)


def test_the_network_is_cleanrls():
    (network,) = recipe().networks().values()
    shapes = [tuple(p.shape) for p in network.parameters()]
    assert shapes == [(120, 4), (120,), (84, 120), (84,), (2, 84), (2,)]
    assert sum(p.numel() for p in network.parameters()) == 10_934  # CleanRL's network; beside Table 2 of the paper
    assert [type(m) for m in network] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]


def test_defaults_are_cleanrls():
    """Those of CleanRL (paper, section 6)."""
    s = DQNSettings(**DEFAULTS)
    assert (s.total_steps, s.buffer_size, s.gamma, s.tau, s.target_every) == (500_000, 10_000, 0.99, 1.0, 500)
    assert (s.batch_size, s.start_epsilon, s.end_epsilon, s.exploration_fraction) == (128, 1.0, 0.05, 0.5)
    assert (s.learning_starts, s.train_every, s.hidden) == (10_000, 10, [120, 84])


def test_evaluation_is_repeatable_and_leaves_training_alone():
    few, many = (recipe(total_steps=1500, learning_starts=200, eval_every=every) for every in (0, 150))
    (a,), log_a = train(few, RunSpec(5, OURS))
    (b,), log_b = train(many, RunSpec(5, OURS))
    assert largest_gap(a["q_network"], b["q_network"]) == 0
    for name in (metrics.EPISODIC_RETURN, metrics.TD_LOSS, metrics.FINAL_RETURN):
        assert log_a.of(0, name) == log_b.of(0, name)
    assert len(log_b.of(0, metrics.EVAL_RETURN)) == 10
    assert log_a.of(0, metrics.EVAL_RETURN) == log_b.of(0, metrics.EVAL_RETURN)[-1:]
    stack = RunStack([RunSpec(5, OURS)])
    params = {name: p[None] for name, p in b["q_network"].items()}
    again = [many.evaluate(Forward(params), stack) for _ in range(2)]
    assert again[0] == again[1]
    assert again[0][0][metrics.EVAL_RETURN] == log_b.of(0, metrics.EVAL_RETURN)[-1][1]


def test_evaluation_plays_the_greedy_policy():
    dqn = recipe(total_steps=300, learning_starts=100, eval_episodes=3)
    (checkpoint,), log = train(dqn, RunSpec(8, ADAM))
    network = mlp([4, 120, 84, 2])
    network.load_state_dict(checkpoint["q_network"])
    seeds = RunStack([RunSpec(8, ADAM)]).generators("evaluation")[0].integers(2**31, size=3)
    returns = []
    for seed in seeds:
        env = gym.make("CartPole-v1")
        obs, _ = env.reset(seed=int(seed))
        total, over = 0.0, False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(int(network(torch.as_tensor(obs)).argmax()))
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    assert log.of(0, metrics.EVAL_RETURN)[-1] == (299, np.mean(returns))
    assert log.of(0, metrics.EVAL_LENGTH)[-1] == (299, np.mean(returns))


def test_the_same_run_twice():
    dqn = recipe(total_steps=700, learning_starts=100)
    (a,), log_a = train(dqn, RunSpec(2, OURS))
    (b,), log_b = train(dqn, RunSpec(2, OURS))
    (c,), log_c = train(dqn, RunSpec(3, OURS))
    assert largest_gap(a["q_network"], b["q_network"]) == 0
    assert log_a.of(0, metrics.EPISODIC_RETURN) == log_b.of(0, metrics.EPISODIC_RETURN)
    assert largest_gap(a["q_network"], c["q_network"]) > 0.01
    assert log_a.of(0, metrics.EPISODIC_RETURN) != log_c.of(0, metrics.EPISODIC_RETURN)


def test_checkpoints_hold_tensors_and_plain_values(tmp_path):
    (checkpoint,), _ = train(recipe(total_steps=300, learning_starts=100), RunSpec(2, OURS))
    torch.save(checkpoint, tmp_path / "c.pt")
    loaded = torch.load(tmp_path / "c.pt", weights_only=True)
    assert set(loaded) == {"q_network", "target_network", "optimizer", "steps"}
    assert largest_gap(loaded["q_network"], checkpoint["q_network"]) == 0
    # not the whole stack behind a row: a view would be saved with all its storage
    assert all(p.untyped_storage().nbytes() == 4 * p.numel() for p in loaded["q_network"].values())


def test_compiles_where_it_repays():
    assert not recipe(compile="auto", total_steps=100_000).compiles
    assert recipe(compile="auto").compiles  # the half a million steps of the paper
    assert recipe(compile=True, total_steps=10).compiles
    assert not recipe(compile=False).compiles


@pytest.mark.slow
@pytest.mark.parametrize("spec", [ADAM, OURS, CLIPPED, PER_RUN], ids=lambda spec: spec.name)
def test_compiled_equals_eager(spec):
    settings = {"total_steps": 1200, "learning_starts": 200, "log_every": 200}
    runs = [RunSpec(1, spec), RunSpec(2, spec)]
    eager, log_e = train(recipe(compile=False, **settings), *runs, observe=30)
    compiled, log_c = train(recipe(compile=True, **settings), *runs, observe=30)
    for k in range(2):
        assert largest_gap(eager[k]["q_network"], compiled[k]["q_network"]) < 1e-4
        assert log_e.of(k, metrics.EPISODIC_RETURN) == log_c.of(k, metrics.EPISODIC_RETURN)
        for name in (metrics.TD_LOSS, metrics.TD_LOSS_MAX, metrics.Q_VALUES, "grad_norm/2.weight"):
            a, b = log_e.of(k, name), log_c.of(k, name)
            assert a
            np.testing.assert_allclose([v for _, v in a], [v for _, v in b], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [ADAM, OURS], ids=lambda spec: spec.name)
def test_it_learns(spec):
    """60,000 steps are enough to balance far longer than a random policy's 22 steps."""
    runs = [RunSpec(seed, spec) for seed in range(3)]
    _, log = train(recipe(total_steps=60_000, learning_starts=2000), *runs)
    assert all(log.of(k, metrics.FINAL_RETURN)[-1][1] > 80 for k in range(3))


@pytest.mark.parametrize(
    ("env_id", "said"), [("Pendulum-v1", "Discrete"), ("FrozenLake-v1", "Box"), ("Nope-v0", "doesn't exist")]
)
def test_unsuitable_environments_are_refused(env_id, said):
    with pytest.raises(ValueError, match=rf"env\.id={env_id}: .*{said}"):
        recipe(env_id=env_id)


def test_a_run_that_diverges_ends_alone():
    """One run's learning rate blows its network up; the others go on as if it were not there."""
    wild = OptimizerSpec("sgd", lambda params: torch.optim.SGD(params, lr=1e30), "elementwise")
    dqn = recipe(total_steps=900, learning_starts=100, log_every=100)
    together, log = train(dqn, RunSpec(1, OURS), RunSpec(2, wild), RunSpec(3, ADAM))
    ((run, step, reason),) = log.ended
    assert run == 1
    assert step in (199, 299)  # at a point of the log soon after learning began
    assert "non-finite" in reason
    for k, spec in ((0, RunSpec(1, OURS)), (2, RunSpec(3, ADAM))):
        (single,), single_log = train(dqn, spec)
        assert log.of(k, metrics.EPISODIC_RETURN) == single_log.of(0, metrics.EPISODIC_RETURN)
        assert largest_gap(together[k]["q_network"], single["q_network"]) < 1e-5
        assert all(p.isfinite().all() for p in together[k]["q_network"].values())


def test_a_run_whose_last_update_is_not_finite_has_diverged():
    """Nothing is measured after it, so the parameters themselves are looked at."""

    class Late(torch.optim.SGD):
        def step(self, closure=None):
            self.taken = getattr(self, "taken", 0) + 1
            for group in self.param_groups:
                group["lr"] = float("inf") if self.taken == 3 else 1e-3
            super().step()

    late = OptimizerSpec("late", lambda params: Late(params, lr=1e-3), "elementwise")
    dqn = recipe(total_steps=131, learning_starts=100, log_every=1000, train_every=10)
    (broken, _), log = train(dqn, RunSpec(1, late), RunSpec(2, ADAM))
    ((run, step, reason),) = log.ended
    assert (run, step, reason) == (0, 130, "non-finite parameters")
    assert all(not p.any() for p in broken["q_network"].values())
