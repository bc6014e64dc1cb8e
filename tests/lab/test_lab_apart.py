"""Stacks of which one run raises or all are interrupted: what happens to the others."""

from __future__ import annotations

import re
import signal
from itertools import product
from pathlib import Path

import pytest
import torch
from tiers import long

from alphagrad.common.errors import StorageLost
from alphagrad.common.interrupts import closing_runs_on_signals
from alphagrad.harness.driver import OptimizerSpec
from alphagrad.harness.stack import RunSpec, RunStack
from alphagrad.lab.launching.apart import run_apart
from alphagrad.lab.launching.plan import planned
from alphagrad.lab.records.folder import forget
from alphagrad.lab.records.run import Tracker
from alphagrad.lab.store.address import store_uri
from alphagrad.lab.store.connection import open_store
from alphagrad.lab.training.job import Assignment, assignment_of
from alphagrad.lab.training.log import TrackedLog
from alphagrad.lab.training.logfiles import LOG_FILE
from alphagrad.lab.training.runner import StackBroken, run_stack


@pytest.fixture
def jobs(odd, composed, root):
    """``jobs("recipe=odd", optimizer="adam,sgd", seed=range(3))`` → an assignment for each combination."""

    def make(*words: str, optimizer: str = "sgd", seed: range = range(1)) -> list[Assignment]:
        made = []
        for name, number in product(optimizer.split(","), seed):
            own = [*words, f"optimizer={name}", f"seed={number}", f"output_root={root}", "device=cpu"]
            made.append(assignment_of(composed(*own), own, root / f"{name}-{number}"))
        return made

    return make


def ends(runs: list) -> dict[int, tuple[str, str]]:
    """Seed → status and reason, of runs that differ in seed."""
    found = {int(r.data.tags["seed"]): (r.info.status, r.data.tags.get("alphagrad.reason", "")) for r in runs}
    assert len(found) == len(runs)  # nothing is there twice
    return found


@pytest.mark.long
def test_what_one_run_raises_is_its_own(jobs, root, store_runs):
    """Of seven, one raises in the middle, and one turns non-finite as its own."""
    bad = ("recipe.raising=[4]", "recipe.diverging=[2]", "recipe.at=3", "recipe.total_steps=6")
    outcomes = run_apart(jobs("recipe=odd", *bad, seed=range(7)))
    why = {seed: outcome.failure for seed, outcome in enumerate(outcomes) if outcome.failure}
    assert why == {2: "diverged at step 3: on demand", 4: "ZeroDivisionError: seed 4"}
    expected = dict.fromkeys(range(7), ("FINISHED", ""))
    assert ends(store_runs(root)) == expected | {seed: ("FAILED", reason) for seed, reason in why.items()}
    for seed in range(7):
        folder = root / f"sgd-{seed}"
        assert ("Traceback" in (folder / LOG_FILE).read_text()) == (seed == 4)
        left = {file.name for file in folder.iterdir()} - {LOG_FILE, "config.yaml", "run_id"}
        assert left == (set() if seed in why else {"checkpoint.pt"}) | ({"members.json"} if seed == 4 else set())
    assert not list(root.glob("stack-*"))
    for outcome in (outcomes[0], outcomes[6]):
        assert outcome.metrics["stack"] > 1  # those that are not to blame still share


def test_a_stack_says_that_it_is_broken_and_takes_its_runs_back(jobs, root, store_runs):
    with pytest.raises(StackBroken, match="ZeroDivisionError: seed 1") as caught:
        run_stack(jobs("recipe=odd", "recipe.raising=[1]", "recipe.diverging=[0]", seed=range(3)))
    assert {row: outcome.failure for row, outcome in caught.value.ended.items()} == {0: "diverged at step 2: on demand"}
    assert ends(store_runs(root)) == {0: ("FAILED", "diverged at step 2: on demand")}


@pytest.mark.long
def test_all_raise(jobs, root, store_runs):
    outcomes = run_apart(jobs("recipe=odd", "recipe.raising=[0,1,2]", seed=range(3)))
    assert [outcome.failure for outcome in outcomes] == [f"ZeroDivisionError: seed {seed}" for seed in range(3)]
    assert ends(store_runs(root)) == {seed: ("FAILED", f"ZeroDivisionError: seed {seed}") for seed in range(3)}


