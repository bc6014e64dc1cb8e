"""Makes ``store_of_VERSION/``: a small store and its folders, as the alphagrad of the checkout leaves them.

    python tests/data/make_store.py

``store_of_0_1_0`` was made by the commit that its README names, and is not made again: it stands for what users have.
A version that writes something else gets a store of its own, beside the others.
"""

from __future__ import annotations

import contextlib
import io
import json
import lzma
import os
import platform
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
PLACE, HOST = "/alphagrad-test-place", "alphagrad-test-host"
"""What stands for the folder that holds all, and for this machine's name."""
BINARY = {".pt"}
BRIEF = ("recipe.total_steps=120", "recipe.eval_every=40")
LONG = ("recipe.total_steps=1000", "recipe.eval_every=500", "checkpoint.every_steps=200")
COMMON = (
    "recipe=dqn_cartpole",
    "recipe.hidden=[8]",
    "recipe.buffer_size=200",
    "recipe.batch_size=16",
    "recipe.learning_starts=50",
    "recipe.target_every=50",
    "recipe.log_every=100",
    "recipe.eval_episodes=2",
    "recipe.compile=false",
    "instruments=none",
    "tracking.flush_seconds=0.05",
    "output_root=outputs",
)
FRAGILE = "469233379"
"""What a run with seed 3 resets its environment with."""
Stop = tuple[signal.Signals, str]
"""A signal, and the files that there must be before it is sent."""


def main() -> None:
    """Trains, packs and writes the store."""
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "tests")]
    from machine import kind_of_machine

    from alphagrad import __version__

    target = HERE / f"store_of_{__version__.replace('.', '_')}"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        train(place)
        told(place)
        target.mkdir(exist_ok=True)
        pack(place, target / "store.tar.xz")
    (target / "machine.json").write_text(json.dumps(kind_of_machine(), indent=1) + "\n")


def train(place: Path) -> None:
    """Every way in which runs and studies end."""
    single(place, "finished", 0, "seed=0", *BRIEF)
    single(place, "diverged", 1, "seed=0", "optimizer=sgd", "optimizer.lr=1e30", *BRIEF)
    single(place, "failed", 1, "seed=3", "env.id=odd_recipe:Fragile-v0", *BRIEF)
    # of one job: the three go on to the same end
    single(place, "terminated", 143, "seed=1", *LONG, stop=(signal.SIGTERM, "state-*.pt"))
    single(place, "killed", -9, "seed=1", *LONG, stop=(signal.SIGKILL, "state-*.pt"))
    early = ("checkpoint.every_steps=null", "checkpoint.every_seconds=null")
    single(place, "interrupted", 130, "seed=1", *LONG, *early, stop=(signal.SIGINT, "run_id"))
    study(place, "half", 143, "seed=0,1,2", *LONG, stop=(signal.SIGTERM, "*-seed1-*/state-*.pt"))
    stacked = ("hydra/launcher=stacked", "stack.processes=1", "optimizer=adam,alphagrad", "seed=0,1")
    study(place, "stacked", 0, *stacked, *BRIEF)
    study(place, "stopped", 143, *stacked, *LONG, stop=(signal.SIGTERM, "stack-*/state-*.pt"))
    budget = ("--trials", "9", "--studies", "1", "--sampler", "random")
    words = ("optimizer=adam", "stack.processes=1", "tracking.experiment=tuned", *COMMON, *BRIEF)
    alphagrad(place, 0, "tune", *budget, *words)


def single(place: Path, name: str, status: int, *words: str, stop: Stop | None = None) -> None:
    """A run in an experiment and a folder of its own, both of this name."""
    words = (*COMMON, "optimizer=adam", f"tracking.experiment={name}", f"hydra.run.dir=outputs/{name}", *words)
    words = tuple({word.partition("=")[0]: word for word in words}.values())  # of two of one setting, the last
    alphagrad(place, status, "run", *words, stop=stop and (stop[0], f"outputs/{name}/{stop[1]}"))


def study(place: Path, name: str, status: int, *words: str, stop: Stop | None = None) -> None:
    """A study, as :func:`single`."""
    words = (*COMMON, "optimizer=adam", f"tracking.experiment={name}", f"hydra.sweep.dir=outputs/{name}", *words)
    words = tuple({word.partition("=")[0]: word for word in words}.values())
    alphagrad(place, status, "run", "-m", *words, stop=stop and (stop[0], f"outputs/{name}/{stop[1]}"))


def alphagrad(place: Path, status: int, *words: str, stop: Stop | None = None) -> str:
    """A command, run to its end or until it is stopped; what it says. It must end with this status."""
    path = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "tests/lab/odd")])
    more = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "ALPHAGRAD_TEST_FRAGILE": FRAGILE}
    command = [sys.executable, "-m", "alphagrad_cli", *words]
    with subprocess.Popen(command, cwd=place, env={**os.environ, **more}, stdout=subprocess.PIPE, text=True) as process:
        if stop is not None:
            wait_for(lambda: any(place.glob(stop[1])), process)
            process.send_signal(stop[0])
        said, _ = process.communicate()
    if process.returncode != status:
        raise RuntimeError(f"{' '.join(words)}: ended with {process.returncode}, not {status}")
    return said


def wait_for(there: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Returns once it is there."""
    while not there():
        if process.poll() is not None:
            raise RuntimeError("the run ended before it was to be stopped")
        time.sleep(0.002)


def told(place: Path) -> None:
    """Notes what ``alphagrad status`` and ``alphagrad report`` say of each experiment, on a copy of the store.

    The run that was killed by SIGKILL is RUNNING in the store until somebody looks.
    """
    import alphagrad_cli

    (place / "told").mkdir()
    store, kept = place / "outputs/mlflow.db", place / "kept.db"
    shutil.copy(store, kept)
    with closing(sqlite3.connect(store)) as opened:
        names = [name for (name,) in opened.execute("SELECT name FROM experiments") if name != "Default"]
    os.environ["COLUMNS"] = "200"
    for name in names:
        for command in ("status", "report"):
            with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.chdir(place):
                status = alphagrad_cli.main([command, "--output-root", "outputs", "--experiment", name])
            if status:
                raise RuntimeError(f"{command} of {name}: ended with {status}")
            (place / "told" / f"{name}.{command}").write_text(said.getvalue())
    kept.replace(store)


def pack(place: Path, file: Path) -> None:
    """Writes all files into an archive: the store as SQL, places as :data:`PLACE`."""
    with closing(sqlite3.connect(place / "outputs/mlflow.db")) as store:
        dump = "\n".join(store.iterdump())
    contents = {"outputs/mlflow.sql": dump.encode()}
    for path in sorted(place.rglob("*")):
        name = str(path.relative_to(place))
        left = path.suffix in {".db", ".log", ".lock"} or path.name.startswith("mlflow.db") or ".studies" in path.parts
        if path.is_file() and not left:
            contents[name] = path.read_bytes()
    names = {str(place): PLACE, str(CHECKOUT): PLACE, platform.node(): HOST}
    with lzma.open(file, "wb", preset=9 | lzma.PRESET_EXTREME) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in contents.items():
            if Path(name).suffix not in BINARY:
                for found, put in names.items():
                    content = content.replace(found.encode(), put.encode())
            elif str(place).encode() in content:
                raise RuntimeError(f"{name}: holds a place")
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    main()
