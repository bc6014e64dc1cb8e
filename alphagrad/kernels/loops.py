"""The loops over pieces and rows, compiled by numba: one set of machine code for tensors of every size.

Rows and pieces are those of ``table.py``. Tensors come as addresses, so that one call serves hundreds of them. Each
function takes the address of a :class:`alphagrad.kernels.job.Job`.
"""

# mypy: disallow-untyped-defs=false, check-untyped-defs=false, disallow-untyped-decorators=false
from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import carray, cfunc, njit, types

from alphagrad.kernels.coverage import TANH
from alphagrad.kernels.elements import (
    BLOCK,
    ONE,
    accumulate,
    bend,
    count_beyond,
    descend,
    f32,
    factors,
    read,
    sum_of_squares,
    tanh_accumulate,
    tanh_descend,
    write,
)
from alphagrad.kernels.job import BEYOND, ENVIRONMENT, SUMS, UPDATE
from alphagrad.kernels.memory import (
    SOURCES,
    call_environment,
    call_member,
    call_team,
    float32_at,
    float64s,
    int32_at,
    int64s,
    job_at,
    kept,
    plain,
    take_a_number,
    uint8_at,
    uint8s,
)


class Loops(NamedTuple):
    """What Python calls with a job's address, and what every thread of a team runs."""

    step: Any
    """All of a step whose norms are those of single tensors."""
    measure: Any
    """Σg² of each row, or how many of its elements saturate."""
    update: Any
    """The step from the divisors of the rows."""
    member: Any
    """A C function that does the job's task to piece after piece, at its ``address``."""


@cache
def loops() -> Loops:
    """The loops, compiled or taken from the disk."""
    sources = SOURCES

    @njit(**kept)
    def step(address):
        if sources:
            measure_rows(address)
            become_divisors(address)
            update_rows(address)

    @njit(**kept)
    def measure(address):
        if sources:
            measure_rows(address)

    @njit(**kept)
    def update(address):
        if sources:
            update_rows(address)

    def member(address):
        if sources:
            as_caller(address)

    return Loops(step, measure, update, cfunc(types.void(types.int64), **kept)(member))


@plain
def measure_rows(address):
    """Does the job's task, and adds up what it found of pieces, in their order."""
    over_pieces(address)
    job = carray(job_at(address), (1,))[0]
    of_pieces, of_rows = float64s(job.of_pieces, job.number_of_pieces), float64s(job.of_rows, job.rows)
    pieces = int64s(job.pieces, 3 * job.number_of_pieces)
    of_rows[:] = 0.0
    for k in range(job.number_of_pieces):
        of_rows[pieces[3 * k]] += of_pieces[k]


@plain
def become_divisors(address):
    """Sums of squares become ‖g‖ + ε; a zero gradient is divided by 1."""
    job = carray(job_at(address), (1,))[0]
    squares = float64s(job.of_rows, job.rows)
    for row in range(job.rows):
        squares[row] = np.sqrt(squares[row]) + job.eps if squares[row] != 0 else 1.0


@plain
def update_rows(address):
    """The step from the divisors of the rows."""
    job = carray(job_at(address), (1,))[0]
    judge(job)
    job.task = UPDATE
    over_pieces(address)
    settle(job)


@plain
def over_pieces(address):
    """Does the job's task, on torch's threads if there are several."""
    job = carray(job_at(address), (1,))[0]
    job.next_piece = 0
    if job.threads > 1:
        call_environment(job.get_rounding, (job.rounding,))
        call_team(job.team, (job.member, address, job.threads, 0))
    else:
        call_member(job.member, (address,))


@plain
def as_caller(address):
    """:func:`do_pieces`; a thread of a team rounds, and takes subnormal numbers, as the one that gathered it."""
    job = carray(job_at(address), (1,))[0]
    if job.threads == 1:
        do_pieces(address)
        return
    own = np.empty(ENVIRONMENT, np.int64)
    call_environment(job.get_rounding, (own.ctypes.data,))
    call_environment(job.set_rounding, (job.rounding,))
    do_pieces(address)
    call_environment(job.set_rounding, (own.ctypes.data,))


