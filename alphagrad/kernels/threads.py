"""Torch's own threads, which the loops share.

Threads of ours would wait for a core: those of OpenMP, which torch computes with, spin for some milliseconds after each
operation. Measured on two cores (docs/performance.md), a step of ResNet-18 took twice as long beside them.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path

import numpy as np
import torch

PARALLEL = 1 << 18
"""From this many elements on threads pay for being called."""
LIBRARY = {"darwin": "libtorch_cpu.dylib", "win32": "torch_cpu.dll"}.get(sys.platform, "libtorch_cpu.so")
LOADED_BY = os.getpid()


@cache
def team() -> int | None:
    """The address of GOMP_parallel in the OpenMP runtime that torch uses (GCC's, LLVM's and Intel's have it)."""
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / LIBRARY))  # loaded already
        return ctypes.cast(library.GOMP_parallel, ctypes.c_void_p).value
    except (OSError, AttributeError):
        return None


def threads_for(elements: int) -> int:
    """How many threads share this many elements.

    One after a fork, which OpenMP does not survive, and one where subnormal numbers are taken as zero, which is a
    setting of each thread.
    """
    threads = torch.get_num_threads()
    if threads == 1 or elements < PARALLEL or team() is None or os.getpid() != LOADED_BY or _flushes():
        return 1
    return threads


def _flushes() -> bool:
    return float(np.float32(1e-38) * np.float32(0.1)) == 0
