"""TD3 over a stack of runs, against single runs and against a plain loop written from CleanRL's."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from alphagrad.recipes.envs import EnvStack
from alphagrad.recipes.noise import Noise
from alphagrad.recipes.td3 import TD3, Bounds, TD3Settings
from test_recipe_dqn import Recorder, assert_same_history, largest_gap
from test_recipe_ppo import TRAY, Tray
from torch import nn

from alphagrad import variants
from alphagrad.harness import metrics
from alphagrad.harness.driver import Observation, OptimizerSpec
from alphagrad.harness.sharing import StackOptimizer
from alphagrad.harness.stack import RunSpec, RunStack
from alphagrad.harness.tensors import split
from alphagrad.optimizer import AlphaGrad

FILE = yaml.safe_load((Path(__file__).resolve().parents[2] / "conf/recipe/td3_hopper.yaml").read_text())
DEFAULTS = {k: v for k, v in FILE["recipe"].items() if k != "_target_"}
NETS = ("actor", "critics", "target_actor", "target_critics")


def recipe(env_id: str = TRAY, **settings) -> TD3:
    small = {"total_steps": 240, "learning_starts": 60, "batch_size": 16, "hidden": [24, 16], "log_every": 40}
    small |= {"eval_episodes": 2, "compile": False}
    return TD3(TD3Settings(**{**DEFAULTS, **small, **settings, "env": {"id": env_id}}))


def adam(params):
    return torch.optim.Adam(params, lr=3e-3)


def ours(params, **stacked):
    return AlphaGrad(params, lr=1e-3, rule=variants.alphagrad(100.0), momentum=0.9, **stacked)


def lamb(params):
    from pytorch_optimizer import Lamb

    return Lamb(params, lr=1e-3)


ADAM = OptimizerSpec("adam", adam, "elementwise")
OURS = OptimizerSpec("alphagrad", ours, "batch_dims")
LAMB = OptimizerSpec("lamb", lamb, "per_run")


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


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"policy_every": 3, "tau": 0.3, "gamma": 0.8, "policy_noise": 1.0, "noise_clip": 0.2, "buffer_size": 50},
        {"policy_every": 1, "exploration_noise": 0.6, "learning_starts": 0, "total_steps": 120},
        {"env_id": "Pendulum-v1", "total_steps": 280, "learning_starts": 100},
    ],
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


@pytest.mark.filterwarnings("ignore:.*is out of date:DeprecationWarning")
def test_networks_are_cleanrls():
    """Sizes of Table 2 of the paper, and torch's own initialisation in the order in which CleanRL builds them."""
    td3 = TD3(TD3Settings(**{**DEFAULTS, "env": {"id": "Hopper-v4"}}))
    torch.manual_seed(0)
    networks = td3.networks()
    assert sum(p.numel() for network in networks.values() for p in network.parameters()) == 209_413
    assert [tuple(p.shape) for p in networks["actor"].parameters()][::2] == [(256, 11), (256, 256), (3, 256)]
    for network in networks.values():
        for weight, bias in zip(*[iter(network.parameters())] * 2, strict=True):
            bound = weight.shape[1] ** -0.5  # torch.nn.Linear's
            assert 0.9 * bound < weight.abs().max() <= bound
            assert 0 < bias.abs().max() <= bound
    critics = dict(networks["critics"].named_parameters())
    assert not torch.equal(critics["qf1.0.weight"], critics["qf2.0.weight"])


def test_defaults_are_cleanrls():
    s = TD3Settings(**{**DEFAULTS, "env": FILE["env"]})
    assert (s.env.id, s.total_steps, s.buffer_size, s.batch_size) == ("Hopper-v5", 10**6, 10**6, 256)
    assert (s.gamma, s.tau, s.policy_noise, s.noise_clip, s.exploration_noise) == (0.99, 0.005, 0.2, 0.5, 0.1)
    assert (s.learning_starts, s.policy_every, s.hidden) == (25_000, 2, [256, 256])


@pytest.fixture(scope="module")
def stacked_and_alone():
    """Four runs of unequal optimizers on Hopper: as one stack, and each alone."""
    td3 = recipe("Hopper-v5", total_steps=500, learning_starts=100, log_every=100, eval_every=250, hidden=[32, 32])
    runs = [RunSpec(1, ADAM), RunSpec(2, OURS), RunSpec(1, LAMB), RunSpec(4, ADAM)]
    return runs, train(td3, *runs, observe=20), [train(td3, run, observe=20) for run in runs]


