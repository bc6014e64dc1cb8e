"""DQN runs explored, evaluated, diverging and compiled, and its defaults."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from alphagrad.recipes.dqn import DQNSettings, Exploration, greedy
from alphagrad.recipes.mlp import Forward, mlp, stacked_mlp
from dqn_cases import ADAM, CLIPPED, DEFAULTS, OURS, PER_RUN, largest_gap, recipe, train
from torch import nn

from alphagrad.harness import metrics
from alphagrad.harness.driver import OptimizerSpec
from alphagrad.harness.stack import RunSpec, RunStack


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
