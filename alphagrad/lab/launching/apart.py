"""Stacks in which one run raises: it fails alone, and the others are trained without it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from omegaconf import OmegaConf

from alphagrad.common.errors import ConfigError, StorageLost
from alphagrad.lab.config.build import build
from alphagrad.lab.records.run import reason_of
from alphagrad.lab.training.job import Assignment, Outcome
from alphagrad.lab.training.logfiles import log_files
from alphagrad.lab.training.progress import Progress
from alphagrad.lab.training.runner import StackBroken, run_stack
from alphagrad.lab.training.torchrun import Leader

LOG = logging.getLogger("alphagrad")


def run_apart(
    assignments: Sequence[Assignment], line: Progress | None = None, leader: Leader | None = None
) -> list[Outcome]:
    """:func:`run_stack`, except that what one run raises is that run's outcome alone.

    An exception does not say which run of a stack raised it. So the stack is cut in half and both halves begin
    anew, until what raises is alone: among R runs that costs the others at most log₂ R beginnings. A stack that
    needs more memory than there is finds its size in the same way.

    Raises:
        ConfigError: another process trains one of them, or their state cannot be gone on from.
        StorageLost: the store or the disk gave out; the runs can go on.
        Exception: whatever a job that is the only one raised.
    """
    with log_files([assignment.folder for assignment in assignments]):
        try:
            return run_stack(assignments, line, leader)
        except ConfigError:
            outcomes, parts = _unbuildable(assignments), 1
            if not outcomes or len(assignments) == 1:
                raise
        except StackBroken as broken:
            outcomes, parts = broken.ended, 2
            LOG.warning("a stack of %d runs ended with %s; trained anew in two", len(assignments), broken)
        except Exception:
            LOG.info("failed", exc_info=True)
            raise
    # here the traceback, which held the stack's tensors, is gone
    left = [row for row in range(len(assignments)) if row not in outcomes]
    for part in range(parts):
        rows = left[len(left) * part // parts : len(left) * (part + 1) // parts]
        if rows:
            outcomes.update(zip(rows, _part([assignments[row] for row in rows], line), strict=True))
    return [outcomes[row] for row in range(len(assignments))]


def _part(assignments: Sequence[Assignment], line: Progress | None) -> list[Outcome]:
    try:
        return run_apart(assignments, line)
    except StorageLost:
        raise  # nothing else can be trained either
    except Exception as error:
        for assignment in assignments:  # now, while the others train
            LOG.warning("%s: failed, %s", assignment.folder, reason_of(error))
        return [Outcome.failed(reason_of(error))] * len(assignments)


def _unbuildable(assignments: Sequence[Assignment]) -> dict[int, Outcome]:
    """The jobs whose own settings are wrong here, where they train, though they were right where they were checked."""
    found: dict[int, Outcome] = {}
    for row, assignment in enumerate(assignments):
        try:
            build(OmegaConf.create(assignment.config))
        except ConfigError as error:
            found[row] = Outcome.failed(reason_of(error))
    return found
