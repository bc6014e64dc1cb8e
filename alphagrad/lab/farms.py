"""Where jobs can be sent: processes of this machine (joblib), submitit (local or SLURM), Ray.

A farm is a function ``run(train, parcels, options, folder, done)``: it has ``train(parcel)`` called in a worker
for every parcel, and calls ``done(index, result)`` for each as it ends, with a text instead of the result where
the worker died. It goes on with the others then. Interrupted, it tells the workers to close their runs (SIGTERM,
or what the farm has in its place), waits for that and raises. The libraries are used directly, not through
Hydra's launcher plugins: hydra-ray-launcher wants cloudpickle < 3, which current joblib refuses, and none of the
plugins tells a dead worker from a failed job.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from alphagrad.lab.errors import ConfigError
from alphagrad.lab.interrupts import follow_parent
from alphagrad.lab.recipe import Settings

Train = Callable[[Any], Any]
Done = Callable[[int, Any], None]

CLOSING_SECONDS = 60.0
"""How long interrupted workers get to close their runs."""
POLL_SECONDS = 0.3
SLURM_SECONDS = 5.0
"""Between questions to SLURM's controller."""
LATE_SECONDS = 30.0
"""How long after SLURM has ended a job its result may take to appear on a shared file system."""


class FarmOptions(Settings):
    """What every farm has."""

    choice: str
    """The name under ``hydra/launcher``."""
    runs_per_job: PositiveInt

    def check_here(self) -> None:
        """Raises :class:`ConfigError` if the farm lacks what it needs on this machine."""


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
        workers = get_reusable_executor(count, reuse=False, env=pinned, initializer=_deaf)
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


def _deaf() -> None:
    """In a new worker: signals concern it only while it trains; an idle one that dies takes the others along."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    follow_parent()


class SubmititOptions(FarmOptions):
    """See conf/hydra/launcher/submitit_slurm.yaml."""

    cluster: Literal["local", "slurm"]
    timeout_min: PositiveInt
    cpus_per_task: PositiveInt
    gpus_per_node: NonNegativeInt
    mem_gb: PositiveFloat | None
    partition: str | None
    account: str | None
    qos: str | None
    array_parallelism: PositiveInt
    setup: list[str]
    additional_parameters: dict[str, Any]

    def check_here(self) -> None:
        if self.cluster == "slurm" and shutil.which("sbatch") is None:
            raise ConfigError(f"hydra/launcher={self.choice}: there is no sbatch here; run this on a SLURM login node")


def run_submitit(train: Train, parcels: Sequence[Any], options: SubmititOptions, folder: Path, done: Done) -> None:
    """A SLURM job array, or processes of this machine under submitit."""
    import submitit

    logging.getLogger("submitit").setLevel(logging.ERROR)
    slurm = options.cluster == "slurm"
    executor = submitit.AutoExecutor(folder=folder / "submitit", cluster=options.cluster)
    wanted = {
        "name": "alphagrad",
        "timeout_min": options.timeout_min,
        "cpus_per_task": options.cpus_per_task,
        "gpus_per_node": options.gpus_per_node or None,
        "mem_gb": options.mem_gb,
        "slurm_partition": options.partition,
        "slurm_account": options.account,
        "slurm_qos": options.qos,
        "slurm_array_parallelism": options.array_parallelism,
        "slurm_setup": options.setup or None,
        "slurm_additional_parameters": options.additional_parameters or None,
    }
    executor.update_parameters(**{name: value for name, value in wanted.items() if value is not None})
    waiting = list(range(len(parcels)))
    running: dict[int, Any] = {}
    # SLURM queues by itself; submitit's local executor would start everything at once
    room = len(parcels) if slurm else options.array_parallelism
    queue_ = _SlurmQueue()
    try:
        while waiting or running:
            batch = waiting[: room - len(running)]
            if batch:
                with _ignoring_interrupts():
                    jobs = executor.map_array(train, [parcels[index] for index in batch])
                running.update(zip(batch, jobs, strict=True))
                del waiting[: len(batch)]
            for index, job in list(running.items()):
                if (queue_.ended(job, running.values()) if slurm else job.done()) or _has_result(job):
                    del running[index]
                    done(index, _result(job))
            time.sleep(POLL_SECONDS)
    except BaseException:
        for job in running.values():
            if slurm:
                job.cancel()  # SIGTERM, and SIGKILL after the cluster's KillWait
            else:
                with suppress(ProcessLookupError):
                    os.kill(int(job.job_id), signal.SIGTERM)  # its cancel() would leave a second until SIGKILL
        deadline = time.monotonic() + CLOSING_SECONDS
        while time.monotonic() < deadline and not all(
            _has_result(job) or (queue_.gone(job, running.values()) if slurm else job.done())
            for job in running.values()
        ):
            time.sleep(POLL_SECONDS)
        raise


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """What is started meanwhile ignores Ctrl-C, which reaches a terminal's every process.

    submitit's local controller kills a job a second after that; without it the job hears from us.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _has_result(job: Any) -> bool:
    return bool(job.paths.result_pickle.exists())


