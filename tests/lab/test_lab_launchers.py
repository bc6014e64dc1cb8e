"""Launchers that send jobs to other processes: joblib, submitit (local and a real SLURM), Ray."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from tiers import long

from alphagrad.lab.launching import dispatch
from alphagrad.lab.launching.farms import FARMS
from alphagrad.lab.launching.farms.joblib import JoblibOptions, run_joblib
from alphagrad.lab.records.lifecycle import DEAD
from alphagrad.lab.training.job import Assignment
from alphagrad.lab.training.logfiles import LOG_FILE

SLURM_TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")


@pytest.fixture(scope="session")
def slurm_conf(tmp_path_factory, checkout):
    """A SLURM of one node for all tests."""
    missing = [tool for tool in SLURM_TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid():
        pytest.skip(f"needs root and Debian's slurmctld, slurmd, slurm-client, munge; missing: {missing}")
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([checkout / ".ci/slurm", "start", folder], check=True)
    yield folder / "slurm.conf"
    subprocess.run([checkout / ".ci/slurm", "stop", folder], check=True)


@pytest.fixture
def launcher(request, lab):
    """The name of a launcher that can be used here; the test is skipped where its package is missing."""
    name = request.param
    if find_spec(name.partition("_")[0]) is None:
        pytest.skip(f"needs alphagrad[{name.partition('_')[0]}]")
    if name == "submitit_slurm":
        lab.setenv("SLURM_CONF", str(request.getfixturevalue("slurm_conf")))
    return name


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("joblib", "submitit_local", "ray", "submitit_slurm")]
# one job at a time, so that a dying worker has no neighbour
ONE_BY_ONE = {
    "joblib": "hydra.launcher.n_jobs=1",
    "submitit_local": "hydra.launcher.array_parallelism=2",
    "submitit_slurm": "hydra.launcher.array_parallelism=1",
    "ray": "hydra.launcher.num_cpus=1",
}


def family(runs: list) -> tuple:
    """The only parent and its children by seed."""
    (parent,) = [r for r in runs if r.data.tags.get("alphagrad.kind") == "study"]
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == len(runs) - 1
    by_seed = {int(r.data.tags["seed"]): r for r in children}
    assert len(by_seed) == len(children)
    return parent, by_seed


@pytest.mark.parametrize("launcher", SLOW, indirect=True)
def test_jobs_fail_alone_and_say_so(cli, odd, root, store_runs, launcher):
    """One raises, one diverges, one's process is killed; the two others finish, and nothing runs twice."""
    failing = ("recipe.raising=[1]", "recipe.dying=[2]", "recipe.diverging=[3]")
    words = ("recipe=odd", "seed=range(5)", *failing, f"output_root={root}", ONE_BY_ONE[launcher])
    done = cli("run", "-m", f"hydra/launcher={launcher}", *words)
    assert done.status == 1, done.err
    parent, children = family(store_runs(root))
    statuses = {seed: child.info.status for seed, child in children.items()}
    assert statuses == {0: "FINISHED", 1: "FAILED", 2: "KILLED", 3: "FAILED", 4: "FINISHED"}
    assert parent.info.status == "FAILED"
    reasons = {seed: child.data.tags.get("alphagrad.reason", "") for seed, child in children.items()}
    assert reasons[1] == "ZeroDivisionError: seed 1"
    assert reasons[2] == DEAD.reason
    assert "on demand" in reasons[3]
    for seed, child in children.items():
        folder = Path(child.data.tags["output_folder"])
        log = (folder / LOG_FILE).read_text()
        assert ("Traceback" in log) == (seed in (1, 3))
        assert f"seed={seed}: " in done.out
    for seed in (0, 4):
        assert {k: children[seed].data.metrics[k] for k in ("stack", "threads", "omp")} == {
            "stack": 1,
            "threads": 1,
            "omp": 1,
        }


