"""`alphagrad ui`: a real server on a free port, and none left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from servers import free_port

from alphagrad.lab.records.run import Tracker
from alphagrad.lab.store.address import store_uri


def of_session(session: int) -> list[int]:
    """The processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def children(pid: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGINT, 0),  # as it was told
        (signal.SIGKILL, -9),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
    ],
)
def test_ui_answers_and_goes(lab, root, number, status):
    with Tracker(store_uri(None, root), "alphagrad").run("a run", {}, {}) as tracker:
        run_id = tracker.run_id
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "alphagrad_cli", "ui", "--output-root", str(root), "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=root,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for line in process.stdout:
            if address in line:
                shown = line.strip()
                break
        else:
            pytest.fail(f"no address: {process.communicate()}")
        with urllib.request.urlopen(f"{address}/health", timeout=20) as answer:
            assert answer.read() == b"OK"
        assert shown.startswith(f"{address}/#/experiments/1/")
        with urllib.request.urlopen(f"{address}/api/2.0/mlflow/runs/get?run_id={run_id}", timeout=20) as answer:
            assert b'"a run"' in answer.read()
        (server,) = children(process.pid)
        assert len(of_session(server)) >= 2  # the server and its worker
        listening = Path("/proc/net/tcp").read_text()
        assert f"0100007F:{port:04X}" in listening  # localhost,
        assert f"00000000:{port:04X}" not in listening  # and nothing else
        process.send_signal(number)  # SIGKILL leaves nobody who could end the server
        _, said = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == status
    assert "Traceback" not in said
    deadline = time.monotonic() + 20
    while of_session(server) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not of_session(server)
    with pytest.raises(OSError, match=r"refused"):
        urllib.request.urlopen(f"{address}/health", timeout=5)


def test_a_taken_port(cli, root):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        failed = cli("ui", "--output-root", str(root), "--port", str(port))
    assert failed.status == 2
    assert failed.err.splitlines() == [failed.err.strip()]
    assert f"--port={port}" in failed.err


@pytest.mark.parametrize("port", ["-1", "70000", "x"])
def test_a_port_that_is_none(cli, root, port):
    failed = cli("ui", "--output-root", str(root), f"--port={port}")
    assert failed.status == 2
    assert "--port" in failed.err.splitlines()[-1]
    assert "Traceback" not in failed.err


def test_without_a_store(cli, tmp_path):
    failed = cli("ui", "--output-root", str(tmp_path / "none"))
    assert failed.status == 2
    assert failed.err.splitlines() == [failed.err.strip()]
    assert "none" in failed.err
    assert os.listdir(tmp_path) == []


def test_a_store_that_is_a_server_needs_none(cli):
    shown = cli("ui", "--uri", "http://127.0.0.1:9")
    assert shown.status == 0
    assert "http://127.0.0.1:9" in shown.out
