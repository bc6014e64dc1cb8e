"""Jobs of a SLURM cluster, or of this machine, by submitit."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from alphagrad.common.errors import ConfigError
from alphagrad.lab.launching.farms.base import CLOSING_SECONDS, POLL_SECONDS, Done, FarmOptions, Train

SLURM_SECONDS = 5.0
"""Between questions to SLURM's controller."""
LATE_SECONDS = 30.0
"""How long after SLURM has ended a job its result may take to appear on a shared file system."""


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
