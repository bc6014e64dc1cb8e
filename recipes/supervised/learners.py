"""Which learner trains the runs."""

from __future__ import annotations

from alphagrad.harness.stack import RunStack

from .learner import Learner, Training
from .looped import LoopLearner
from .parallel import Parallel
from .precision import Numbers
from .stacked import StackLearner


def learner_of(stack: RunStack, training: Training, numbers: Numbers, parallel: Parallel, vmap: bool) -> Learner:
    """The runs as one tensor program (``vmap``) or one after the other."""
    return StackLearner(stack, training) if vmap else LoopLearner(stack, training, numbers, parallel)
