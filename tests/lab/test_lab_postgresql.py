"""The store on a real PostgreSQL: directly, and behind an MLflow server, with several writers at once."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from servers import free_port, mlflow_server

from alphagrad.lab.store.connection import open_store

pytestmark = pytest.mark.slow
WRITERS, BATCHES = 8, 25
WRITER = f"""
import sys
from alphagrad.lab.records.run import Tracker
uri, number = sys.argv[1], int(sys.argv[2])
with Tracker(uri, "many", flush_seconds=0.02).run(f"writer {{number}}", {{"number": number}}, {{}}) as tracker:
    for step in range({BATCHES}):
        tracker.metrics(step, {{f"m{{i}}": number + step + i for i in range(40)}})
        tracker.drain()
"""


def postgres(program: str) -> str:
    """The path of a PostgreSQL program; Debian keeps the server's out of $PATH."""
    found = [*sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}")), shutil.which(program)]
    if found[-1] is None and len(found) == 1:
        pytest.skip("needs Debian's postgresql")
    return str(found[-2] if len(found) > 1 else found[-1])


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A throw-away cluster, as a user who is not root; its address."""
    if find_spec("psycopg") is None and find_spec("psycopg2") is None:
        pytest.skip("needs alphagrad[postgresql]")
    initdb, pg_ctl = postgres("initdb"), postgres("pg_ctl")
    become: list[str] = []
    # not under pytest's folder, which only its owner may enter
    folder = Path(f"/tmp/alphagrad-postgresql-{os.getpid()}")
    folder.mkdir(mode=0o700)
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        become = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    port = free_port()

    def call(*command: str) -> None:
        done = subprocess.run([*become, *command], cwd="/", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    call(initdb, "-D", f"{folder}/data", "-U", "alphagrad", "--auth=trust", "--no-sync")
    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off"
    call(pg_ctl, "-D", f"{folder}/data", "-w", "-l", f"{folder}/log", "-o", options, "start")
    try:
        call(postgres("createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "alphagrad", "mlflow")
        yield f"postgresql://alphagrad@127.0.0.1:{port}/mlflow"
    finally:
        call(pg_ctl, "-D", f"{folder}/data", "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def server(database, tmp_path_factory):
    """An MLflow server on that database, with artifacts in a folder of its own."""
    with mlflow_server(database, tmp_path_factory.mktemp("artifacts"), workers=2) as address:
        yield address


def written_by_many(uri: str) -> None:
    """Several processes write at once; every metric of every one of them must arrive."""
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, uri, str(n)]) for n in range(WRITERS)]
    assert [writer.wait(300) for writer in writers] == [0] * WRITERS
    client = open_store(uri)
    experiment = client.get_experiment_by_name("many").experiment_id
    runs = client.search_runs([experiment])
    assert sorted(r.data.params["number"] for r in runs) == [str(n) for n in range(WRITERS)]
    for run in runs:
        number = int(run.data.params["number"])
        assert run.info.status == "FINISHED"
        for i in (0, 39):
            points = client.get_metric_history(run.info.run_id, f"m{i}")
            assert sorted((p.step, p.value) for p in points) == [(s, number + s + i) for s in range(BATCHES)]
        client.delete_run(run.info.run_id)


def test_writers_on_the_database(lab, database):
    written_by_many(database)


def test_writers_on_a_server_on_the_database(lab, server):
    written_by_many(server)


@pytest.mark.parametrize("direct", [True, False])
def test_a_study(cli, tmp_path, tiny, database, request, direct):
    """A study in worker processes, with its artifacts, and its report."""
    uri = database if direct else request.getfixturevalue("server")
    experiment = f"study-{direct}"
    words = ("optimizer=adam,alphagrad", "seed=range(2)", *tiny, f"output_root={tmp_path / 'out'}")
    words += (f"tracking.uri={uri}", f"tracking.experiment={experiment}")
    shared = tmp_path / "shared"
    words += (f"tracking.artifacts={shared}",) if direct else ()
    done = cli("run", "-m", "hydra/launcher=stacked", *words)
    assert done.status == 0, done.err
    client = open_store(uri)
    runs = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    assert [r.info.status for r in runs] == ["FINISHED"] * 5
    assert len({r.data.tags.get("mlflow.parentRunId") for r in runs}) == 2  # the study's id, and none for itself
    for run in runs:
        if "seed" in run.data.tags:
            assert {a.path for a in client.list_artifacts(run.info.run_id)} == {"config.yaml", "checkpoint.pt"}
    assert len(list(shared.rglob("checkpoint.pt"))) == 4 * direct  # else the server has them
    report = cli("report", "--uri", uri, "--experiment", experiment)
    assert report.status == 0, report.err
    assert report.out.count("2/2") == 2
    assert not (tmp_path / "out" / "mlflow.db").exists()


def test_a_wrong_database_is_one_line(cli, tmp_path, database):
    wrong = database.replace("/mlflow", "/nope")
    failed = cli("run", f"tracking.uri={wrong}", f"output_root={tmp_path}")
    assert failed.status == 2
    assert len(failed.err.splitlines()) == 1
    assert "nope" in failed.err
