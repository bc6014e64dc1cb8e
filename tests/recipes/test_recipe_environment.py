"""Environments of other packages, their arguments and wrappers, and their own mistakes."""

from __future__ import annotations

import signal
import sys

import gymnasium as gym
import numpy as np
import pytest
from alphagrad.recipes.environment import make_env
from alphagrad.recipes.envs import EnvStack

from alphagrad.common.errors import Terminated
from alphagrad.common.interrupts import closing_runs_on_signals
from alphagrad.harness.recipe import EnvSettings

PACKAGE = '''
import sys

import gymnasium as gym
import numpy as np

class Mute(Exception):
    def __str__(self):
        raise ValueError("no words")

class Odd(gym.Env):
    """Rewards of ``gain``; from step ``at`` on it makes a mistake."""

    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)

    def __init__(self, gain=1.0, mistake=None, at=5, box=False):
        if mistake == "exit when made":
            sys.exit(0)
        self.gain, self.mistake, self.at = gain, mistake, at
        self.action_space = gym.spaces.Box(-2, 2, (2,), np.float32) if box else gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if self.mistake == "exit at reset":
            sys.exit(3)
        self.count, self.shown = 0, np.zeros(3, np.float32)
        return self.shown if self.mistake == "old reset" else (self.shown, {})

    def step(self, action):
        self.count += 1
        if isinstance(action, np.ndarray):
            action *= 0  # as some environments do that clip their actions in place
            action += 99
        self.shown += 0.01  # one array again and again
        given = [self.shown, self.gain, False, self.count == 20, {}]
        if self.count == self.at:
            wrong = {
                "reward array": (1, np.ones(1)), "reward nan": (1, float("nan")), "reward none": (1, None),
                "size": (0, np.zeros(1, np.float32)), "shape": (0, np.zeros((1, 3), np.float32)),
                "nan": (0, np.array([0, np.nan, 0], np.float32)), "text": (0, np.array(["a", "b", "c"])),
                "reward huge": (1, 10**5000), "reward beyond": (1, 1e300), "reward complex": (1, np.complex64(1)),
                "beyond": (0, np.array([0, 1e300, 0])), "dictionary": (0, {"x": 1}),
                "flag": (2, np.array([True, False])),
            }
            if self.mistake == "raise":
                raise KeyError("lost")
            if self.mistake == "mute":
                raise Mute
            if self.mistake == "exit":
                sys.exit()
            if self.mistake == "old step":
                return given[0], given[1], False, {}
            if self.mistake in wrong:
                place, value = wrong[self.mistake]
                given[place] = value
        return tuple(given)

gym.register("Odd-v0", Odd)
gym.register("Boxed-v0", Odd, kwargs={"box": True})
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "oddpackage.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "oddpackage"
    sys.modules.pop("oddpackage", None)
    for name in ("Odd-v0", "Boxed-v0"):
        gym.registry.pop(name, None)


def test_an_environment_of_another_package_with_arguments(package):
    s = EnvSettings(id="oddpackage:Odd-v0", kwargs={"gain": 5.0, "max_episode_steps": 3})
    stack = EnvStack(s, [0])
    ends = [stack.step([0])[3] for _ in range(3)]
    assert [(e.episodic_return, e.length) for e in ends[2]] == [(15.0, 3)]
    assert gym.make("oddpackage:Odd-v0").unwrapped.gain == 1.0
    with pytest.raises(ValueError, match=r"with env\.kwargs=\{'gian': 5\}: TypeError: .*gian"):
        make_env(EnvSettings(id="oddpackage:Odd-v0", kwargs={"gian": 5}))
    with pytest.raises(ValueError, match=r"env\.id=oddpackage:Od-v0: "):
        make_env("oddpackage:Od-v0")


def test_a_package_that_cannot_be_imported(tmp_path, monkeypatch):
    (tmp_path / "leavingpackage.py").write_text("raise SystemExit(0)")
    (tmp_path / "brokenpackage.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"env\.id=brokenpackage:Odd-v0: ZeroDivisionError: division by zero"):
        make_env("brokenpackage:Odd-v0")
    with pytest.raises(ValueError, match=r"env\.id=leavingpackage:Odd-v0: SystemExit: 0"):
        make_env("leavingpackage:Odd-v0")


def test_a_signal_while_an_environment_steps_is_no_mistake_of_it(package):
    stack = EnvStack("oddpackage:Odd-v0", [0])
    stack.envs[0].unwrapped.step = lambda _: signal.raise_signal(signal.SIGTERM)
    with closing_runs_on_signals(), pytest.raises(Terminated, match="143"):
        stack.step([0])


@pytest.mark.long
def test_a_job_whose_environment_exits_fails_and_the_study_goes_on(package, cli, root, store_runs):
    short = ("recipe=td3_hopper", "env.id=oddpackage:Boxed-v0", "recipe.total_steps=8", "recipe.learning_starts=2")
    small = ("recipe.batch_size=2", "recipe.hidden=[2]", "recipe.eval_episodes=1", "recipe.buffer_size=20")
    mistakes = "+env.kwargs.mistake=exit,null"
    done = cli("run", "-m", *short, *small, mistakes, "optimizer=adam", f"output_root={root}")
    assert done.status == 1, done.err
    assert "env.id=oddpackage:Boxed-v0: its step 5 raised SystemExit" in done.err
    assert sorted(run.info.status for run in store_runs(root)) == ["FAILED", "FAILED", "FINISHED"]


def test_wrappers_the_innermost_first():
    scale = {"_target_": "gymnasium.wrappers.TimeLimit", "max_episode_steps": 4}
    clip = {"_target_": "gymnasium.wrappers.RecordEpisodeStatistics", "buffer_length": 7}
    env = make_env(EnvSettings(id="CartPole-v1", wrappers=[scale, clip]))
    assert isinstance(env, gym.wrappers.RecordEpisodeStatistics)
    assert isinstance(env.env, gym.wrappers.TimeLimit)
    stack = EnvStack(EnvSettings(id="CartPole-v1", wrappers=[scale]), [1])
    assert [bool(stack.step([k % 2])[3]) for k in range(4)] == [False, False, False, True]
    for wrong, told in {
        "gymnasium.wrappers.Nope": "Nope",
        "nomodule.Wrapper": "nomodule",
        "builtins.repr": "gives a str",
    }.items():
        with pytest.raises(ValueError, match=rf"env\.wrappers\[0\]=\{{.*{told}"):
            make_env(EnvSettings(id="CartPole-v1", wrappers=[{"_target_": wrong}]))
    with pytest.raises(ValueError, match="each must have a _target_"):
        EnvSettings(id="CartPole-v1", wrappers=[{"max_episode_steps": 4}])


MISTAKES = {
    "reward array": r"its step 5 gave an array of float64 \[1\] as reward, not a real number",
    "reward nan": "its step 5 gave the reward nan",
    "reward none": "its step 5 gave a NoneType as reward",
    "size": r"its step 5 gave an observation of shape \[1\]; its space says \[3\]",
    "shape": r"its step 5 gave an observation of shape \[1, 3\]; its space says \[3\]",
    "nan": "its step 5 gave an observation with nan in it",
    "text": r"its step 5 gave an array of <U1 \[3\] as observation, not an array of numbers",
    "dictionary": "its step 5 gave a dict as observation",
    "flag": r"its step 5 gave an array of bool \[2\] as terminated",
    "raise": "its step 5 raised KeyError: 'lost'",
    "mute": "its step 5 raised Mute",
    "exit": "its step 5 raised SystemExit",
    "exit at reset": "its reset after 0 steps raised SystemExit: 3",
    "exit when made": r"with env\.kwargs=\{.*\}: SystemExit: 0",
    "reward huge": "its step 5 gave a whole number as reward that is too large for float32",
    "reward beyond": r"its step 5 gave the reward 1e\+300, too large for float32",
    "reward complex": "its step 5 gave a complex64 as reward, not a real number",
    "beyond": r"its step 5 gave an observation with 1e\+300, too large for float32, in it",
    "old step": "its step 5 gave 4 values, not observation, reward, terminated, truncated and info",
    "old reset": r"its reset after 0 steps gave an array of float32 \[3\], not an observation and a dictionary",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_an_environments_mistakes_are_told_with_its_name_and_the_step(mistake, package):
    s = EnvSettings(id="oddpackage:Odd-v0", kwargs={"mistake": mistake})
    with pytest.raises((ValueError, RuntimeError), match=rf"env\.id=oddpackage:Odd-v0:? {MISTAKES[mistake]}"):
        play(EnvStack(s, [0]))


def play(stack: EnvStack) -> None:
    for _ in range(6):
        stack.step([0])


def test_what_follows_from_an_action_that_is_not_finite_is_no_mistake_of_the_environment(package):
    stack = EnvStack(EnvSettings(id="oddpackage:Boxed-v0", kwargs={"mistake": "nan"}), [0])
    for _ in range(5):
        reached = stack.step(np.full((1, 2), np.nan, np.float32))[0]
    assert np.isnan(reached).any()


def test_environment_and_recipe_share_no_array(package):
    stack = EnvStack("oddpackage:Boxed-v0", [0, 1])
    actions = np.random.default_rng(0).standard_normal((8, 2, 2)).astype(np.float32)
    kept, seen = actions.copy(), []
    for row in actions:
        seen.append((stack.observations, stack.observations.copy(), *(2 * [stack.step(row)[0]])))
        seen[-1] = (*seen[-1][:3], seen[-1][3].copy())
    np.testing.assert_array_equal(actions, kept)
    for before, before_copy, reached, reached_copy in seen:
        np.testing.assert_array_equal(before, before_copy)
        np.testing.assert_array_equal(reached, reached_copy)
    state = stack.state_dict()
    again = EnvStack("oddpackage:Boxed-v0", [0, 1])
    again.load_state_dict(state)
    for one, other in zip(state["actions"], again.state_dict()["actions"], strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(np.asarray(one), kept[:, 0] if one is state["actions"][0] else kept[:, 1])


@pytest.mark.long
def test_an_environment_that_changes_its_actions_trains_td3_as_one_that_does_not(package, cli, tmp_path):
    """The right way to set all of it on the command line; the memory holds what was chosen."""
    short = ("recipe=td3_hopper", "env.id=oddpackage:Boxed-v0", "env.kwargs.gain=5", "recipe.total_steps=40")
    small = ("recipe.learning_starts=5", "recipe.batch_size=4", "recipe.hidden=[4]", "recipe.eval_episodes=1")
    wrapped = "env.wrappers=[{_target_:gymnasium.wrappers.TimeLimit,max_episode_steps:10}]"
    root = f"output_root={tmp_path / 'out'}"
    done = cli("run", *short, *small, wrapped, "recipe.buffer_size=50", "optimizer=adam", root)
    assert done.status == 0, done.err
    wrong = cli("run", *short, *small, "env.kwargs.mistake=size", "optimizer=adam", root)
    assert wrong.status == 1
    assert "env.id=oddpackage:Boxed-v0: its step 5 gave an observation of shape [1]" in wrong.err
