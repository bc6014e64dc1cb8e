"""TD3 runs in stacks, evaluated, diverging and compiled, and its defaults."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from alphagrad.recipes.td3 import TD3, TD3Settings
from dqn_cases import assert_same_history, largest_gap
from ppo_reference import TRAY, Tray
from td3_reference import ADAM, DEFAULTS, FILE, Actor, load, recipe, train

from alphagrad import variants
from alphagrad.harness import metrics
from alphagrad.harness.driver import OptimizerSpec
from alphagrad.harness.stack import RunSpec, RunStack
from alphagrad.optimizer import AlphaGrad

NETS = ("actor", "critics", "target_actor", "target_critics")


def ours(params, **stacked):
    return AlphaGrad(params, lr=1e-3, rule=variants.alphagrad(100.0), momentum=0.9, **stacked)


def lamb(params):
    from pytorch_optimizer import Lamb

    return Lamb(params, lr=1e-3)


OURS = OptimizerSpec("alphagrad", ours, "batch_dims")
LAMB = OptimizerSpec("lamb", lamb, "per_run")


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


@pytest.mark.long
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
@pytest.mark.long
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
