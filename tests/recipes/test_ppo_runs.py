"""PPO runs in stacks, evaluated, diverging and compiled, and its defaults."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from alphagrad.recipes import ppo as ppo_module
from alphagrad.recipes.actor_critic import ActorCritic
from alphagrad.recipes.envs import EnvStack
from alphagrad.recipes.ppo import PPO, PPOSettings
from alphagrad.recipes.rollout import Rollout
from dqn_cases import Recorder, assert_same_history, largest_gap
from gymnasium import wrappers
from ppo_reference import ADAM, DEFAULTS, FILE, TRAY, Agent, Tray, recipe, train
from tiers import one_in
from torch import nn

from alphagrad import variants
from alphagrad.harness import metrics
from alphagrad.harness.driver import OptimizerSpec
from alphagrad.harness.stack import RunSpec, RunStack
from alphagrad.optimizer import AlphaGrad


def ours(params, **stacked):
    return AlphaGrad(params, lr=1e-3, rule=variants.alphagrad(98.0), momentum=0.9, **stacked)


def lamb(params):
    from pytorch_optimizer import Lamb

    return Lamb(params, lr=1e-3)


OURS = OptimizerSpec("alphagrad", ours, "batch_dims")
LAMB = OptimizerSpec("lamb", lamb, "per_run", clip_grad_norm=0.5)


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


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.parametrize("env_id", one_in(2, ["HalfCheetah-v4", "Hopper-v4", "Walker2d-v5", "Pendulum-v1"]))
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