@pytest.mark.parametrize("real", [*long(False), pytest.param(True, marks=pytest.mark.slow)])
def test_a_farm_job_may_be_a_stack(cli, lab, odd, root, store_runs, real):
    """In joblib's processes, which have the threads that they were given; by default in this one, which is faster."""

    def run_here(train, parcels, options, folder, done):
        for index, parcel in enumerate(parcels):
            done(index, train(parcel))

    if find_spec("joblib") is None:
        pytest.skip("needs alphagrad[joblib]")
    if not real:
        lab.setitem(FARMS, "joblib", replace(FARMS["joblib"], run=run_here))
    words = ("recipe=odd", "optimizer=adam,sgd", "seed=range(2)", f"output_root={root}", "hydra.launcher.n_jobs=1")
    threads = "threads=2" if real else "threads=1"
    done = cli("run", "-m", "hydra/launcher=joblib", *words, "hydra.launcher.runs_per_job=3", threads)
    assert done.status == 0, done.err
    runs = store_runs(root)
    stacks = sorted(r.data.metrics["stack"] for r in runs if "seed" in r.data.tags)
    assert stacks == [2, 2, 2, 2]  # four runs in as few stacks of at most three
    if real:
        assert {r.data.metrics["threads"] for r in runs if "seed" in r.data.tags} == {2}
    assert {r.info.status for r in runs} == {"FINISHED"}


@pytest.mark.long
def test_a_joblib_worker_has_the_threads_it_was_given(lab):
    pytest.importorskip("joblib", reason="needs alphagrad[joblib]")
    lab.setenv("OMP_NUM_THREADS", "9")
    options = JoblibOptions(choice="joblib", runs_per_job=1, n_jobs=1, threads=3)
    ended = {}
    names = ["OMP_NUM_THREADS", "ALPHAGRAD_TEST_NONE"]
    run_joblib(os.getenv, names, options, Path(), ended.__setitem__)
    assert ended == {0: "3", 1: None}


@pytest.mark.parametrize(
    ("launcher", "number"),
    [
        pytest.param(name, number, marks=pytest.mark.slow)
        for name in ("joblib", "submitit_local", "ray", "submitit_slurm")
        for number in (signal.SIGINT, signal.SIGTERM)
    ],
    indirect=["launcher"],
)
def test_an_interrupted_study_closes_its_runs(odd, root, store_runs, launcher, number):
    words = [f"hydra/launcher={launcher}", "recipe=odd", "seed=range(6)", "recipe.pause=0.05", f"output_root={root}"]
    words += ["recipe.total_steps=1000000"]
    command = [sys.executable, "-m", "alphagrad_cli", "run", "-m", *words]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=root, start_new_session=True, text=True, stdout=pipe, stderr=pipe)
    try:
        deadline = time.monotonic() + 600
        while len(list(root.rglob("run_id"))) < 3:  # the study's and two of its runs'
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(0.5)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal's Ctrl-C does
        else:
            process.send_signal(number)
        _, said = process.communicate(timeout=300)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == 128 + number, said
    assert "Traceback" not in said
    parent, children = family(store_runs(root))
    assert parent.info.status == "KILLED"
    assert {child.info.status for child in children.values()} == {"KILLED"}
    assert 2 <= len(children) < 6  # none of the waiting jobs was begun after the signal
    if launcher != "ray":  # where Ray's own processes meet the terminal's Ctrl-C, they may be gone first
        reasons = {child.data.tags["alphagrad.reason"].partition(":")[0] for child in children.values()}
        assert reasons <= {"KeyboardInterrupt", "Terminated"}


