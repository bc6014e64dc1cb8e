"""How numba compiles the loops, and what lets them work on memory that torch holds."""

# mypy: disallow-untyped-defs=false, check-untyped-defs=false, disallow-untyped-decorators=false

from __future__ import annotations

import warnings

from numba import njit, types
from numba.extending import intrinsic


def _can_be_kept():
    """Whether numba finds a place on disk for what it compiles."""
    try:
        njit(cache=True)(_can_be_kept)
    except RuntimeError as error:
        warnings.warn(f"every process will compile the step anew: {error}; set NUMBA_CACHE_DIR", stacklevel=2)
        return False
    return True


how = {"nogil": True, "cache": _can_be_kept(), "error_model": "numpy"}
plain, fused = njit(**how), njit(**how, fastmath={"contract"})
summing = njit(**how, fastmath={"contract", "reassoc"})


def _pointer(numba_type):
    @intrinsic
    def at(typingctx, address):
        signature = types.CPointer(numba_type)(types.int64)

        def codegen(context, builder, signature, args):
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return signature, codegen

    return at


float32_at, uint16_at = _pointer(types.float32), _pointer(types.uint16)
int32_at, uint8_at = _pointer(types.int32), _pointer(types.uint8)


def _same_bits(source, target):
    @intrinsic
    def cast(typingctx, value):
        def codegen(context, builder, signature, args):
            return builder.bitcast(args[0], context.get_value_type(target))

        return target(source), codegen

    return cast


bits_to_float, float_to_bits = _same_bits(types.uint32, types.float32), _same_bits(types.float32, types.uint32)