@plain
def do_pieces(address):
    """Does the job's task to piece after piece, until other threads have taken the rest."""
    job = carray(job_at(address), (1,))[0]
    g_wide, p_wide = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    v_wide, scratch = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    pieces = int64s(job.pieces, 3 * job.number_of_pieces)
    while True:
        k = take_a_number(address)
        if k >= job.number_of_pieces:
            return
        row, start, stop = pieces[3 * k], pieces[3 * k + 1], pieces[3 * k + 2]
        if job.task == SUMS:
            float64s(job.of_pieces, job.number_of_pieces)[k] = square_sum(job, row, start, stop, g_wide)
        elif job.task == BEYOND:
            float64s(job.of_pieces, job.number_of_pieces)[k] = beyond(job, row, start, stop, g_wide)
        elif uint8s(job.moves, job.rows)[row]:
            update_piece(job, row, start, stop, g_wide, p_wide, v_wide, scratch)


@plain
def square_sum(job, row, start, stop, scratch):
    """Σg² of a piece, in float64: neither 1e-38 nor 1e38 leaves its range."""
    g = int64s(job.grads, job.rows)[row]
    if not job.half:
        return sum_of_squares(carray(float32_at(g + 4 * start), (stop - start,)))
    total = 0.0
    for low in range(start, stop, BLOCK):
        total += sum_of_squares(read(g, low, min(BLOCK, stop - low), True, scratch))
    return total


@plain
def beyond(job, row, start, stop, scratch):
    """How many elements of a piece saturate: |α·ĝᵢ| > τ."""
    g = int64s(job.grads, job.rows)[row]
    before, scale = factors(float64s(job.divisors, job.rows)[row], float64s(job.alphas, job.rows)[row])
    count = 0.0
    for low in range(start, stop, BLOCK):
        x = read(g, low, min(BLOCK, stop - low), job.half != 0, scratch)
        count += count_beyond(x, before, scale, f32(job.tau))
    return count


@plain
def update_piece(job, row, start, stop, g_wide, p_wide, v_wide, scratch):
    """The step of a piece."""
    p_half, v_half, momentum, nesterov = job.half != 0, job.half_buffers != 0, job.momentum != 0, job.nesterov != 0
    p, g = int64s(job.params, job.rows)[row], int64s(job.grads, job.rows)[row]
    v = int64s(job.buffers, job.rows)[row] if momentum else 0
    divisor, number = float64s(job.divisors, job.rows)[row], float64s(job.numbers, job.rows)[row]
    before, scale = factors(divisor, float64s(job.alphas, job.rows)[row])
    _, unit = factors(divisor, 1.0)
    rate = float64s(job.rates, job.rows)[row]
    keep = f32(1.0 - job.decay * rate)
    fresh = f32(job.share) if momentum and uint8s(job.damped, job.rows)[row] else ONE
    gain = fresh * f32(job.sign) * f32(number)
    for low in range(start, stop, BLOCK):
        n = min(BLOCK, stop - low)
        grads, x = read(g, low, n, p_half, g_wide), read(p, low, n, p_half, p_wide)
        if job.transform == TANH and before == ONE and not nesterov:
            if momentum:
                kept = read(v, low, n, v_half, v_wide)
                tanh_accumulate(x, grads, kept, scale, f32(job.momentum), gain, keep, f32(rate))
                write(v, low, n, v_half, kept)
            else:
                tanh_descend(x, grads, scale, keep, f32(rate) * gain)
        else:
            u = scratch[:n]
            bend(job.transform, grads, u, before, scale, unit, number)
            if momentum:
                kept = read(v, low, n, v_half, v_wide)
                accumulate(kept, u, f32(job.momentum), fresh, f32(job.sign), nesterov)
                write(v, low, n, v_half, kept)
            descend(x, u, keep, f32(rate if momentum else rate * job.sign))
        write(p, low, n, p_half, x)


@plain
def judge(job):
    """Which rows take the step; counts the others."""
    divisors, moves = float64s(job.divisors, job.rows), uint8s(job.moves, job.rows)
    for row in range(job.rows):
        finite = not job.skip or np.isfinite(divisors[row])
        moves[row] = finite and job.allowed
        if job.allowed and not finite:
            carray(int32_at(int64s(job.skipped, job.rows)[row]), (1,))[0] += 1
        if job.begun:
            uint8s(job.damped, job.rows)[row] = carray(uint8_at(int64s(job.begun, job.rows)[row]), (1,))[0]


@plain
def settle(job):
    """Counts the step in every row that took it."""
    moves = uint8s(job.moves, job.rows)
    for row in range(job.rows):
        if moves[row]:
            if job.steps:
                carray(float32_at(int64s(job.steps, job.rows)[row]), (1,))[0] += f32(1)
            if job.begun:
                carray(uint8_at(int64s(job.begun, job.rows)[row]), (1,))[0] = 1
