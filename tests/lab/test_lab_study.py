"""Studies that are started again, after failures, after their processes were killed, after their main process was."""

from __future__ import annotations

import time
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import start
from tiers import long, long_rows

from alphagrad.lab.records.folder import write_members
from alphagrad.lab.store.address import store_uri
from alphagrad.lab.store.connection import open_store

STEPS = 12
SMALL = {"raising": [1], "diverging": [3], "dying": [2]}
LARGE = {"raising": [13, 17, 29], "diverging": [8, 22], "dying": [2]}
LAUNCHERS = {
    "basic": (),
    "stacked": ("hydra/launcher=stacked", "stack.max_runs=5", "stack.processes=2"),
    "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
}


def children(root: Path) -> dict[int, Any]:
    """Seed → the run of it, of which there is only one."""
    client = open_store(store_uri(None, root))
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    found: dict[int, Any] = {}
    for run in runs:
        if "seed" in run.data.tags:
            seed = int(run.data.tags["seed"])
            assert seed not in found, (run.info, run.data.tags, found[seed].info, found[seed].data.tags)
            found[seed] = run
    assert len(runs) == len(found) + 1
    return found


def finished(root: Path) -> int:
    return len([file for file in root.rglob("checkpoint.pt") if "artifacts" not in file.parts])


def killed_when(process: BaseProcess, root: Path, mark: Path, enough: int) -> bool:
    """Kills a main process once a job of its has died and enough have finished; False if it ended before."""
    deadline = time.monotonic() + 900
    while process.is_alive():
        assert time.monotonic() < deadline
        if mark.exists() and finished(root) >= enough:
            process.kill()
            break
        time.sleep(0.02)
    process.join()
    return process.exitcode != 1


@pytest.mark.parametrize(
    ("launcher", "jobs", "failing"),
    [
        pytest.param("basic", 5, SMALL, marks=pytest.mark.long),
        *(pytest.param(name, 40, LARGE, marks=pytest.mark.slow) for name in LAUNCHERS),
    ],
)
def test_a_study_survives(odd, root, tmp_path, launcher, jobs, failing):
    """Jobs raise, turn non-finite and are killed, and then the driver is: nothing is lost and nothing runs twice."""
    if launcher == "joblib":
        pytest.importorskip("joblib", reason="needs alphagrad[joblib]")
    marks = tmp_path / "marks"
    marks.mkdir()
    words = ["run", "-m", "recipe=odd", f"seed=range({jobs})", f"recipe.total_steps={STEPS}", "recipe.pause=0.02"]
    words += [f"recipe.{how}={seeds}".replace(" ", "") for how, seeds in failing.items()]
    words += ["recipe.at=7", f"recipe.once={marks}", "checkpoint.every_steps=2", "study.rerun=missing"]
    words += [*LAUNCHERS[launcher], f"output_root={root}"]

    driver = start(*words)
    if launcher == "basic":  # where the job that is killed is the driver
        driver.join(900)
        assert (marks / "2").exists()
        driver = start(*words)
    assert killed_when(driver, root, marks / "2", max(2, jobs // 4)), (
        "the study ended before its driver could be killed"
    )
    before = {seed: run for seed, run in children(root).items() if run.info.status == "FINISHED"}
    assert 0 < len(before) < jobs - sum(map(len, failing.values())) + 1
    if launcher != "basic":
        time.sleep(3)  # the workers notice that their driver is gone
    driver = start(*words, said=tmp_path / "said")
    driver.join(900)
    assert driver.exitcode == 1, (tmp_path / "said").read_text()

    bad = dict.fromkeys(failing["raising"], "ZeroDivisionError") | dict.fromkeys(failing["diverging"], "diverged")
    runs = children(root)
    assert {seed: run.info.status for seed, run in runs.items()} == {
        seed: "FAILED" if seed in bad else "FINISHED" for seed in range(jobs)
    }
    client = open_store(store_uri(None, root))
    for seed, run in runs.items():
        if seed in bad:
            assert run.data.tags["alphagrad.reason"].startswith(bad[seed])
            continue
        assert "alphagrad.reason" not in run.data.tags
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "eval/return")]
        assert sorted(steps) == list(range(1, STEPS + 1))
        folder = Path(run.data.tags["output_folder"])
        assert not list(folder.glob("state-*.pt"))
        made = torch.load(folder / "checkpoint.pt", weights_only=True)
        assert made == {"seed": seed, "steps": STEPS}
        if seed in before:
            assert (run.info.run_id, run.info.end_time) == (before[seed].info.run_id, before[seed].info.end_time)
    # the killed job was not trained from its beginning once more, nor was its stack, in which nothing raises
    assert runs[2].data.metrics["resumed"] > 0
    (parent,) = {run.data.tags["mlflow.parentRunId"] for run in runs.values()}
    assert client.get_run(parent).info.status == "FAILED"
    with suppress(ProcessLookupError):
        driver.close()
    assert not list(root.rglob("stack-*"))


