"""The documentation's commands as the tests run them: the same words, with settings and values that make them short."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from written import CHECKOUT

from alphagrad.lab.config import compose, sweep
from alphagrad.lab.config.overrides import parsed

EXAMPLES = ("recipe.epochs=1", "recipe.batch_size=16")
SMALL: Mapping[str, Sequence[str]] = {
    "dqn_cartpole": (
        *("recipe.total_steps=120", "recipe.learning_starts=20", "recipe.log_every=40", "recipe.eval_episodes=1"),
        *("recipe.batch_size=16", "recipe.target_every=25", "env.kwargs.max_episode_steps=60"),
    ),
    "ppo_halfcheetah": (
        *("recipe.total_steps=64", "recipe.num_steps=32", "recipe.minibatches=2", "recipe.epochs=1"),
        *("recipe.eval_episodes=1", "env.kwargs.max_episode_steps=20"),
    ),
    "td3_hopper": (
        *("recipe.total_steps=60", "recipe.learning_starts=30", "recipe.batch_size=8", "recipe.buffer_size=100"),
        *("recipe.log_every=20", "recipe.hidden=[8,8]", "recipe.eval_episodes=1", "env.kwargs.max_episode_steps=20"),
    ),
    "image": ("recipe.epochs=1",),
    "text": ("recipe.epochs=1", "recipe.max_length=8", "recipe.vocabulary=500"),
    "lm": (
        *("recipe.total_steps=2", "recipe.length=16", "recipe.batch_size=2", "recipe.eval_batch_size=512"),
        *("recipe.sample_tokens=2", "recipe.peak_flops=1e9", "threads=1"),
    ),
}
"""Recipe → what makes a run of it short."""
LARGE_DATA: Mapping[str, Sequence[str]] = {
    "data=imagenet": ("data.size=32", "data.workers=0", "recipe.batch_size=2", "recipe.gap_images=2"),
    "data=cifar10": ("recipe.batch_size=4", "recipe.gap_images=4"),
    "data=fashion_mnist": ("recipe.batch_size=8", "recipe.gap_images=8"),
    "data=mnist": ("recipe.batch_size=8", "recipe.gap_images=8"),
    "model=transformer": ("model.width=8",),
    "recipe.tokenizer=bpe": ("recipe.vocabulary=300",),
    "experiment=lm_sotu": ("model.width=16", "model.layers=1", "recipe.vocabulary=300"),
}
"""A word of a command → further settings that make it short."""
HERE = {"device=cuda": "device=cpu", "data.root=/data": "data.root=data", "output_root=/shared/outputs": ""}
"""Words that name what the reader's machine has → those that name it on this one."""


def shortened(words: Sequence[str], conf: Path) -> list[str]:
    """The words of a command, made short.

    Args:
        words: after `alphagrad`.
        conf: the reader's own configuration.
    """
    if words[0] == "tune":
        words = [*re.sub(r"--trials \d+", "--trials 1 --studies 1", " ".join(words)).split()]
    elif words[0] != "run" or {"--help", "--cfg"} & set(words):
        return list(words)
    words = [found for word in words if (found := HERE.get(word, word))]
    small = list(SMALL.get(recipe_of(words, conf), ("recipe.total_steps=20",)))
    for word, more in LARGE_DATA.items():
        small += more if word in words else ()
    small += [word for word in _swept(words, conf) if _key(word) not in {_key(w) for w in words}]
    if "recipe.vocabulary=null" in words:  # which it must be
        small = [word for word in small if _key(word) != "recipe.vocabulary"]
    replaced = {_key(word) for word in small}
    kept = [first(word) if "=" in word and word[0] != "-" else word for word in words if _key(word) not in replaced]
    return [*kept, *dict(zip(map(_key, small), small, strict=True)).values()]


def recipe_of(words: Sequence[str], conf: Path) -> str:
    """Which recipe a command trains."""
    for word in sorted(words, key=lambda own: not own.startswith("recipe=")):
        key, _, value = word.partition("=")
        if key == "recipe":
            return value
        if key == "experiment":
            found = re.search(r"override /recipe: (\w+)", _experiment(value, conf))
            assert found, word
            return found[1]
    return "dqn_cartpole"


def first(override: str) -> str:
    """A setting with the first of the values that it is swept over; optimizers and choices of a rule keep theirs."""
    kept = ("optimizer", *compose.SLOTS)
    return override if _key(override) in kept else f"{_key(override)}={_values(override)[0]}"


def _values(override: str) -> list[str]:
    """The values that a setting is swept over."""
    (read,) = parsed([override])
    return sweep.choices_of(read) if read.is_sweep_override() else [_value(override)]


def _swept(words: Sequence[str], conf: Path) -> list[str]:
    """The first values of what a study's own file sweeps over, where the command is that of all of it."""
    names = [_value(word) for word in words if word.startswith("experiment=")]
    if not names or "-m" not in words:
        return []
    params = yaml.safe_load(_experiment(names[0], conf))["hydra"]["sweeper"]["params"]
    swept = {key: f"{key}={value}" for key, value in params.items() if "${" not in str(value)}
    found = _values(swept["optimizer"]) if "optimizer" in swept else []
    if len(found) > 3:  # of few each may be the only one with a setting
        swept["optimizer"] = f"optimizer={found[0]},{found[-1]}"
    return [first(word) for word in swept.values()]


def _experiment(name: str, conf: Path) -> str:
    own = conf / f"experiment/{name}.yaml"
    return (own if own.exists() else CHECKOUT / f"conf/experiment/{name}.yaml").read_text(encoding="utf-8")


def _key(word: str) -> str:
    return word.partition("=")[0]


def _value(word: str) -> str:
    return word.partition("=")[2]
