"""Many tensors as a few matrices, so that measuring small ones is a handful of operations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from alphagrad.extent import Extent, extent_of, is_sharded, shard_of

LIMIT = 1 << 16
"""Elements that are worked on at a time on a CPU, and up to which tensors are put together: they stay in the cache."""
LIMIT_ELSEWHERE = 1 << 22


class Chunk:
    """Tensors of one device, type and extent that are measured as one matrix [runs, width]."""

    def __init__(self, first: Tensor, extent: Extent) -> None:
        self.extent, self.device = extent, first.device
        self.runs = math.prod(first.shape[: extent.batch_dims])
        self.index: list[int] = []
        """Which of the layout's tensors it holds."""
        self.widths: list[int] = []
        """Elements of each, in one run and on this process."""
        self.elements = 0
        """Of all of them, in all runs and on all processes."""
        self._sharded = is_sharded(first)
        self._repeats: Tensor | None = None

    def add(self, index: int, tensor: Tensor) -> None:
        """Takes in a tensor."""
        self.index.append(index)
        self.widths.append(math.prod(shard_of(tensor).shape[self.extent.batch_dims :]))
        self.elements += tensor.numel()

    def matrix(self, tensors: Sequence[Tensor]) -> Tensor:
        """A copy of its tensors, side by side: [runs, width]."""
        rows = [tensors[i] for i in self.index]
        if self._sharded:
            rows = [shard_of(row) for row in rows]
        return torch.cat([row.reshape(self.runs, -1) for row in rows], dim=1)

    def slices(self) -> Iterator[tuple[slice, list[int]]]:
        """Columns that are worked on at a time, and how many of them are of each tensor."""
        limit = max((LIMIT if self.device.type == "cpu" else LIMIT_ELSEWHERE) // max(self.runs, 1), 1)
        width = sum(self.widths)
        if len(self.widths) > 1 or width <= limit:
            yield slice(0, width), self.widths
            return
        for start in range(0, width, limit):
            end = min(start + limit, width)
            yield slice(start, end), [end - start]

    def spread(self, numbers: Tensor) -> Tensor:
        """A number of each tensor and run [tensors, runs] at each of its columns: [runs, width]; [runs, 1] of one."""
        if len(self.widths) == 1:
            return numbers.T
        if self._repeats is None:
            self._repeats = torch.arange(len(self.widths)).repeat_interleave(torch.tensor(self.widths)).to(self.device)
        return numbers.T.index_select(1, self._repeats)


class Layout:
    """How named tensors [*batch, ...] are divided into chunks: small ones of a kind together, large ones alone."""

    def __init__(self, names: Sequence[str], tensors: Sequence[Tensor], batch_dims: int) -> None:
        self.names, self.shapes = list(names), [t.shape for t in tensors]
        self.chunks: list[Chunk] = []
        found: dict[tuple[torch.device, torch.dtype, Extent], Chunk] = {}
        for i, tensor in enumerate(tensors):
            kind = (tensor.device, tensor.dtype, extent_of(tensor, batch_dims))
            chunk = found.get(kind)
            # by the whole tensors' sizes: processes must divide them alike, whatever their shards
            if chunk is None or chunk.elements + tensor.numel() > LIMIT:
                chunk = found[kind] = Chunk(tensor, kind[2])
                self.chunks.append(chunk)
            chunk.add(i, tensor)
        order = [i for chunk in self.chunks for i in chunk.index]
        self._back = None if order == sorted(order) else torch.tensor(order).argsort()
        elements = [float(math.prod(shape[batch_dims:])) for shape in self.shapes]
        home = tensors[0].device if tensors else None
        self.sizes = torch.tensor(elements, dtype=torch.float64, device=home).unsqueeze(1)
        """Elements of each tensor in one run, on all processes: [tensors, 1], float64."""

    def holds(self, names: Sequence[str], tensors: Sequence[Tensor]) -> bool:
        """Whether it was made for such tensors."""
        return names == self.names and [t.shape for t in tensors] == self.shapes

    def joined(self, parts: Sequence[Tensor], dim: int) -> Tensor:
        """What was measured of each chunk's tensors, along ``dim``, as one in the order of the names."""
        if len(parts) == 1:
            return parts[0]
        whole = torch.cat([part.to(self.sizes.device) for part in parts], dim=dim)
        return whole if self._back is None else whole.index_select(dim, self._back.to(whole.device))

    def divided(self, numbers: Tensor) -> list[Tensor]:
        """Numbers [tensors, ...] of each chunk's tensors."""
        if len(self.chunks) == 1:
            return [numbers]
        return [numbers[chunk.index].to(chunk.device) for chunk in self.chunks]

    def by_name(self, matrices: Sequence[Tensor]) -> Mapping[str, Tensor]:
        """Views [runs, width] of each tensor's part of the chunks' matrices."""
        found: dict[str, Tensor] = {}
        for chunk, matrix in zip(self.chunks, matrices, strict=bool(matrices)):
            for i, part in zip(chunk.index, matrix.split(chunk.widths, dim=1), strict=True):
                found[self.names[i]] = part
        return found
