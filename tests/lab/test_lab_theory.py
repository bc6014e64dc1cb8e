"""A run whose inequality is violated has failed, and says why; its neighbours go on."""

from __future__ import annotations

import pytest

SHORT = ("recipe=theory", "recipe.total_steps=12", "optimizer=alphagrad", "optimizer.lr=0.1")


@pytest.mark.long
def test_a_violated_inequality_fails_its_run_alone(cli, root, store_runs):
    told = cli(
        *("run", "-m", *SHORT, "optimizer.momentum=0.0,0.9", "recipe.statements=printed", "hydra/launcher=stacked"),
        *("stack.processes=1", f"output_root={root}"),
    )
    assert told.status == 1
    assert "Lemma 1: " in told.err
    runs = {run.data.params["optimizer.momentum"]: run for run in store_runs(root) if "seed" in run.data.tags}
    assert {momentum: run.info.status for momentum, run in runs.items()} == {"0.0": "FINISHED", "0.9": "FAILED"}
    reason = runs["0.9"].data.tags["alphagrad.reason"]
    assert reason.startswith("failed at step 1: Lemma 1: ")
    assert "off by" in reason
    assert runs["0.0"].data.metrics["theory/violations"] == 0
    assert runs["0.9"].data.metrics["theory/violations"] > 0
    files = [file for file in root.rglob("statements.*") if "artifacts" not in file.parts]
    assert sorted(file.name for file in files) == [
        "statements.csv",
        "statements.csv",
        "statements.png",
        "statements.png",
    ]


def test_a_single_run_is_told_in_a_line(cli, root, store_runs):
    told = cli("run", *SHORT, "problem.L=0.01", "recipe.figure=false", f"output_root={root}")
    assert told.status == 1
    assert "alphagrad: RunFailed: failed at step 0: smoothness: " in told.err
    (run,) = store_runs(root)
    assert run.info.status == "FAILED"


@pytest.mark.slow
def test_the_study_ends_without_a_violation(cli, root, store_runs):
    told = cli("run", "-m", "experiment=theory", f"output_root={root}")
    assert told.status == 0, told.err
    runs = [run for run in store_runs(root) if "seed" in run.data.tags]
    assert len(runs) == 72
    assert {(run.info.status, run.data.metrics["theory/violations"]) for run in runs} == {("FINISHED", 0.0)}


@pytest.mark.long
def test_a_problem_that_does_not_fit(cli, root, store_runs):
    for words, said in (
        (("problem=nope",), "problem=nope"),
        (("problem=rosenbrock", "problem.sizes=[1]"), "problem.sizes=[1]: rosenbrock needs two"),
        (("problem.scale=0",), "problem.scale=0"),
        (("problem.snr=2",), "problem.snr"),
        (("recipe.statements=all",), "recipe.statements='all'"),
    ):
        told = cli("run", *SHORT, *words, f"output_root={root}")
        assert told.status == 2
        assert said in told.err.strip()
        assert len(told.err.strip().splitlines()) == 1
    told = cli("run", "recipe=image", "problem=quadratic", f"output_root={root}")
    assert (told.status, told.err.count("\n")) == (2, 1)
    assert "problem: recipe=image has no problem; recipe=theory has one" in told.err
    assert not store_runs(root)
