"""What cannot be had in memory is refused before anything is made; what runs out of it all the same is a failed run."""

from __future__ import annotations

import copy
import math
import re
from contextlib import nullcontext
from itertools import product
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf
from tiers import one_in

from alphagrad.common.errors import ConfigError
from alphagrad.harness import memory
from alphagrad.harness.recipe import Settings
from alphagrad.lab.config.build import build
from alphagrad.lab.launching.plan import check_stacks

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


@pytest.mark.parametrize("words", one_in(3, TOO_LARGE), ids=" ".join)
def test_the_setting_to_blame_is_named(composed, words):
    wrong = next(word for word in words[1:] if not word.startswith(("data=", "model=")))
    with pytest.raises(ConfigError) as raised:
        build(composed(*words))
    (told,) = str(raised.value).splitlines()
    name, _, value = wrong.partition("=")
    assert told.startswith(f"{name}={value.replace(',', ', ')}: the run takes about ")
    assert re.search(r"this machine has [\d.]+ GB", told)
    assert ("must be at most " in told) == TOO_LARGE[words]


def test_a_run_too_large_is_refused_before_anything_is_written(cli, tmp_path):
    told = cli("run", f"recipe.batch_size={TRILLION}", f"output_root={tmp_path / 'out'}")
    assert (told.status, len(told.err.splitlines()), told.out) == (2, 1, "")
    assert told.err.startswith(f"alphagrad: recipe.batch_size={TRILLION}: the run takes about ")
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
def test_numbers_have_bounds(composed, words, allowed):
    with pytest.raises(ConfigError) as raised:
        build(composed(*words))
    (told,) = str(raised.value).splitlines()
    assert words[-1].partition("=")[0] in told
    assert allowed in told


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
        (
            ("run", "-m", "hydra/launcher=stacked", "seed=range(8)", "stack.max_runs=8"),
            "stack.max_runs=8: a stack of 8",
        ),
        (("run", "-m", "hydra/launcher=stacked", "seed=0,1", "stack.max_runs=2"), ""),
        (("run", "-m", "seed=range(8)", "stack.max_runs=8"), ""),
        (("tune", "optimizer=adam,alphagrad", "--studies=4", "--trials=1", "stack.max_runs=8"), "a stack of 8 runs"),
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
    assert refused in told.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("varied", "max_runs", "processes", "told"),
    [
        ({"seed": range(8)}, 8, 1, "a stack of 8 runs takes about 3.2 GB"),
        ({"seed": range(4), "optimizer.lr": (0.1, 0.2)}, 16, 1, "a stack of 8 runs takes about 3.2 GB"),
        ({"seed": range(8)}, 2, 1, ""),
        ({"seed": (0, 1), "recipe.gamma": (0.9, 0.8, 0.7)}, 6, 1, ""),
        ({"seed": range(8)}, 4, 2, "stack.processes=2: 2 stacks at a time take about 3.2 GB"),
        ({"seed": range(8)}, 2, 4, "stack.processes=4: 4 stacks at a time take about 3.2 GB"),
        (
            {"seed": range(4), "recipe.gamma": (0.9, 0.8)},
            32,
            3,
            "stack.processes=3: 3 stacks at a time take about 2.4 GB",
        ),
        ({"seed": range(8)}, 2, 2, ""),
        ({"seed": range(8)}, 1, 4, ""),
        ({"seed": (0,)}, 32, 64, ""),
    ],
    ids=str,
)
def test_stacks_and_those_side_by_side_are_measured(composed, lab, varied, max_runs, processes, told):
    from alphagrad.recipes.dqn import DQN

    lab.setattr(memory, "memory", lambda: 2e9)
    lab.setattr(DQN, "bytes_of", lambda self, settings, runs=1: 4e8 * runs)
    one, configs = composed("recipe=dqn_cartpole", "optimizer=adam"), []
    for values in product(*varied.values()):
        configs.append(copy.deepcopy(one))
        for setting, value in zip(varied, values, strict=True):
            OmegaConf.update(configs[-1], setting, value)
    with pytest.raises(ConfigError, match=re.escape(told)) if told else nullcontext():
        check_stacks(configs, max_runs, processes)


def test_a_recipe_that_does_not_say_what_it_takes_has_networks(cli, odd, lab, tmp_path):
    """Their weights and gradients alone, 48 bytes a run, are counted."""
    from alphagrad.lab.commands import run

    lab.setattr(run, "run_alone", lambda *_: None)
    lab.setattr(memory, "memory", lambda: 47.0)
    words = ("run", "recipe=odd", f"output_root={tmp_path / 'out'}")
    refused = cli(*words)
    assert (refused.status, len(refused.err.splitlines())) == (2, 1)
    assert "recipe=odd: the weights and gradients of its networks take 48 bytes" in refused.err
    lab.setattr(memory, "memory", lambda: 191.0)
    assert cli(*words).status == 0
    refused = cli(words[0], "-m", *words[1:], "hydra/launcher=stacked", "seed=range(4)", "stack.processes=1")
    assert (refused.status, len(refused.err.splitlines())) == (2, 1)
    assert "stack.max_runs=32: a stack of 4 runs takes about 192 bytes" in refused.err


def test_networks_are_measured_without_being_made():
    from torch import nn

    assert memory.least(lambda: {"a": nn.Linear(10**7, 10**7, bias=False)}) == 8e14
    assert memory.least(lambda: {"a": nn.Linear(2, 2), "b": nn.Linear(1, 1)}) == 64
    assert memory.least(lambda: 1 / 0) == 0


@pytest.mark.long
def test_what_a_run_took_is_logged(cli, root, tiny, store_runs):
    place = f"output_root={root}"
    cli("run", "-m", "optimizer=adam,alphagrad", "hydra/launcher=stacked", place, *tiny)
    cli("run", "optimizer=alphagrad", "optimizer.momentum=0.0", place, *tiny)
    taken = {
        (run.data.tags["variant"], run.data.params.get("optimizer.momentum")): run.data.metrics
        for run in store_runs(root)
        if "cost/state_bytes" in run.data.metrics
    }
    elements = 10_934  # of 4-120-84-2
    assert 2 * 4 * elements <= taken["adam", None]["cost/state_bytes"] < 2 * 4 * elements * 1.01
    assert 4 * elements <= taken["alphagrad", "0.9"]["cost/state_bytes"] < 4 * elements * 1.01
    assert taken["alphagrad", "0.0"]["cost/state_bytes"] < 4 * elements * 0.01
    for metrics in taken.values():
        assert 50e6 < metrics["cost/peak_bytes"] < 100e9
