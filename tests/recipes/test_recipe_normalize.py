"""Running normalisation of R runs, against Gymnasium's wrappers around one environment."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from alphagrad.recipes.normalize import ObservationNormalizer, RewardNormalizer, RunningMoments
from gymnasium import wrappers


class Loud(gym.RewardWrapper):
    """Rewards that are now and then far beyond what the clip lets through."""

    def reward(self, reward):
        return float(reward) * (200.0 if self.np_random.random() < 0.05 else 1.0)


def recorded(gamma: float):
    """A random policy on Hopper through Gymnasium's wrappers, truncated after 15 steps.

    Returns:
        Raw and normalised observations, in order, those of resets among them; steps as
        (raw reward, normalised reward, terminated, truncated).
    """
    raw, seen, steps = [], [], []
    env = gym.make("Hopper-v5", max_episode_steps=15, terminate_when_unhealthy=True)
    env = wrappers.TransformObservation(Loud(env), lambda o: raw.append(o.copy()) or o, None)
    env = wrappers.TransformObservation(wrappers.NormalizeObservation(env), lambda o: np.clip(o, -10, 10), None)
    rewards = []
    env = wrappers.TransformReward(env, lambda r: rewards.append(float(r)) or r)
    env = wrappers.TransformReward(wrappers.NormalizeReward(env, gamma=gamma), lambda r: np.clip(r, -10, 10))
    env.action_space.seed(1)
    seen.append(env.reset(seed=3)[0])
    for _ in range(600):
        obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        seen.append(obs)
        steps.append((rewards[-1], float(np.asarray(reward).item()), terminated, truncated))
        if terminated or truncated:
            seen.append(env.reset()[0])
    env.close()
    assert sum(t for _, _, t, _ in steps) > 5
    assert sum(t for _, _, _, t in steps) > 5
    return np.array(raw), np.array(seen), steps


@pytest.fixture(scope="module")
def record():
    return recorded(0.9)


def test_observations_as_gymnasium_normalises_them(record):
    raw, expected, _ = record
    normalize = ObservationNormalizer((1, raw.shape[1]))
    found = np.concatenate([normalize(x[None]) for x in raw])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)
    assert np.abs(expected[0]).max() < 0.02  # the first observation is all but its own mean
    # the initial moments weigh next to nothing
    np.testing.assert_allclose(normalize.moments.mean[0], raw.mean(0), atol=1e-5)
    np.testing.assert_allclose(normalize.moments.var[0], raw.var(0), atol=1e-5)


def test_rewards_as_gymnasium_normalises_them(record):
    _, _, steps = record
    normalize = RewardNormalizer(1, 0.9)
    raw, ended = np.array([[r, float(t)] for r, _, t, _ in steps]).T[..., None]
    found = np.concatenate([normalize(raw[part], ended[part]) for part in (slice(0, 7), slice(7, None))])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 0], [r for _, r, _, _ in steps], rtol=2e-5, atol=2e-6)
    assert max(abs(r) for _, r, _, _ in steps) == 10  # the clip was reached


def test_a_truncation_does_not_end_the_return_but_a_termination_does():
    normalize = RewardNormalizer(2, 0.5)
    normalize(np.ones((3, 2)), np.zeros((3, 2)))
    np.testing.assert_array_equal(normalize.returns, [1.75, 1.75])
    normalize(np.ones((1, 2)), np.array([[0.0, 1.0]]))
    np.testing.assert_array_equal(normalize.returns, [1.875, 1.0])


def test_rows_of_a_stack_are_independent():
    """Three runs, one or two of which also see a reset now and then: each row is its own normaliser, exactly."""
    rng = np.random.default_rng(0)
    together, alone = ObservationNormalizer((3, 4)), [ObservationNormalizer((1, 4)) for _ in range(3)]
    scale = np.array([[1e-3], [1.0], [1e4]])
    for _ in range(60):
        x = (rng.normal(size=(3, 4)) * scale).astype(np.float32)
        found = together(x)
        for k, single in enumerate(alone):
            np.testing.assert_array_equal(found[k : k + 1], single(x[k : k + 1]))
        over = np.flatnonzero(rng.random(3) < 0.3)
        if len(over):
            x = (rng.normal(size=(len(over), 4)) * scale[over]).astype(np.float32)
            found = together(x, over)
            for row, k in enumerate(over):
                np.testing.assert_array_equal(found[row : row + 1], alone[k](x[row : row + 1]))
    assert len(set(together.moments.count.ravel())) == 3
    for k, single in enumerate(alone):
        np.testing.assert_array_equal(together.moments.mean[k], single.moments.mean[0])
        np.testing.assert_array_equal(together.moments.var[k], single.moments.var[0])

    rewards, singles = RewardNormalizer(3, 0.99), [RewardNormalizer(1, 0.99) for _ in range(3)]
    for steps in (1, 40, 300):
        r, ended = rng.normal(size=(steps, 3)) * scale[:, 0], (rng.random((steps, 3)) < 0.2).astype(np.float32)
        found = rewards(r, ended)
        for k, single in enumerate(singles):
            np.testing.assert_array_equal(found[:, k : k + 1], single(r[:, k : k + 1], ended[:, k : k + 1]))


def test_samples_taken_in_together_are_those_taken_in_one_by_one():
    x = 1e3 + np.random.default_rng(0).normal(size=(500, 2, 3))
    together, single = RunningMoments((2, 3)), RunningMoments((2, 3))
    found = np.concatenate([together.add_each(x[:200]), together.add_each(x[200:])])
    for variance, sample in zip(found, x, strict=True):
        single.add(sample)
        np.testing.assert_allclose(variance, single.var, rtol=1e-9)
    np.testing.assert_allclose(together.mean, single.mean, rtol=1e-12)
    np.testing.assert_array_equal(together.count, single.count)


def test_without_learning_nothing_is_taken_in():
    rng = np.random.default_rng(0)
    normalize = ObservationNormalizer((2, 3))
    for _ in range(10):
        normalize(rng.normal(size=(2, 3)))
    mean, var, count = (a.copy() for a in (normalize.moments.mean, normalize.moments.var, normalize.moments.count))
    x = 50 * rng.normal(size=(2, 3))
    np.testing.assert_allclose(normalize(x, learn=False), ((x - mean) / np.sqrt(var + 1e-8)).clip(-10, 10), rtol=1e-6)
    for before, now in ((mean, normalize.moments.mean), (var, normalize.moments.var), (count, normalize.moments.count)):
        np.testing.assert_array_equal(before, now)


def test_moments_far_from_zero_keep_their_variance():
    """Where E[x²] − E[x]² would have cancelled: mean 1e6, variance 1."""
    x = 1e6 + np.random.default_rng(0).normal(size=(2000, 1))
    moments = RunningMoments((1, 1))
    moments.count[:] = 0  # without the initial guess of mean 0
    for value in x:
        moments.add(value[None])
    assert moments.mean[0, 0] == pytest.approx(x.mean(), rel=1e-12)
    assert moments.var[0, 0] == pytest.approx(x.var(), rel=1e-6)


def test_a_run_that_turns_nan_stays_alone():
    normalize = ObservationNormalizer((2, 3))
    reference = ObservationNormalizer((1, 3))
    rng = np.random.default_rng(0)
    for step in range(20):
        x = rng.normal(size=(2, 3))
        if step == 5:
            x[0] = np.nan
        found = normalize(x)
        np.testing.assert_array_equal(found[1:], reference(x[1:]))
    assert np.isnan(found[0]).all()