def _result(job: Any) -> Any:
    """What ``train`` returned, or why there is nothing."""
    if _has_result(job):
        try:
            return job.results()[0]
        except Exception as error:
            return f"{type(error).__name__}: {' '.join(str(error).split())[-500:]} (log: {job.paths.stderr})"
    return f"its process ended without a result: killed, out of memory or out of time (log: {job.paths.stderr})"


class _SlurmQueue:
    """Which jobs SLURM still has, by squeue: sacct needs an accounting database that small clusters lack."""

    def __init__(self) -> None:
        self._asked = 0.0
        self._active: set[str] = set()
        self._gone_since: dict[str, float] = {}

    def gone(self, job: Any, all_jobs: Any) -> bool:
        """Whether SLURM has ended the job."""
        now = time.monotonic()
        if now - self._asked >= SLURM_SECONDS or not self._asked:
            arrays = {str(j.job_id).partition("_")[0] for j in all_jobs}
            command = ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={','.join(sorted(arrays))}"]
            asked = subprocess.run(command, capture_output=True, text=True, check=False)
            if asked.returncode == 0:
                self._active = set(asked.stdout.split())
            elif "Invalid job id" in asked.stderr:
                self._active = set()  # forgotten altogether
            else:
                self._active = {str(j.job_id) for j in all_jobs}  # no answer: nothing is known to have ended
            self._asked = now
        return str(job.job_id) not in self._active

    def ended(self, job: Any, all_jobs: Any) -> bool:
        """Whether SLURM has ended the job and a result would have appeared by now."""
        if not self.gone(job, all_jobs):
            self._gone_since.pop(job.job_id, None)
            return False
        return time.monotonic() - self._gone_since.setdefault(job.job_id, time.monotonic()) > LATE_SECONDS


class RayOptions(FarmOptions):
    """See conf/hydra/launcher/ray.yaml."""

    address: str | None
    num_cpus: PositiveInt | None
    cpus_per_job: PositiveFloat
    gpus_per_job: float = Field(ge=0)


def run_ray(train: Train, parcels: Sequence[Any], options: RayOptions, folder: Path, done: Done) -> None:
    """A Ray cluster: a local one for the time of the study, or the one at ``address``."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # leave CUDA_VISIBLE_DEVICES to those who ask
    import ray
    from ray.exceptions import RayError

    where: dict[str, Any] = {"address": options.address}
    if options.address is None:
        where = {"address": "local", "num_cpus": options.num_cpus, "_node_ip_address": "127.0.0.1"}
    try:
        ray.init(**where, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"hydra.launcher.address={options.address}: Ray cannot be reached ({reason})") from error
    try:
        # a job that is tried again would be a second run in the store
        send = ray.remote(train).options(num_cpus=options.cpus_per_job, num_gpus=options.gpus_per_job, max_retries=0)
        running = {send.remote(parcel): index for index, parcel in enumerate(parcels)}
        try:
            while running:
                ready, _ = ray.wait(list(running), timeout=POLL_SECONDS)
                for job in ready:
                    try:
                        result = ray.get(job)
                    except RayError as error:
                        result = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
                    done(running.pop(job), result)
        except BaseException:
            for job in running:
                ray.cancel(job)  # KeyboardInterrupt in the worker
            ray.wait(list(running), num_returns=len(running), timeout=CLOSING_SECONDS)
            raise
    finally:
        ray.shutdown()


@dataclass(frozen=True)
class Farm:
    """A farm, its options, and the package and extra it needs."""

    run: Callable[..., None]
    options: type[FarmOptions]
    package: str


FARMS = {
    "joblib": Farm(run_joblib, JoblibOptions, "joblib"),
    "submitit": Farm(run_submitit, SubmititOptions, "submitit"),
    "ray": Farm(run_ray, RayOptions, "ray"),
}