@pytest.mark.long
def test_run_k_of_a_stack_is_the_run_alone(stacked_and_alone):
    runs, (together, log), singles = stacked_and_alone
    for k, ((single,), single_log) in enumerate(singles):
        for name in (metrics.EPISODIC_RETURN, metrics.EPISODIC_LENGTH, metrics.FINAL_RETURN, metrics.EVAL_RETURN):
            assert_same_history(log.of(k, name), single_log.of(0, name), f"run {k}: {name}")
        assert len(log.of(k, metrics.EPISODIC_RETURN)) > 5
        for net in NETS:
            assert largest_gap(together[k][net], single[net]) < 1e-4
        for optimizer in ("actor_optimizer", "critic_optimizer"):
            for name, state in single[optimizer].items():
                assert set(together[k][optimizer][name]) == set(state)
                for key, value in state.items():
                    torch.testing.assert_close(together[k][optimizer][name][key], value, rtol=1e-3, atol=1e-4)
    returns = [log.of(k, metrics.EPISODIC_RETURN) for k in range(len(runs))]
    assert all(a != b for k, a in enumerate(returns) for b in returns[:k])


@pytest.mark.long
def test_a_runs_measurements_do_not_depend_on_the_stack(stacked_and_alone):
    runs, (_, log), singles = stacked_and_alone
    for k, (_, single_log) in enumerate(singles):
        names = {name for _, name, _ in single_log.points[0]} - {metrics.STEPS_PER_SECOND}
        assert names == {name for _, name, _ in log.points[k]} - {metrics.STEPS_PER_SECOND}
        assert {metrics.CRITIC_LOSS, metrics.ACTOR_LOSS, metrics.Q_VALUES} <= names
        for tensor in ("actor.2.weight", "qf1.2.weight"):  # of both optimizers
            assert f"grad_norm/{tensor}" in names
            assert (f"saturation/{tensor}" in names) == (runs[k].optimizer is OURS)
        for name in names:
            found, expected = log.of(k, name), single_log.of(0, name)
            assert [s for s, _ in found] == [s for s, _ in expected]
            np.testing.assert_allclose([v for _, v in found], [v for _, v in expected], rtol=2e-3, atol=1e-5)


def test_evaluation_is_the_policy_of_the_checkpoint_and_leaves_training_alone():
    often, log = train(recipe(eval_every=60), RunSpec(6, OURS))
    (once,), single = train(recipe(), RunSpec(6, OURS))
    assert [step for step, _ in log.of(0, metrics.EVAL_RETURN)] == [59, 119, 179, 239]
    assert log.of(0, metrics.EPISODIC_RETURN) == single.of(0, metrics.EPISODIC_RETURN)
    assert all(largest_gap(often[0][net], once[net]) == 0 for net in NETS)
    actor = Actor(3, [24, 16], Tray.action_space)
    load(actor, {name: p.unsqueeze(0) for name, p in once["actor"].items()}, "", 0)
    returns, policy = [], recipe().policy(once)
    for start in RunStack([RunSpec(6, ADAM)]).generators("evaluation")[0].integers(2**31, size=2):
        env = gym.make(TRAY)
        obs, over, total = env.reset(seed=int(start))[0], False, 0.0
        while not over:
            with torch.no_grad():
                action = actor(torch.as_tensor(obs)).numpy()
            np.testing.assert_allclose(policy(np.float32(obs)[None])[0], action, rtol=1e-4, atol=1e-5)
            obs, reward, terminated, truncated, _ = env.step(action)
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    ((_, value),) = single.of(0, metrics.EVAL_RETURN)
    assert value == pytest.approx(np.mean(returns), rel=1e-5)


WILD = OptimizerSpec("sgd", lambda params: torch.optim.SGD(params, lr=1e30), "elementwise")


