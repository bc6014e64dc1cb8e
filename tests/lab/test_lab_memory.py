"""What cannot be had in memory is refused before anything is made; what runs out of it all the same is a failed run."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import pytest

from alphagrad.harness import memory
from alphagrad.harness.recipe import Settings

TRILLION = 10**12
TEXT = ("recipe=text", "data=pydocs")
LM = ("recipe=lm", "data=topics")
# words → the setting that is to blame, and whether a largest value can be told
TOO_LARGE = {
    ("recipe=dqn_cartpole", f"recipe.batch_size={TRILLION}"): True,
    ("recipe=dqn_cartpole", f"recipe.buffer_size={TRILLION}"): True,
    ("recipe=dqn_cartpole", f"recipe.eval_episodes={TRILLION}"): True,
    ("recipe=dqn_cartpole", f"recipe.hidden=[{TRILLION}]"): False,
    ("recipe=dqn_cartpole", "recipe.hidden=[9223372036854775807,9223372036854775807]"): False,
    ("recipe=ppo_halfcheetah", f"recipe.num_steps={TRILLION}", f"recipe.total_steps={TRILLION}"): True,
    ("recipe=ppo_halfcheetah", f"recipe.hidden=[64,{TRILLION}]"): False,
    ("recipe=ppo_halfcheetah", "recipe.eval_episodes=1000000"): True,
    ("recipe=td3_hopper", f"recipe.batch_size={TRILLION}"): True,
    ("recipe=td3_hopper", f"recipe.buffer_size={TRILLION}", f"recipe.total_steps={TRILLION}"): True,
    ("recipe=td3_hopper", f"recipe.hidden=[{TRILLION}]"): False,
    ("recipe=image", f"model.hidden=[{TRILLION}]"): False,
    ("recipe=image", f"data.pad={TRILLION}"): True,
    ("recipe=image", "model=cnn", f"model.channels=[{TRILLION}]"): False,
    (*TEXT, f"model.hidden=[{TRILLION}]"): False,
    (*TEXT, "model=transformer", f"model.width={TRILLION}"): True,
    (*TEXT, "model=transformer", f"recipe.max_length={TRILLION}"): True,
    (*LM, f"model.width={TRILLION}"): True,
    (*LM, "model=llama", f"model.width={TRILLION}"): True,
}


@pytest.mark.parametrize("words", TOO_LARGE, ids=" ".join)
def test_the_setting_to_blame_is_named(cli, tmp_path, words):
    wrong = next(word for word in words[1:] if not word.startswith(("data=", "model=")))
    told = cli("run", *words, f"output_root={tmp_path / 'out'}")
    assert (told.status, len(told.err.splitlines()), told.out) == (2, 1, "")
    name, _, value = wrong.partition("=")
    assert told.err.startswith(f"alphagrad: {name}={value.replace(',', ', ')}: the run takes about ")
    assert re.search(r"this machine has [\d.]+ GB", told.err)
    assert ("must be at most " in told.err) == TOO_LARGE[words]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (("recipe=dqn_cartpole", f"recipe.total_steps={10**30}"), "64 bits"),
        (("recipe=image", f"recipe.epochs={10**30}"), "64 bits"),
        (("recipe=dqn_cartpole", f"recipe.hidden=[{10**30}]"), "64 bits"),
        (("recipe=image", "model.hidden=[9223372036854775807]"), "no machine can hold it"),
        (("recipe=image", f"data.workers={TRILLION}"), "less than or equal to 256"),
        (("recipe=image", f"recipe.batch_size={TRILLION}"), "only 1438 training examples"),
        ((*LM, f"model.layers={TRILLION}"), "less than or equal to 1000"),
        ((*LM, f"recipe.sample_tokens={TRILLION}"), "less than or equal to 1000000"),
        ((*LM, f"recipe.length={TRILLION}"), "tokens"),
        (("tracking.flush_seconds=1e300",), "at most 3.4e+38"),
        (("recipe=ppo_halfcheetah", "recipe.clip=1e300"), "at most 3.4e+38"),
        (("recipe=td3_hopper", "recipe.noise_clip=1e300"), "at most 3.4e+38"),
    ],
    ids=str,
)
def test_numbers_have_bounds(cli, tmp_path, words, allowed):
    told = cli("run", *words, f"output_root={tmp_path / 'out'}")
    assert (told.status, len(told.err.splitlines())) == (2, 1)
    assert words[-1].partition("=")[0] in told.err
    assert allowed in told.err
    assert not (tmp_path / "out").exists()


class Sized(Settings):
    wide: int
    rows: int
    layers: list[int]


def need(s: Sized) -> int:
    return s.wide**2 + s.rows * sum(s.layers)


@pytest.mark.parametrize(
    ("values", "blamed"),
    [
        ({"wide": 40, "rows": 10, "layers": [10]}, "recipe.wide=40"),
        ({"wide": 3, "rows": 100, "layers": [20, 20]}, "recipe.rows=100"),
        ({"wide": 3, "rows": 20, "layers": [900, 20]}, "recipe.layers="),
    ],
)
def test_the_one_that_saves_most_is_blamed(monkeypatch, values, blamed):
    monkeypatch.setattr(memory, "memory", lambda: 1000.0)
    names = ["recipe.wide", "recipe.rows", "recipe.layers"]
    with pytest.raises(ValueError, match=re.escape(blamed)) as told:
        memory.check_memory(Sized(**values), need, names)
    most = re.search(r"at most (\d+)", str(told.value))
    if most is None:
        assert blamed == "recipe.layers="
        return
    name = blamed.partition("=")[0].removeprefix("recipe.")
    fits, not_any_more = (Sized(**{**values, name: int(most[1]) + more}) for more in (0, 1))
    assert need(fits) <= 1000 < need(not_any_more)
    memory.check_memory(fits, need, names)


def test_the_least_limit_counts(monkeypatch, tmp_path):
    machine = memory.memory()
    assert 1e8 < machine < math.inf
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "LIMITS", (str(limit), str(tmp_path / "nosuch")))
    for text, expected in (("12345678\n", 12345678), ("max\n", machine)):
        limit.write_text(text)
        assert memory.memory() == expected


@pytest.mark.parametrize("wrong", [f"recipe.buffer_size={10**15}", f"recipe.hidden=[{10**12}]"])
def test_memory_that_runs_out_fails_the_run(cli, root, store_runs, tiny, lab, wrong):
    """NumPy and torch each have an error of their own."""
    lab.setattr(memory, "memory", lambda: math.inf)
    told = cli("run", *tiny, wrong, f"output_root={root}")
    assert told.status == 1
    (line,) = [line for line in told.err.splitlines() if line.startswith("alphagrad: ")]
    assert re.search("allocate|memory", line)
    assert "Traceback" not in told.err
    (run,) = store_runs(root)
    assert run.info.status == "FAILED"


def test_a_stack_that_is_too_large_names_its_limit(cli, root, store_runs, tiny, lab):
    from alphagrad.common.errors import ConfigError
    from alphagrad.lab.training import runner

    job = SimpleNamespace(
        recipe=SimpleNamespace(settings=None, bytes_of=lambda settings, runs: 4e8 * runs),
        settings=SimpleNamespace(stack=SimpleNamespace(max_runs=32)),
    )
    lab.setattr(memory, "memory", lambda: 1e9)
    runner.check_stack(job, 2)
    with pytest.raises(ConfigError, match=r"stack\.max_runs=32: a stack of 3 runs takes about 1\.2 GB"):
        runner.check_stack(job, 3)


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (("run", "-m", "hydra/launcher=stacked", "seed=range(8)", "stack.max_runs=8"), 8),
        (("run", "-m", "hydra/launcher=stacked", "seed=range(4)", "optimizer=adam,sgd", "stack.max_runs=16"), 8),
        (("run", "-m", "hydra/launcher=stacked", "seed=range(8)", "stack.max_runs=2"), 0),
        (("run", "-m", "hydra/launcher=stacked", "seed=0,1", "recipe.gamma=0.9,0.8,0.7", "stack.max_runs=6"), 0),
        (("run", "-m", "seed=range(8)", "stack.max_runs=8"), 0),
        (("tune", "optimizer=adam,alphagrad", "--studies", "4", "--trials", "1", "stack.max_runs=8"), 8),
    ],
    ids=str,
)
def test_a_stack_too_large_for_the_memory_is_refused_at_the_start(cli, lab, tmp_path, words, refused):
    from alphagrad.recipes.dqn import DQN

    from alphagrad.lab.commands import run
    from alphagrad.lab.tuning import search as tune

    begun: list[str] = []
    lab.setattr(memory, "memory", lambda: 1e9)
    lab.setattr(DQN, "bytes_of", lambda self, settings, runs=1: 4e8 * runs)
    lab.setattr(run, "run_study", lambda *_: begun.append("a study"))
    lab.setattr(tune, "_tune", lambda *_: begun.append("a tuning"))
    told = cli(*words, "recipe=dqn_cartpole", "stack.processes=1", f"output_root={tmp_path / 'out'}")
    if not refused:
        assert (told.status, begun) == (0, ["a study"])
        return
    assert (told.status, begun, len(told.err.splitlines())) == (2, [], 1)
    assert re.search(rf"stack\.max_runs=\d+: a stack of {refused} runs takes about 3\.2 GB", told.err)
    assert not (tmp_path / "out").exists()
