"""A stack of R runs that train in one process as one tensor program.

Run k of a stack is the run with its seed alone: it draws from its own generators, its parameters are
row k of tensors [R, ...], and no operation mixes rows.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from alphagrad.harness.driver import OptimizerSpec
from alphagrad.harness.sharing import StackOptimizer
from alphagrad.harness.tensors import StackedTensors
from alphagrad.instruments.quantities import NETWORK


@dataclass(frozen=True)
class RunSpec:
    """What distinguishes a run within its stack."""

    seed: int
    optimizer: OptimizerSpec


class RunStack:
    """R runs: their seeds, generators, parameters and optimizers."""

    def __init__(self, runs: Sequence[RunSpec], device: torch.device | str = "cpu") -> None:
        if not runs:
            raise ValueError("runs: a stack needs at least one run")
        self.runs = list(runs)
        self.device = torch.device(device)

    def __len__(self) -> int:
        return len(self.runs)

    def generators(self, stream: str) -> list[np.random.Generator]:
        """One independent generator for each run, decided by its seed and the stream's name alone."""
        key = zlib.crc32(stream.encode())
        return [np.random.default_rng([run.seed, key]) for run in self.runs]

    def modules(self, build: Callable[[], nn.Module]) -> list[nn.Module]:
        """R modules, each built under its run's seed."""
        built: list[nn.Module] = []
        for rng in self.generators("initialization"):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(rng.integers(2**63)))
                built.append(build())
        return built

    def initialize(self, build: Callable[[], nn.Module]) -> StackedTensors:
        """Parameters [R, ...] of R modules, each built under its run's seed; they carry no graph."""
        rows = [dict(module.named_parameters()) for module in self.modules(build)]
        return StackedTensors.of({name: torch.stack([row[name] for row in rows]).to(self.device) for name in rows[0]})

    def optimizer(
        self,
        params: StackedTensors,
        compile: bool = False,
        undecayed: frozenset[str] = frozenset(),
        network: str = NETWORK,
    ) -> StackOptimizer:
        """The runs' optimizers over ``params``, which they update in place; AlphaGrad's step compiled if asked.

        Weight decay, where an optimizer has it, leaves the tensors named in ``undecayed`` alone. A recipe with several
        optimizers gives each ``network`` a name, which tells apart the signals that are summed up over its tensors.
        """
        return StackOptimizer([run.optimizer for run in self.runs], params, compile, undecayed, network)
