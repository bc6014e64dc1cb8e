"""One run on two processes: the first records, the other follows; whatever happens, both end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch
from gloo import in_processes
from servers import free_ports

from alphagrad.lab.records.run import PARENT_RUN

ODD = Path(__file__).parent / "odd"
RUN = ("run", "recipe=together", "optimizer=saturation", "device=cpu", "recipe.parallel=fsdp")


def folder_in(root: Path) -> Path:
    """The folder of the only run."""
    (file,) = root.rglob("run_id")
    return file.parent


def command(port: int, *words: str, **environment: str) -> dict:
    """A command as torchrun would start it in each of two processes, and what this one said."""
    import alphagrad_cli

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "INTERRUPTED_AT": "-1", **environment}
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = alphagrad_cli.main(words)
        except SystemExit as left:
            status = left.code or 0
    return {"status": status, "out": out.getvalue(), "err": err.getvalue()}


def all_commands(root: str, ports: list[int]) -> dict:
    """One after the other in the same two processes, whose start takes longest."""
    os.environ["ALPHAGRAD_CONF"] = str(ODD)
    for name in ("MLFLOW_TRACKING_URI", PARENT_RUN):
        os.environ.pop(name, None)  # of the shell
    sys.path.insert(0, str(ODD))
    settings = {name: (f"output_root={root}/{name}",) for name in ("wrong", "straight", "ddp", "stopped", "diverged")}
    kept = ("checkpoint.every_steps=2", "checkpoint.best=eval/return")
    interrupted = {"INTERRUPTED_AT": "3"}
    port = iter(ports)
    said = {
        "wrong": command(next(port), *RUN, *settings["wrong"], "recipe.pause=no"),
        "multirun": command(next(port), "run", "-m", *RUN[1:], *settings["wrong"], "seed=0,1"),
        "other recipe": command(next(port), "run", "recipe=dqn_cartpole", *settings["wrong"]),
        "other command": command(next(port), "ls"),
        "straight": command(next(port), *RUN, *settings["straight"], *kept),
        "ddp": command(next(port), *RUN, "recipe.parallel=ddp", *settings["ddp"], *kept),
        "diverged": command(next(port), *RUN, *settings["diverged"], "recipe.diverging_at=2"),
        "stopped": command(next(port), *RUN, *settings["stopped"], *kept, **interrupted),
    }
    if not list(Path(root, "stopped").rglob("run_id")):
        return said  # the tests tell what each process said
    said["resumed"] = command(next(port), "resume", str(folder_in(Path(root, "stopped"))))
    return said


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    root = tmp_path_factory.mktemp("torchrun")
    return root, in_processes(all_commands, root / "processes", str(root), free_ports(9), connect=False)


def parents() -> list[str]:
    """The study that a run in this process would belong to."""
    return [os.environ.get(PARENT_RUN, "none")]


@pytest.mark.long
def test_processes_have_the_environment_of_the_moment(tmp_path, monkeypatch):
    """The server that they are forked from may have been started in a study."""
    monkeypatch.delenv(PARENT_RUN, raising=False)
    assert in_processes(parents, tmp_path / "before") == [["none"]] * 2
    monkeypatch.setenv(PARENT_RUN, "later")
    assert in_processes(parents, tmp_path / "after") == [["later"]] * 2


def result_of(root: Path) -> dict:
    return torch.load(folder_in(root) / "checkpoint.pt", weights_only=True)


@pytest.mark.long
def test_a_wrong_argument_is_told_once_and_writes_nothing(two):
    root, (first, second) = two
    for name, lines in {"wrong": 1, "multirun": 1, "other recipe": 1, "other command": 1}.items():
        assert first[name]["status"] == 2, first[name]
        assert len(first[name]["err"].splitlines()) == lines, first[name]["err"]
        assert second[name] == {"status": 0, "out": "", "err": ""}
    assert "recipe.pause" in first["wrong"]["err"]
    assert "dqn_cartpole: trains in one process" in first["other recipe"]["err"]
    assert not [file for file in (root / "wrong").rglob("*") if file.is_file()]


@pytest.mark.long
def test_the_first_process_alone_records(two, store_runs):
    root, (first, second) = two
    for name in ("straight", "ddp"):
        assert first[name]["status"] == second[name]["status"] == 0, (first[name], second[name])
        assert second[name]["out"] == second[name]["err"] == ""
        (run,) = store_runs(root / name)
        assert run.info.status == "FINISHED"
        assert run.data.metrics["world"] == 2
        assert run.data.tags["processes"] == "2"
        assert "trained by 2 processes" in first[name]["err"]
        left = {file.name for file in folder_in(root / name).iterdir()}
        assert left == {"alphagrad.log", "best.pt", "checkpoint.pt", "config.yaml", "run_id"}
    best = torch.load(folder_in(root / "straight") / "best.pt", weights_only=True)
    assert {n: list(p.shape) for n, p in best["model"].items()}["0.weight"] == [5, 3]


@pytest.mark.long
def test_ddp_fsdp_and_one_process_agree(two, cli, lab, root):
    lab.setenv("ALPHAGRAD_CONF", str(ODD))
    lab.syspath_prepend(str(ODD))
    outcome = cli(*RUN, f"output_root={root}")
    assert outcome.status == 0, outcome.err
    alone = result_of(root)
    for name in ("straight", "ddp"):
        found = result_of(two[0] / name)
        for part in ("model", "average"):
            for tensor, expected in alone[part].items():
                torch.testing.assert_close(found[part][tensor], expected, rtol=1e-4, atol=1e-6, msg=f"{name} {tensor}")


@pytest.mark.long
def test_an_interrupted_run_goes_on_to_the_bit(two, store_runs):
    root, (first, second) = two
    assert first["stopped"]["status"] == second["stopped"]["status"] == 130
    last = first["stopped"]["err"].splitlines()[-1]  # the state is that of the iteration in which the signals came
    assert re.fullmatch(r"alphagrad: stopped at step 4; `alphagrad resume \S+` goes on", last), last
    assert first["resumed"]["status"] == second["resumed"]["status"] == 0, (first["resumed"], second["resumed"])
    (run,) = store_runs(root / "stopped")
    assert run.info.status == "FINISHED"
    straight, resumed = result_of(root / "straight"), result_of(root / "stopped")
    assert straight["optimizer"].keys() == resumed["optimizer"].keys()
    for part in ("model", "average"):
        assert all(torch.equal(straight[part][n], resumed[part][n]) for n in straight[part])
    for name, slots in straight["optimizer"].items():
        assert all(torch.equal(value, resumed["optimizer"][name][key]) for key, value in slots.items())


@pytest.mark.long
def test_a_diverged_run_is_told_once(two, store_runs):
    root, (first, second) = two
    assert first["diverged"]["status"] == 1
    assert "diverged at step 2: on demand" in first["diverged"]["err"]
    assert second["diverged"] == {"status": 0, "out": "", "err": ""}
    (run,) = store_runs(root / "diverged")
    assert run.info.status == "FAILED"


@pytest.mark.parametrize(
    ("word", "rank", "status", "said"), [("--help", 0, 0, "out"), ("ls", 0, 2, "err"), ("ls", 1, 0, "")]
)
def test_a_process_ends_with_its_work(tmp_path, word, rank, status, said):
    """What the interpreter would do afterwards, where threads of the connection can abort it, is left out."""
    script = "import atexit, os, alphagrad_cli; atexit.register(os.abort); raise SystemExit(alphagrad_cli.script())"
    under = {"WORLD_SIZE": "2", "RANK": str(rank)}
    call = [sys.executable, "-c", script, word]
    ended = subprocess.run(call, check=False, env=os.environ | under, capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == status, ended
    assert (bool(ended.stdout), bool(ended.stderr)) == (said == "out", said == "err")


@pytest.fixture
def torchrun(lab, root, started):
    """``torchrun("seed=1")`` → its process."""

    def call(*words: str) -> subprocess.Popen:
        started.append(start(root, *words))
        return started[-1]

    return call


def start(root: Path, *words: str) -> subprocess.Popen:
    script = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "ALPHAGRAD_CONF": str(ODD), "PYTHONPATH": str(ODD), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*script, "-m", "alphagrad_cli", *RUN, f"output_root={root}", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=root,
        start_new_session=True,
    )


@pytest.mark.slow
def test_under_torchrun(torchrun, root, store_runs):
    process = torchrun()
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    told, where = out.splitlines()
    assert told.startswith("together saturation")
    assert where.startswith("in ")
    (run,) = store_runs(root)
    assert run.info.status == "FINISHED"


@pytest.mark.slow
def test_torchrun_ends_on_a_wrong_argument(torchrun, root, store_runs):
    process = torchrun("recipe.pause=no")
    _, err = process.communicate(timeout=180)
    assert process.returncode == 1  # torchrun's own, with a report; the worker's is in it
    assert len([line for line in err.splitlines() if line.startswith("alphagrad: ")]) == 1
    assert "exitcode  : 2" in err
    assert store_runs(root) == []


@pytest.mark.slow
@pytest.mark.parametrize("whole_group", [True, False])
def test_an_interrupt_ends_all_processes(torchrun, root, store_runs, whole_group):
    """Ctrl-C reaches the whole process group; a scheduler's SIGTERM torchrun alone."""
    process = torchrun("recipe.total_steps=1000000", "recipe.pause=0.01")
    deadline = time.monotonic() + 300
    while not list(root.rglob("run_id")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(3)
    if whole_group:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.terminate()
    process.communicate(timeout=60)
    assert process.returncode != 0
    (run,) = store_runs(root)
    assert run.info.status == "KILLED"
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
