"""What the machine does during a run: MLflow's system metrics, where its environment variable asks for them."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

LOG = logging.getLogger("alphagrad")
ASKED = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
PREFIX = "system/"
"""Of a metric that MLflow shows as the machine's."""
SECONDS = 10.0
"""Between measurements, unless ``MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL`` says it."""


@contextmanager
def measured(send: Callable[[int, Mapping[str, float]], None]) -> Iterator[None]:
    """Measures the machine from a thread while the block runs, if ``MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING`` is true.

    Args:
        send: takes the number of a measurement, counted from 0, and its metrics.
    """
    if ASKED not in os.environ:  # else a run that is recorded nowhere would import MLflow
        yield
        return
    from mlflow import environment_variables as mlflows

    if not mlflows.MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
        yield
        return
    seconds = mlflows.MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or SECONDS
    over = threading.Event()
    thread = threading.Thread(target=_measure, args=(_monitors(), seconds, over, send), daemon=True, name="machine")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _measure(monitors: list[Any], seconds: float, over: threading.Event, send: Callable[[int, Any], None]) -> None:
    number = 0
    while True:
        last = over.wait(seconds)  # the end is measured, too, so that no run is too short
        found: dict[str, float] = {}
        for monitor in monitors:
            monitor.collect_metrics()
            found |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        send(number, {PREFIX + name: value for name, value in found.items()})
        number += 1
        if last:
            return


def _monitors() -> list[Any]:
    """MLflow's own; that of GPUs where it finds any."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    found = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    try:
        found.append(GPUMonitor())
    except Exception as error:  # whatever the driver says
        LOG.debug("no GPU is measured (%s)", error)
    return found