def test_all_diverge(jobs, root, store_runs):
    outcomes = run_apart(jobs("recipe=odd", "recipe.diverging=[0,1]", seed=range(2)))
    assert [outcome.failure for outcome in outcomes] == ["diverged at step 2: on demand"] * 2
    assert {status for status, _ in ends(store_runs(root)).values()} == {"FAILED"}


@pytest.mark.long
def test_an_environment_that_raises(jobs, root, store_runs, tiny, lab):
    stack = RunStack([RunSpec(2, OptimizerSpec("", torch.optim.Adam))])
    lab.setenv("ALPHAGRAD_TEST_FRAGILE", str(stack.generators("environment")[0].integers(2**31)))
    import odd_recipe  # noqa: F401  # makes the environment known

    short = ("env.id=Fragile-v0", *tiny, "recipe.total_steps=60")
    outcomes = run_apart(jobs(*short, seed=range(4)))
    told = outcomes[2].failure
    assert re.fullmatch(r"RuntimeError: env.id=Fragile-v0: its step \d+ raised RuntimeError: the pole broke", told)
    assert [outcome.failure for outcome in outcomes] == [None, None, told, None]
    assert [ends(store_runs(root))[seed][0] for seed in range(4)] == ["FINISHED", "FINISHED", "FAILED", "FINISHED"]


@pytest.mark.long
def test_an_optimizer_that_cannot_be_built(jobs, root, store_runs, tiny):
    outcomes = run_apart(jobs(*tiny, "recipe.total_steps=30", optimizer="adam,choosy,sgd"))
    assert [outcome.failure is None for outcome in outcomes] == [True, False, True]
    assert "ValueError: matrices of more than 1000" in str(outcomes[1].failure)
    assert sorted(run.info.status for run in store_runs(root)) == ["FAILED", "FINISHED", "FINISHED"]


def test_a_setting_that_is_wrong_only_here(jobs, root, store_runs):
    made = jobs("recipe=odd", seed=range(3))
    made[1].config["device"] = "cuda:99"
    outcomes = run_apart(made)
    assert [outcome.failure is None for outcome in outcomes] == [True, False, True]
    assert "device=cuda:99" in str(outcomes[1].failure)
    assert outcomes[0].metrics["stack"] == 2
    assert set(ends(store_runs(root))) == {0, 2}


@pytest.fixture
def interrupt(lab):
    """``interrupt(run, jobs, step)``: the stack goes away once it has saved its state at a step."""

    def call(assignments: list[Assignment], step: int) -> None:
        save = TrackedLog.checkpoint

        def saved(self, reached, parts, result):
            save(self, reached, parts, result)
            if reached == step:
                raise KeyboardInterrupt

        with lab.context() as patched:
            patched.setattr(TrackedLog, "checkpoint", saved)
            with pytest.raises(KeyboardInterrupt):
                run_apart(assignments)

    return call


LONG = ("recipe=odd", "recipe.total_steps=8", "recipe.at=2", "checkpoint.every_steps=1")


@pytest.mark.parametrize("again", [True, False])
@pytest.mark.long
def test_an_interrupted_stack_goes_on_without_those_that_have_ended(jobs, root, store_runs, interrupt, again):
    """One of four had turned non-finite: it is left alone, or begins anew beside the others; these go on."""
    everything = jobs(*LONG, "recipe.diverging=[1]", seed=range(4))
    interrupt(everything, 5)
    before = {run.data.tags["seed"]: run for run in store_runs(root)}
    assert {seed: run.info.status for seed, run in before.items()} == {
        "0": "KILLED", "1": "FAILED", "2": "KILLED", "3": "KILLED"
    }  # fmt: skip
    if again:
        forget(Path(everything[1].folder))
    wanted = [job for seed, job in enumerate(everything) if seed != 1 or again]
    stacks = planned(wanted, max_runs=2, processes=3)
    assert [len(stack.assignments) for stack in stacks] == [4, *([1] if again else [])]
    outcomes: dict = {}
    for stack in reversed(stacks):  # the one that begins anew is first: its folder is its own by then
        try:
            outcomes |= stack.outcomes(run_apart(stack.assignments))
        except FloatingPointError as error:
            outcomes |= stack.outcomes(str(error))
    assert sorted(outcomes) == list(range(len(wanted)))
    runs = store_runs(root)
    assert len(runs) == 4 + again
    for run in runs:
        old = before[run.data.tags["seed"]]
        if run.data.tags["seed"] == "1":
            assert run.info.status == "FAILED"
            continue
        assert (run.info.run_id, run.info.status) == (old.info.run_id, "FINISHED")
        assert run.data.metrics["resumed"] == 5
        made = torch.load(Path(run.data.tags["output_folder"]) / "checkpoint.pt", weights_only=True)
        assert made == {"seed": int(run.data.tags["seed"]), "steps": 8}
    assert not list(root.glob("stack-*"))
    assert not list(root.rglob("stack"))


