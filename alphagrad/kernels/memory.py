"""How numba compiles the loops, and what lets them work on memory that torch holds."""

# mypy: disallow-untyped-defs=false, check-untyped-defs=false, disallow-untyped-decorators=false

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

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


how = {"nogil": True, "cache": _can_be_kept(), "error_model": "numpy"}


def sources(folder=Path(__file__).parent):
    """A hash of all files that go into the machine code."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))).hexdigest()


SOURCES = sources()


def renewed(compiled):
    """A compiled function whose kept machine code is dropped when any of the sources has changed.

    Numba looks at a function's own file alone: code kept from before a change of ``job.py`` would take a number for an
    address.
    """
    if how["cache"]:
        compiled._cache._cache_file._source_stamp = SOURCES
    return compiled


def _compiler(**more):
    return lambda function: renewed(njit(**how, **more)(function))


plain, fused, summing = _compiler(), _compiler(fastmath={"contract"}), _compiler(fastmath={"contract", "reassoc"})


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


@intrinsic
def call_team(typingctx, team, member, job, threads):
    """``team(member, job, threads, 0)``, as GCC calls what follows ``#pragma omp parallel``."""

    def codegen(context, builder, signature, args):
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [word, word, ir.IntType(32), ir.IntType(32)])
        count = builder.trunc(args[3], ir.IntType(32))
        function = builder.inttoptr(args[0], kind.as_pointer())
        builder.call(function, [args[1], args[2], count, ir.Constant(ir.IntType(32), 0)])
        return context.get_dummy_value()

    return types.none(types.int64, types.int64, types.int64, types.int64), codegen


def _same_bits(source, target):
    @intrinsic
    def cast(typingctx, value):
        def codegen(context, builder, signature, args):
            return builder.bitcast(args[0], context.get_value_type(target))

        return target(source), codegen

    return cast


bits_to_float, float_to_bits = _same_bits(types.uint32, types.float32), _same_bits(types.float32, types.uint32)
