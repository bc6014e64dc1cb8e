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
from warm import Surroundings, context


def in_processes(work: Callable[..., Any], folder: Path, *arguments: Any, connect: bool = True) -> list[Any]:
    """What ``work(*arguments)`` returns in each of two processes; tensors and plain values.

    They are connected, or with ``connect=False`` have torchrun's environment to do so themselves. They have this
    process's environment and standard streams of now, not those of when the server started.

    Raises:
        torch.multiprocessing.ProcessRaisedException: with the traceback of the first that failed.
    """
    folder.mkdir(exist_ok=True)
    context()  # from whose server these are forked, too
    handed = (Surroundings(), work, folder, sys.path, connect, arguments)
    torch.multiprocessing.start_processes(_process, handed, nprocs=2, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def _process(
    rank: int,
    surroundings: None,  # taken on when it arrived
    work: Callable[..., Any],
    folder: Path,
    path: list[str],
    connect: bool,
    arguments: tuple[Any, ...],
) -> None:
    sys.path[:] = path
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    if connect:
        dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    torch.manual_seed(0)
    torch.save(work(*arguments), folder / f"{rank}.pt")
    if connect:
        dist.barrier()
        dist.destroy_process_group()
