"""One run on several processes under torchrun: DDP, or FSDP2 with sharded parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch.distributed as dist
from torch import Tensor, nn

Kind = Literal["ddp", "fsdp"]


def processes() -> int:
    """How many processes are connected to train this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


@dataclass(frozen=True)
class Parallel:
    """This process's place among those of a run."""

    rank: int = 0
    processes: int = 1
    kind: Kind | None = None
    """None for a run in one process."""

    @property
    def share(self) -> tuple[int, int]:
        """(rank, processes): which part of a batch is this process's."""
        return self.rank, self.processes

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over the processes.

        FSDP gathers one part at a time: a layer of a transformer (:func:`blocks`), a child, the rest.
        """
        if self.kind == "ddp":
            return nn.parallel.DistributedDataParallel(module)
        if self.kind == "fsdp":
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            mesh = init_device_mesh(next(module.parameters()).device.type, (self.processes,))
            # parameters start equal everywhere: every process built the module under the run's seed
            for part in [*blocks(module), *module.children()]:
                if any(True for _ in part.parameters()):
                    fully_shard(part, mesh=mesh)
            fully_shard(module, mesh=mesh)
        return module

    @contextmanager
    def synchronized(self, module: nn.Module, last: bool) -> Iterator[None]:
        """Context of a backward pass; gradients meet in the ``last`` of those that are accumulated."""
        if self.kind == "ddp" and not last:
            assert isinstance(module, nn.parallel.DistributedDataParallel)
            with module.no_sync():
                yield
            return
        if self.kind == "fsdp":
            module.set_requires_gradient_sync(last)  # type: ignore[operator]
        yield

    def agree(self, tensors: Iterable[Tensor]) -> None:
        """Gives every process the first one's tensors, which are not sharded."""
        if self.kind is not None:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def mean(self, measures: Tensor) -> Tensor:
        """The mean over the processes."""
        if self.kind is not None:
            dist.all_reduce(measures)
            measures /= self.processes
        return measures


def blocks(module: nn.Module) -> list[nn.Module]:
    """The members of module lists, the innermost first: the layers of which deep models are made."""
    lists = [m for m in module.modules() if isinstance(m, nn.ModuleList)]
    return [part for found in reversed(lists) for part in found]


def parallel_of(kind: Kind) -> Parallel:
    """This process's place among those that torchrun started, which are connected; alone without torchrun."""
    if processes() == 1:
        return Parallel()
    return Parallel(dist.get_rank(), dist.get_world_size(), kind)


def own_part(tensor: Tensor) -> Tensor:
    """This process's shard of a tensor, all of one that is not sharded."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


def sharded_as(value: Any, like: Tensor) -> Any:
    """A whole tensor of the shape of ``like``, sharded as it is; anything else as it stands."""
    if not hasattr(like, "full_tensor"):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(like, DTensor) and isinstance(value, Tensor) and value.shape == like.shape:
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value