@pytest.mark.parametrize("name", ["joblib", "submitit_local", "submitit_slurm", "ray"])
def test_a_missing_package_names_the_extra(cli, lab, tmp_path, name):
    farm = name.partition("_")[0]
    lab.setattr(dispatch, "find_spec", lambda package: None if package == farm else find_spec(package))
    failed = cli("run", "-m", f"hydra/launcher={name}", "seed=1,2", f"output_root={tmp_path / 'out'}")
    assert failed.status == 2
    assert failed.err == (
        f"alphagrad: hydra/launcher={name}: needs the package {farm}; pip install 'alphagrad[{farm}]'\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        ("hydra/launcher=joblib hydra.launcher.n_jobs=0", ("hydra.launcher.n_jobs=0", "-1")),
        ("hydra/launcher=joblib hydra.launcher.n_jobs=few", ("hydra.launcher.n_jobs='few'", "integer")),
        ("hydra/launcher=joblib hydra.launcher.njobs=2", ("hydra.launcher.njobs", "n_jobs")),
        ("hydra/launcher=submitit_local hydra.launcher.timeout_min=0", ("hydra.launcher.timeout_min=0",)),
        ("hydra/launcher=ray hydra.launcher.cpus_per_job=0", ("hydra.launcher.cpus_per_job=0",)),
        ("hydra/launcher=joblib hydra.launcher.farm=nope", ("hydra.launcher.farm=nope", "joblib, submitit, ray")),
    ],
)
def test_wrong_options_are_one_line(cli, tmp_path, words, needed):
    for package in {farm.package for farm in FARMS.values()}:
        if package in words and find_spec(package) is None:
            pytest.skip(f"needs alphagrad[{package}]")
    failed = cli("run", "-m", *words.split(" "), "seed=1,2", f"output_root={tmp_path / 'out'}")
    assert failed.status == 2
    assert len(failed.err.splitlines()) == 1, failed.err
    for text in needed:
        assert text in failed.err
    assert not (tmp_path / "out").exists()


def test_slurm_without_slurm(cli, lab, tmp_path):
    if find_spec("submitit") is None:
        pytest.skip("needs alphagrad[submitit]")
    lab.setenv("PATH", str(tmp_path))
    failed = cli("run", "-m", "hydra/launcher=submitit_slurm", "seed=1,2", f"output_root={tmp_path / 'out'}")
    assert failed.status == 2
    assert "no sbatch" in failed.err
    assert not (tmp_path / "out").exists()


def test_a_worker_takes_the_drivers_store_and_parent(lab, tmp_path):
    """Relative to another folder, or with another study's parent, the same store and parent are meant."""
    lab.chdir(tmp_path)
    config = {"tracking": {"uri": None}, "output_root": "here"}
    lab.setenv("ALPHAGRAD_PARENT_RUN_ID", "parent")
    sent = dispatch.parcel([Assignment(config, "title", "folder")])
    store = f"sqlite:///{tmp_path}/here/mlflow.db"
    assert sent.environment == {"ALPHAGRAD_PARENT_RUN_ID": "parent", "MLFLOW_TRACKING_URI": store}
    config["tracking"]["uri"] = "http://127.0.0.1:5000"
    lab.delenv("ALPHAGRAD_PARENT_RUN_ID")
    assert dispatch.parcel([Assignment(config, "title", "folder")]).environment == {}


def test_a_worker_gives_its_own_environment_back(lab, monkeypatch, tmp_path):
    lab.setenv("MLFLOW_TRACKING_URI", "its own")
    lab.delenv("ALPHAGRAD_PARENT_RUN_ID", raising=False)
    seen = []

    def look(assignments, line):
        seen.append([os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "ALPHAGRAD_PARENT_RUN_ID")])
        raise ValueError("ends badly")

    monkeypatch.setattr(dispatch, "run_apart", look)
    job = Assignment({}, "a job", str(tmp_path))
    (outcome,) = dispatch.train(dispatch.Parcel([job], {"MLFLOW_TRACKING_URI": "sent"}))
    dispatch.train(dispatch.Parcel([], {"ALPHAGRAD_PARENT_RUN_ID": "parent"}))
    assert seen == [["sent", None], [None, "parent"]]
    assert "ends badly" in outcome.failure
    assert os.environ["MLFLOW_TRACKING_URI"] == "its own"
    assert "ALPHAGRAD_PARENT_RUN_ID" not in os.environ
