"""How numba compiles the loops, and what lets them work on memory that torch holds."""

# mypy: disallow-untyped-defs=false, check-untyped-defs=false, disallow-untyped-decorators=false

from __future__ import annotations

import warnings
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, from_dtype, njit, types
from numba.extending import intrinsic

from alphagrad.kernels.job import Job


def _can_be_kept():
    """Whether numba finds a place on disk for what it compiles."""
    try:
        njit(cache=True)(_can_be_kept)
    except RuntimeError as error:
        warnings.warn(f"every process will compile the step anew: {error}; set NUMBA_CACHE_DIR", stacklevel=2)
        return False
    return True


how: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
plain, fused = njit(**how), njit(**how, fastmath={"contract"})
summing = njit(**how, fastmath={"contract", "reassoc"})
kept: dict[str, Any] = {"cache": _can_be_kept(), **how}
"""For what Python and C call. On disk stands what was made of it and of all that it calls: see :data:`SOURCES`."""
SOURCES = sha256(b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()
"""What the machine code is made of. numba looks at a function's own file, and at what it closes over: what closes over
this is made anew when any of the files has changed."""


def _pointer(numba_type):
    @intrinsic
    def at(typingctx, address):
        signature = types.CPointer(numba_type)(types.int64)

        def codegen(context, builder, signature, args):
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return signature, codegen

    return at


def _array(numba_type):
    at = _pointer(numba_type)

    @plain
    def array(address, n):
        return carray(at(address), (n,))

    return array


float32_at, uint16_at = _pointer(types.float32), _pointer(types.uint16)
int32_at, uint8_at = _pointer(types.int32), _pointer(types.uint8)
int64s, float64s, uint8s = _array(types.int64), _array(types.float64), _array(types.uint8)
job_at = _pointer(from_dtype(np.dtype(Job)))


@intrinsic
def take_a_number(typingctx, address):
    """The int64 at an address, which is one more afterwards; no two threads get the same."""

    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", pointer, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(types.int64), codegen


def _function(*bits_of):
    """Calls the C function at an address, which returns nothing."""

    @intrinsic
    def call(typingctx, address, arguments):
        signature = types.none(types.int64, types.UniTuple(types.int64, len(bits_of)))

        def codegen(context, builder, signature, args):
            words = [ir.IntType(bits) for bits in bits_of]
            given = [builder.extract_value(args[1], k) for k in range(len(words))]
            narrowed = [builder.trunc(x, w) if w.width < 64 else x for x, w in zip(given, words, strict=True)]
            kind = ir.FunctionType(ir.VoidType(), words)
            builder.call(builder.inttoptr(args[0], kind.as_pointer()), narrowed)
            return context.get_dummy_value()

        return signature, codegen

    return call


call_member = _function(64)
"""A function of a job's address."""
call_environment = _function(64)
"""fegetenv or fesetenv of an address."""
call_team = _function(64, 64, 32, 32)
"""GOMP_parallel of such a function, a job's address, how many threads, and 0: as GCC calls ``#pragma omp parallel``."""


def _same_bits(source, target):
    @intrinsic
    def cast(typingctx, value):
        def codegen(context, builder, signature, args):
            return builder.bitcast(args[0], context.get_value_type(target))

        return target(source), codegen

    return cast


bits_to_float, float_to_bits = _same_bits(types.uint32, types.float32), _same_bits(types.float32, types.uint32)
