"""One Gymnasium environment: made from its settings, and held to what it says of itself."""

from __future__ import annotations

import copy
import importlib
import pkgutil
from typing import Any

import gymnasium as gym
import numpy as np

from alphagrad.harness.recipe import EnvSettings, check_signals

LARGEST = float(np.finfo(np.float32).max)


def make_env(env: EnvSettings | str, render_mode: str | None = None) -> gym.Env:
    """One environment in its wrappers, by its settings or its id alone.

    Raises:
        ValueError: there is none of this name, or it or a wrapper cannot be made so; one line.
    """
    s = EnvSettings(id=env) if isinstance(env, str) else env
    module, colon, name = s.id.rpartition(":")
    told = f"env.id={s.id}"
    try:
        if colon:  # Gymnasium's spec() imports nothing
            importlib.import_module(module)
        if _is_mujoco(name):
            quiet_mujoco()
        # an environment need not know of rendering
        drawn: dict[str, Any] = {"render_mode": render_mode} if render_mode else {}
        if s.kwargs:
            told += f" with env.kwargs={s.kwargs}"
        made: Any = gym.make(name, **{"disable_env_checker": True, **s.kwargs, **drawn})
        for number, wrapper in enumerate(s.wrappers):
            told = f"env.wrappers[{number}]={wrapper}"
            arguments = {key: value for key, value in wrapper.items() if key != "_target_"}
            made = pkgutil.resolve_name(str(wrapper["_target_"]))(made, **arguments)
            if not isinstance(made, gym.Env):
                raise TypeError(f"gives a {type(made).__name__}, which is no gymnasium.Env")
    except (Exception, SystemExit) as error:  # whatever another package's code raises
        check_signals()
        raise ValueError(f"{told}: {_said(error)}") from error
    return made


def flat_boxes(env: EnvSettings, algorithm: str) -> tuple[gym.spaces.Box, gym.spaces.Box]:
    """An environment's spaces of observations and actions; ``ValueError`` unless both are flat boxes."""
    observation, action = spaces(env)
    if not isinstance(observation, gym.spaces.Box) or len(observation.shape) != 1:
        raise ValueError(f"env.id={env.id}: {algorithm} needs a flat Box observation, got {observation}")
    if not isinstance(action, gym.spaces.Box) or len(action.shape) != 1:
        raise ValueError(f"env.id={env.id}: {algorithm} needs a flat Box action, got {action}")
    return observation, action


def spaces(env: EnvSettings) -> tuple[gym.Space, gym.Space]:
    """Copies of an environment's spaces of observations and actions, which it cannot change any more."""
    made = make_env(env)
    found = copy.deepcopy(made.observation_space), copy.deepcopy(made.action_space)
    made.close()
    return found


def _is_mujoco(name: str) -> bool:
    return "mujoco" in str(gym.spec(name).entry_point)


def env_bytes(env: EnvSettings) -> int:
    """What one environment takes in memory, about."""
    return 900_000 if _is_mujoco(env.id.rpartition(":")[2]) else 5_000


def quiet_mujoco() -> None:
    """Keeps MuJoCo from warning of its own models' deprecated attributes, and from a log file in the cwd."""
    import mujoco

    mujoco.set_mju_user_warning(lambda _: None)


class CheckedEnv:
    """An environment whose mistakes are told as such, with its name and the step.

    What it gives is checked against its own observation space and Gymnasium's interface. Numbers that are not
    finite, or not in float32, are its mistake only where the action was finite: a run that diverges acts with NaN.

    Args:
        env: the environment.
        name: what it is called in messages.
    """

    def __init__(self, env: gym.Env, name: str) -> None:
        self.env, self.name = env, name
        self.shape = env.observation_space.shape
        self.steps = 0
        """How many have been taken."""

    def reset(self, seed: int | None = None) -> np.ndarray:
        """The first observation of an episode, float32."""
        try:
            given = self.env.reset(seed=seed)
        except (Exception, SystemExit) as error:
            check_signals()
            raise RuntimeError(f"{self._where('reset')} raised {_said(error)}") from error
        if not isinstance(given, tuple) or len(given) != 2:
            raise self._mistake("reset", f"gave {_kind(given)}, not an observation and a dictionary")
        return self._observation("reset", given[0], True)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool]:
        """Observation (float32), reward, whether it terminated, whether it was cut off.

        Raises:
            ValueError: what the environment gave is none of these.
            RuntimeError: the environment raised something.
        """
        self.steps += 1
        try:
            given = self.env.step(action)
        except (Exception, SystemExit) as error:
            check_signals()
            raise RuntimeError(f"{self._where('step')} raised {_said(error)}") from error
        if not isinstance(given, tuple) or len(given) != 5:
            gave = f"{len(given)} values" if isinstance(given, tuple) else _kind(given)
            raise self._mistake("step", f"gave {gave}, not observation, reward, terminated, truncated and info")
        observation, reward, terminated, truncated, _ = given
        sound = isinstance(action, np.integer) or bool(np.isfinite(action).all())
        if not isinstance(reward, (int, float, np.integer, np.floating, np.bool_)):
            raise self._mistake("step", f"gave {_kind(reward)} as reward, not a real number")
        try:
            gained = float(reward)
        except OverflowError as error:
            raise self._mistake("step", "gave a whole number as reward that is too large for float32") from error
        if sound and not abs(gained) <= LARGEST:
            raise self._mistake("step", f"gave the reward {_odd(gained)}")
        for flag, word in ((terminated, "terminated"), (truncated, "truncated")):
            if not isinstance(flag, (bool, np.bool_, int, np.integer)):
                raise self._mistake("step", f"gave {_kind(flag)} as {word}, not a truth value")
        return self._observation("step", observation, sound), gained, bool(terminated), bool(truncated)

    def _observation(self, when: str, given: Any, sound: bool) -> np.ndarray:
        shown = given if isinstance(given, np.ndarray) else None
        if shown is None and isinstance(given, (list, tuple, int, float, np.generic)):
            try:
                shown = np.asarray(given)
            except ValueError:  # lists of several lengths
                shown = None
        if shown is None or shown.dtype.kind not in "fiub":
            raise self._mistake(when, f"gave {_kind(given)} as observation, not an array of numbers")
        if shown.shape != self.shape:
            raise self._mistake(
                when, f"gave an observation of shape {list(shown.shape)}; its space says {list(self.shape or ())}"
            )
        cast = shown
        if shown.dtype != np.float32:
            with np.errstate(over="ignore"):
                cast = shown.astype(np.float32)
        if sound and not np.isfinite(cast).all():
            odd = shown[~np.isfinite(cast)].flat[0]
            raise self._mistake(when, f"gave an observation with {_odd(odd)} in it")
        return cast

    def _where(self, when: str) -> str:
        moment = f"its step {self.steps}" if when == "step" else f"its reset after {self.steps} steps"
        return f"env.id={self.name}: {moment}"

    def _mistake(self, when: str, what: str) -> ValueError:
        return ValueError(f"{self._where(when)} {what}")


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} {list(value.shape)}"
    return f"a {type(value).__name__}"


def _odd(value: Any) -> str:
    return f"{value}, too large for float32," if np.isfinite(value) else str(value)


def _said(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception:  # an error whose own text fails is told by its name
        text = ""
    plain = isinstance(error, (gym.error.Error, ModuleNotFoundError))
    return text if plain and text else f"{type(error).__name__}: {text}".rstrip(": ")