@pytest.mark.long
def test_a_stack_that_is_not_wanted_whole_begins_anew(jobs, root, store_runs, interrupt):
    everything = jobs(*LONG, seed=range(3))
    interrupt(everything, 5)
    (stack,) = planned(everything[:2], max_runs=9, processes=1)
    assert stack.assignments == everything[:2]
    assert [outcome.metrics["resumed"] for outcome in run_apart(stack.assignments)] == [0, 0]
    finished = [run for run in store_runs(root) if run.info.status == "FINISHED"]
    assert len(finished) == 2
    assert len(store_runs(root)) == 3 + 2


def test_a_run_alone_goes_on_alone(jobs, root, interrupt):
    everything = jobs(*LONG, seed=range(3))
    interrupt(everything[:1], 5)
    stacks = planned(everything, max_runs=9, processes=1)
    assert [stack.jobs for stack in stacks] == [{0: 0}, {0: 1, 1: 2}]
    (outcome,) = run_apart(stacks[0].assignments)
    assert outcome.metrics["resumed"] == 5


@pytest.mark.long
def test_runs_that_were_only_created_are_not_created_twice(jobs, root, store_runs, lab):
    """Killed before the stack was noted: what the store has of it goes on."""
    from alphagrad.lab.training import runner

    everything = jobs(*LONG, seed=range(3))
    with lab.context() as patched:
        patched.setattr(runner, "write_members", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_apart(everything)
    before = {run.info.run_id for run in store_runs(root)}
    assert len(before) == 3
    run_apart(everything)
    assert {run.info.run_id: run.info.status for run in store_runs(root)} == dict.fromkeys(before, "FINISHED")


def test_a_lost_store_ends_the_halves_too(jobs, lab):
    """It is no failure of the jobs: they can go on."""
    begun = []

    def lost(assignments, line, leader):
        begun.append(len(assignments))
        raise StackBroken("x", {}) if len(begun) == 1 else StorageLost("gone")

    lab.setattr("alphagrad.lab.launching.apart.run_stack", lost)
    with pytest.raises(StorageLost):
        run_apart(jobs("recipe=odd", seed=range(4)))
    assert begun == [4, 2]


@pytest.mark.long
def test_a_stack_that_was_being_broken_up_is_none(jobs, root, store_runs, interrupt):
    """Killed while its runs were taken back: nobody stands for a run that is gone, and no job trains twice."""
    everything = jobs(*LONG, seed=range(3))
    interrupt(everything, 5)
    open_store(store_uri(None, root)).delete_run(store_runs(root)[1].info.run_id)
    (stack,) = planned(everything, max_runs=9, processes=1)
    assert stack.jobs == {0: 0, 1: 1, 2: 2}
    run_apart(stack.assignments)
    finished = [run for run in store_runs(root) if run.info.status == "FINISHED"]
    assert sorted(run.data.tags["seed"] for run in finished) == ["0", "1", "2"]


@pytest.mark.parametrize("moment", [1, *long(2, 3)])
def test_a_signal_does_not_leave_a_stack_half_broken_up(jobs, root, store_runs, lab, moment):
    taken = []

    def take_back(self, reason):
        taken.append(reason)
        if len(taken) == moment:
            signal.raise_signal(signal.SIGTERM)
        take_back_(self, reason)

    take_back_ = Tracker.take_back
    lab.setattr(Tracker, "take_back", take_back)
    with closing_runs_on_signals(), pytest.raises(SystemExit):
        run_apart(jobs("recipe=odd", "recipe.raising=[1]", seed=range(3)))
    assert len(taken) == 3
    assert store_runs(root) == []
    assert not list(root.rglob("members.json"))


def test_a_stack_of_no_runs_is_told():
    with pytest.raises(ValueError, match="a stack needs at least one run"):
        run_apart([])