@pytest.mark.parametrize(
    ("rerun", "left", "added"),
    [
        ("missing", ", 1 failed left alone", 0),
        pytest.param("failed", "", 1, marks=pytest.mark.long),
        pytest.param("all", None, 4, marks=pytest.mark.long),
    ],
)
def test_what_a_study_started_again_runs(cli, odd, root, store_runs, rerun, left, added):
    words = ("recipe=odd", "seed=range(3)", "recipe.raising=[1]", f"output_root={root}", f"study.rerun={rerun}")
    assert cli("run", "-m", *words).status == 1
    again = cli("run", "-m", *words)
    assert again.status == 1
    told = [line for line in again.err.splitlines() if "goes on" in line]
    expected = f"alphagrad: the study goes on; 2 of 3 jobs are finished{left}"
    assert told == ([] if left is None else [expected])
    assert len(store_runs(root)) == 4 + added


def leave(home: Path, *folders: Path) -> set[Path]:
    """What a process leaves in a stack's folder that is killed once its runs are finished."""
    home.mkdir(exist_ok=True)
    runs = [(folder, "a title", (folder / "run_id").read_text().strip()) for folder in folders]
    write_members(home, runs, folders)
    for name in ("state-000000000012.pt", "state-000000000013.pt.1.tmp"):
        (home / name).touch()
    return {file for folder in {home, *folders} for file in folder.iterdir()}


@pytest.mark.parametrize("rerun", [*long("missing", "failed")])
def test_a_study_started_again_tidies_up_after_a_process_that_was_killed_at_its_end(cli, odd, root, store_runs, rerun):
    """Runs alone and in a stack, all of it over; not what others may go on from, nor what is another run's by now."""
    words = ("recipe=odd", "seed=range(6)", "recipe.raising=[1]", "recipe.diverging=[2]", f"output_root={root}")
    cli("run", "-m", *words, f"study.rerun={rerun}")
    folder = {int(run.data.tags["seed"]): Path(run.data.tags["output_folder"]) for run in store_runs(root)[1:]}
    leave(folder[0], folder[0])
    leave(folder[2].parent / "stack-0e0e0e0e", folder[2], folder[3])
    raised = leave(folder[1], folder[1])  # `alphagrad resume` goes on from it
    open_stack = leave(folder[4].parent / "stack-1e1e1e1e", folder[4], folder[1])
    (folder[5] / "run_id").write_text("of-another\n")
    others = leave(folder[5], folder[5])

    assert cli("run", "-m", *words, f"study.rerun={rerun}").status == 1
    names = [file.name for seed in (0, 2, 3) for file in folder[seed].iterdir()]
    assert names.count("run_id") == 3
    # where failed runs are trained again, the one that diverged has left its own once more
    left = [name for name in names if name.startswith(("state-", "members", "stack"))]
    assert left == ([] if rerun == "missing" else ["members.json"])
    assert not (folder[2].parent / "stack-0e0e0e0e").exists()
    assert all(file.exists() for file in others)
    assert all(file.exists() for file in raised | open_stack) == (rerun == "missing")


