"""Jobs in processes of this machine, which are joblib's."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt, field_validator

from alphagrad.common.interrupts import end_with
from alphagrad.lab.launching.farms.base import CLOSING_SECONDS, POLL_SECONDS, Done, FarmOptions, Train


class JoblibOptions(FarmOptions):
    """See conf/hydra/launcher/joblib.yaml."""

    n_jobs: int = Field(ge=-1)
    threads: PositiveInt

    @field_validator("n_jobs")
    @classmethod
    def _some(cls, n_jobs: int) -> int:
        if n_jobs == 0:
            raise ValueError("must be -1 (one for each core) or at least 1")
        return n_jobs


def run_joblib(train: Train, parcels: Sequence[Any], options: JoblibOptions, folder: Path, done: Done) -> None:
    """Processes of this machine; ``n_jobs`` -1 is one for each core.

    They are those of joblib's default backend, loky: ``joblib.Parallel`` itself would kill the workers on an
    exception before they could close their runs, and with one job train in this process.
    """
    import joblib
    from joblib.externals.loky import get_reusable_executor, wait
    from joblib.externals.loky.process_executor import BrokenProcessPool

    count = min(joblib.cpu_count() if options.n_jobs == -1 else options.n_jobs, len(parcels))
    pinned = {f"{library}_NUM_THREADS": str(options.threads) for library in ("OMP", "MKL", "OPENBLAS")}
    waiting = list(range(len(parcels)))
    while waiting:
        workers = get_reusable_executor(count, reuse=False, env=pinned, initializer=_deaf, initargs=(os.getpid(),))
        running: dict[Any, int] = {}
        broken = False
        try:
            while running or (waiting and not broken):
                while waiting and not broken and len(running) < count:
                    index = waiting.pop(0)
                    running[workers.submit(train, parcels[index])] = index
                for future in wait(running, POLL_SECONDS, "FIRST_COMPLETED").done:
                    try:
                        result = future.result()
                    except BrokenProcessPool:
                        # one dead worker takes the others with it; what waits goes to new ones
                        broken, result = True, "a worker process was killed; joblib ends the others with it"
                    done(running.pop(future), result)
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()  # SIGTERM: the worker closes its runs
            wait(running, CLOSING_SECONDS)
            raise
        finally:
            workers.shutdown(kill_workers=True)


def _deaf(main: int) -> None:
    """In a new worker: signals concern it only while it trains; an idle one that dies takes the others along."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    end_with(lambda: os.getppid() == main)
