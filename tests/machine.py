"""The kind of machine that tests run on: what decides how numbers are rounded."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = ("torch", "numpy", "numba", "gymnasium", "mujoco", "scikit-learn", "tokenizers", "transformers")


def kind_of_machine() -> dict[str, str]:
    """Processor, threads and versions; on machines that are equal in these, equal work gives equal bits."""
    found = {
        "machine": platform.machine(),
        "processor": vendor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


def vendor() -> str:
    """Who made the processor: libraries of linear algebra choose by it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "unknown")


def differences(known: dict[str, str]) -> str:
    """In what this machine is of another kind than a known one; empty if it is not."""
    own = kind_of_machine()
    return ", ".join(f"{k} {own.get(k)} (there: {v})" for k, v in known.items() if own.get(k) != v)
