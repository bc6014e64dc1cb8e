"""`alphagrad ui`: MLflow's server on the store in use, on this machine only."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from typing import IO

from alphagrad.common.errors import ConfigError
from alphagrad.common.interrupts import closing_runs_on_signals
from alphagrad.common.leashed import leashed
from alphagrad.common.words import cut, say
from alphagrad.lab.commands.arguments import add_store_options, parser, whole
from alphagrad.lab.evidence.results import Results
from alphagrad.lab.records.search import search
from alphagrad.lab.store.address import hide, is_server, masked, sqlite_file, store_uri
from alphagrad.lab.store.view import PREFIX, charts, page, view_key

HOST = "127.0.0.1"
START_SECONDS = 120.0
STUDIES = 5
"""So many are told, the newest first."""


def main(argv: list[str]) -> int:
    """`alphagrad ui`."""
    p = parser("ui", "Starts MLflow's server on the store in use, on this machine only.", "alphagrad ui --port 5001")
    p.add_argument("--port", type=whole, default=5000, help="default %(default)s")
    add_store_options(p)
    args = p.parse_args(argv)
    with closing_runs_on_signals():
        return serve(args.uri, args.output_root, args.experiment, args.port)


def serve(uri: str | None, output_root: str, experiment: str | None, port: int) -> int:
    """Starts the server, prints its address once it answers, and waits for it; returns its exit status, 0 after Ctrl-C.

    Raises:
        ConfigError: there is no store yet, or the port is taken.
    """
    store = store_uri(uri, output_root)
    if is_server(store):
        print(f"The store is a server of its own: {masked(store)}")
        return 0
    file = sqlite_file(store)
    if file is not None and not file.exists() and not file.is_symlink():
        raise ConfigError(f"output_root={output_root}: no store at {file}; `alphagrad run` makes one")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"--port={port}: cannot be used ({reason}); give another") from error
    studies = pages(Results(store, experiment))
    say("alphagrad: starting MLflow's server", err=True)
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    if file is not None:
        command += ["--artifacts-destination", (file.parent / "artifacts").as_uri()]
    command += ["--host", HOST, "--port", str(port)]
    # the server's jobs evaluate language models; their processes, eight of them, would have nothing to do here
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment["MLFLOW_BACKEND_STORE_URI"] = store  # where, unlike on its command line, nobody sees a password
    words = tempfile.TemporaryFile("w+")  # noqa: SIM115
    server = subprocess.Popen(leashed(command), env=environment, stdout=words, stderr=words, start_new_session=True)
    try:
        address = f"http://{HOST}:{port}"
        wait_until_up(server, address, words)
        say(f"MLflow shows {masked(store)}")
        for title, page in studies or [("", "")]:
            for line in ("", f"  {title}", f"  {address}{page}") if title else ("", f"  {address}{page}"):
                say(line)
        say("")
        say("Ctrl-C stops it.")
        try:
            return server.wait()
        except KeyboardInterrupt:
            say("stopped", err=True)
            return 0
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)


def pages(results: Results) -> list[tuple[str, str]]:
    """The newest studies and where the UI shows their charts; in a store without any, where those of its runs are."""
    found = []
    for parent in results.studies()[:STUDIES]:
        experiment, key = parent.info.experiment_id, view_key(parent.info.run_id)
        tags = results.client.get_experiment(experiment).tags
        where = page(experiment, key) if PREFIX + key in tags else charts(experiment)
        found.append((cut(parent.info.run_name, 100), where))
    return found or [("", charts(run.info.experiment_id)) for run in search(results.client)[:1]]


def wait_until_up(server: subprocess.Popen[bytes], address: str, words: IO[str]) -> None:
    """Returns when the server answers; :class:`ConfigError` with its last words if it ends or never does."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            words.seek(0)
            lines = words.read().strip().splitlines()
            raise ConfigError(f"the MLflow server stopped: {hide(lines[-1]) if lines else 'no message'}")
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=1):  # noqa: S310
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise ConfigError(f"the MLflow server did not answer at {address} within {START_SECONDS:.0f} s")
