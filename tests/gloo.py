"""Functions run in several processes that gloo connects, as torchrun would run them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing


def in_processes(work: Callable[..., Any], folder: Path, *arguments: Any, processes: int = 2) -> list[Any]:
    """What ``work(*arguments)`` returns in each process, connected; tensors and plain values.

    Raises:
        torch.multiprocessing.ProcessRaisedException: with the traceback of the first that failed.
    """
    folder.mkdir(exist_ok=True)
    handed = (work, processes, folder, sys.path, arguments)
    torch.multiprocessing.start_processes(_process, handed, nprocs=processes, start_method="spawn")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(processes)]


def _process(
    rank: int, work: Callable[..., Any], processes: int, folder: Path, path: list[str], arguments: tuple[Any, ...]
) -> None:
    sys.path[:] = path
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=processes)
    torch.manual_seed(0)
    try:
        result = work(*arguments)
        torch.save(result, folder / f"{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()
