"""A trained network, with what is needed to write it to a file and to judge the file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

Predict = Callable[[Tensor], Tensor]
"""Inputs [B, ...] → outputs [B, ...]."""


@dataclass(frozen=True)
class Network:
    """What a recipe hands over of a run."""

    module: nn.Module
    """As it is evaluated, in float32 on the CPU."""
    graph: nn.Module
    """The same for the exporter: its quantised layers say what they do in ONNX's operations."""
    narrow: Collection[str]
    """Names of buffers of the graph, int8, whose numbers have 4 bits."""
    example: Tensor
    """Inputs [1, ...]."""
    dims: Mapping[int, str]
    """Dimensions of the inputs that may have any length, and their names; the first is the batch."""
    names: tuple[str, str]
    """Of inputs and outputs."""
    score: Callable[[Predict], Mapping[str, float]]
    """What is told of a network at an evaluation: metric → value."""
    metric: str
    """The one that it is judged by."""
