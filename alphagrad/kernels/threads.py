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

    One after a fork, which OpenMP does not survive.
    """
    threads = torch.get_num_threads()
    if threads == 1 or elements < PARALLEL or team() is None or rounding() is None or os.getpid() != LOADED_BY:
        return 1
    return threads


@cache
def rounding() -> tuple[int, int] | None:
    """The addresses of C's fegetenv and fesetenv: whether subnormal numbers are zero is a setting of each thread."""
    try:
        library = ctypes.CDLL(None)  # what Python is linked to
        found = [ctypes.cast(function, ctypes.c_void_p).value for function in (library.fegetenv, library.fesetenv)]
    except (OSError, AttributeError, TypeError):
        return None
    return (found[0], found[1]) if found[0] and found[1] else None
