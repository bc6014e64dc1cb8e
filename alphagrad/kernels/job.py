"""What the loops of ``loops.py`` are told: a record of addresses and numbers, which every thread reads."""

from __future__ import annotations

import ctypes

SUMS, BEYOND, UPDATE = range(3)
"""What is done to each piece."""
ENVIRONMENT = 16
"""64-bit words that hold C's fenv_t on every platform; the largest known takes 4."""


class Job(ctypes.Structure):
    """A C struct of 64-bit fields. An address is 0 where there is no such array."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in (
            "next_piece",  # of those that no thread has taken; it must stay the first field
            "task", "rows", "pieces", "number_of_pieces",
            "threads", "team", "member",  # how many threads, OpenMP's function that gathers them, and what each runs
            "params", "grads", "buffers", "skipped", "begun", "steps",  # of arrays [rows] of addresses
            "divisors", "alphas", "numbers", "rates",  # of arrays [rows], float64
            "moves", "damped",  # of arrays [rows], uint8: which rows step; which momentum buffers hold an update
            "of_pieces", "of_rows",  # of arrays [pieces] and [rows], float64: what is measured
            "get_rounding", "set_rounding", "rounding",  # C's fegetenv and fesetenv; what the caller's thread has
            "half", "half_buffers", "transform", "skip", "allowed", "nesterov",
        )),
        *((name, ctypes.c_double) for name in ("eps", "tau", "sign", "decay", "momentum", "share")),
    )  # fmt: skip
