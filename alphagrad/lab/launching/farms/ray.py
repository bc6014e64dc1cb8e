"""Jobs on a Ray cluster."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveFloat, PositiveInt

from alphagrad.common import interrupts
from alphagrad.common.errors import ConfigError
from alphagrad.lab.launching.farms.base import CLOSING_SECONDS, POLL_SECONDS, Done, FarmOptions, Train


class RayOptions(FarmOptions):
    """See conf/hydra/launcher/ray.yaml."""

    address: str | None
    num_cpus: PositiveInt | None
    cpus_per_job: PositiveFloat
    gpus_per_job: float = Field(ge=0)


def run_ray(train: Train, parcels: Sequence[Any], options: RayOptions, folder: Path, done: Done) -> None:
    """A Ray cluster: a local one for the time of the study, or the one at ``address``."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ours = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
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
    for number, handler in ours.items():
        signal.signal(number, handler)  # Ray's own would end this process with a status of its own
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
            interrupts.check()  # Ray's wait turns every SystemExit, which SIGTERM raised, into one of status 1
            raise
    finally:
        ray.shutdown()