@pytest.mark.long
def test_a_study_lies_where_its_configuration_says(cli, odd, root, tmp_path):
    """Also when a folder given by --config-dir says it."""
    (tmp_path / "conf/experiment").mkdir(parents=True)
    text = "# @package _global_\n# elsewhere\nhydra:\n  sweep:\n    dir: ${output_root}/my studies/here\n"
    (tmp_path / "conf/experiment/elsewhere.yaml").write_text(text)
    words = ("experiment=elsewhere", "recipe=odd", "seed=1,2", f"output_root={root}")
    done = cli("run", "-m", "--config-dir", str(tmp_path / "conf"), *words)
    assert done.status == 0, done.err
    folder = root / "my studies/here"
    assert {file.name for file in folder.iterdir()} > {"arguments.json", "jobs.json", "run_id"}
    assert len(list(folder.glob("*/checkpoint.pt"))) == 2
    assert f"{folder}: 2 jobs: 2 finished" in done.out


@pytest.mark.parametrize(
    ("launcher", "fail_fast"),
    [
        *long_rows(("basic", True)),
        pytest.param("basic", False, marks=pytest.mark.long),
        pytest.param("stacked", True, marks=pytest.mark.long),
        # a process for each of four jobs
        pytest.param("stacked", False, marks=pytest.mark.slow),
        pytest.param("joblib", True, marks=pytest.mark.slow),
        pytest.param("joblib", False, marks=pytest.mark.slow),
    ],
)
def test_failures_are_shown_when_they_happen_and_may_end_the_study(cli, odd, root, store_runs, launcher, fail_fast):
    """Job 1 of four fails: that is said before the study is over, and with fail_fast nothing comes after it."""
    one_by_one = {
        "basic": (),
        "stacked": ("hydra/launcher=stacked", "stack.max_runs=1", "stack.processes=1"),
        "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=1"),
    }[launcher]
    words = ("recipe=odd", "seed=range(4)", "recipe.raising=[1]", f"study.fail_fast={fail_fast}")
    done = cli("run", "-m", *words, *one_by_one, f"output_root={root}")
    assert done.status == 1
    assert "Error executing job" not in done.err  # Hydra's words
    lines = done.out.splitlines()
    failed = next(k for k, line in enumerate(lines) if "seed1" in line and "failed, ZeroDivisionError: seed 1" in line)
    others = [k for k, line in enumerate(lines) if ": eval/return" in line]
    seeds = sorted(run.data.tags["seed"] for run in store_runs(root) if "seed" in run.data.tags)
    if fail_fast:
        assert seeds == ["0", "1"]
        assert others
        assert max(others) < failed
        assert "study.fail_fast=true: no other job is begun" in done.err
        assert "alphagrad: ZeroDivisionError: seed 1" in done.err
        assert "4 jobs: 1 finished, 1 failed, 2 not begun" in done.out
        again = cli("run", "-m", *words[:2], *one_by_one, f"output_root={root}")  # goes on, without the fault
        assert again.status == 0, again.err
    else:
        assert seeds == ["0", "1", "2", "3"]
        assert min(others) < failed < max(others)


@pytest.mark.long
def test_a_fixed_setting_that_only_swept_choices_have(cli, odd, root, store_runs):
    """`optimizer.betas` is none of AlphaGrad's, which nobody has asked for."""
    words = ("recipe=odd", "recipe.total_steps=4", f"output_root={root}")
    assert cli("run", "-m", "optimizer=adam,adamw", "optimizer.betas=[0.9,0.98]", *words).status == 0
    betas = [run.data.params.get("optimizer.betas") for run in store_runs(root)]
    assert betas.count("[0.9, 0.98]") == 2
    failed = cli("run", "-m", "optimizer=adam,adamw", "optimizer.beta=0.9", *words)
    assert failed.status == 2
    assert "did you mean betas?" in failed.err