@pytest.mark.parametrize(
    ("settings", "at"),
    [
        ({}, (79, 79)),
        # after the last point of the log, and with an evaluation before anyone has noticed
        ({"total_steps": 150, "learning_starts": 120, "log_every": 100, "eval_every": 149}, (149, 149)),
    ],
)
def test_a_run_that_diverges_ends_alone(settings, at):
    td3 = recipe("HalfCheetah-v5", **{"eval_episodes": 1, **settings})
    together, log = train(td3, RunSpec(1, OURS), RunSpec(2, WILD), RunSpec(3, ADAM))
    ((run, step, reason),) = log.ended
    assert run == 1
    assert at[0] <= step <= at[1]
    assert metrics.CRITIC_LOSS in reason
    for net in ("actor", "critics"):
        assert all(not p.any() for p in together[1][net].values())
    for k, spec in ((0, RunSpec(1, OURS)), (2, RunSpec(3, ADAM))):
        (single,), single_log = train(td3, spec)
        assert log.of(k, metrics.EVAL_RETURN) == single_log.of(0, metrics.EVAL_RETURN)
        assert all(largest_gap(together[k][net], single[net]) < 1e-5 for net in NETS)


def test_compiles_where_it_repays():
    """From 10,000 gradient steps on."""
    assert recipe(compile="auto", total_steps=10_060).compiles
    assert not recipe(compile="auto", total_steps=10_059).compiles
    assert recipe(compile=True).compiles
    assert not recipe(compile=False, total_steps=10**7).compiles


@pytest.mark.parametrize("env_id", ["Hopper-v4", "HalfCheetah-v4", "Walker2d-v5"])
@pytest.mark.filterwarnings("ignore:.*is out of date:DeprecationWarning")
def test_environments_by_their_name(env_id):
    checkpoints, log = train(recipe(env_id, total_steps=120, eval_episodes=1), RunSpec(0, OURS), RunSpec(1, ADAM))
    for run, checkpoint in enumerate(checkpoints):
        assert all(p.isfinite().all() for net in NETS for p in checkpoint[net].values())
        ((_, value),) = log.of(run, metrics.EVAL_RETURN)
        assert np.isfinite(value)


class Unbounded(Tray):
    """Actions of any size."""

    action_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)


gym.register("alphagrad_td3/Unbounded-v0", entry_point=Unbounded, max_episode_steps=12)


@pytest.mark.parametrize(
    ("env_id", "said"),
    [
        ("CartPole-v1", "TD3 needs a flat Box action, got Discrete(2)"),
        ("FrozenLake-v1", "TD3 needs a flat Box observation, got Discrete(16)"),
        ("CarRacing-v99", ""),
        ("alphagrad_td3/Unbounded-v0", "TD3 needs bounded actions, got Box(-inf, inf, (2,), float32)"),
    ],
)
def test_unsuitable_environments_are_one_line(cli, tmp_path, env_id, said):
    failed = cli("run", "recipe=td3_hopper", f"env.id={env_id}", f"output_root={tmp_path / 'out'}")
    assert failed.status == 2
    (line,) = failed.err.splitlines()
    assert line.startswith(f"alphagrad: env.id={env_id}: {said}")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("spec", [ADAM, OURS, LAMB], ids=lambda spec: spec.name)
def test_compiled_equals_eager(spec):
    runs = [RunSpec(1, spec), RunSpec(2, spec)]
    # under AlphaGrad a difference in rounding grows tenfold in 20 updates: 3e-8 after 3, 4e-7 after 60, 5e-2 after 180
    eager, log_e = train(recipe(total_steps=120), *runs, observe=20)
    compiled, log_c = train(recipe(total_steps=120, compile=True), *runs, observe=20)
    for k in range(2):
        assert all(largest_gap(eager[k][net], compiled[k][net]) < 5e-6 for net in NETS)
        for name in (metrics.CRITIC_LOSS, metrics.ACTOR_LOSS, metrics.EPISODIC_RETURN, "grad_norm/qf1.2.weight"):
            a, b = log_e.of(k, name), log_c.of(k, name)
            assert a
            np.testing.assert_allclose([v for _, v in a], [v for _, v in b], rtol=5e-3, atol=1e-4)


@pytest.mark.parametrize("learning_starts", [60, 61])
def test_actor_and_critics_are_observed_each_by_its_own_count(learning_starts):
    """Also where the actor is updated at steps at which the critics never are observed."""
    _, log = train(recipe(learning_starts=learning_starts), RunSpec(1, OURS), observe=20)
    updates = 239 - learning_starts
    assert len(log.of(0, "saturation/qf1.2.weight")) == updates // 20
    assert len(log.of(0, "saturation/actor.2.weight")) == 89 // 20  # one in two steps, from 62 to 238
