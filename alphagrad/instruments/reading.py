"""One measurement: a number of each quantity, tensor and run, and what they sum up to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from alphagrad.instruments.quantities import (
    COSINE,
    GRAD_NORM,
    PARAM_NORM,
    SIGNAL_TO_NOISE,
    SUMMARIES,
    SUMMARISED,
    UPDATE_NORM,
    UPDATE_RATIO,
    summary,
)


@dataclass
class Reading:
    """What was measured of some tensors in one step."""

    names: Sequence[str]
    sizes: Tensor
    """Elements of each tensor in one run, on all processes: [tensors, 1], float64."""
    columns: dict[str, Tensor]
    """Quantity → [tensors, runs], float64; NaN where it is not defined, as the cosine of a zero gradient."""
    noise: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Tensor → signal and noise of its gradient, squared norms, [runs] each; where they were measured."""

    def sums(self) -> dict[str, Tensor]:
        """Quantity with the kind of the sum → [runs].

        *all* is of all tensors as one: of the vector of all their elements norms, their ratio and the cosine; of
        shares, α and kurtosis the mean weighted by the tensors' elements. *least* and *largest* are of single tensors.
        """
        quantities = [q for q in SUMMARISED if q in self.columns]
        if not quantities:
            return {}
        values = torch.stack([self.columns[q] for q in quantities])
        none = values.isnan()
        least = values.masked_fill(none, torch.inf).amin(1)
        largest = values.masked_fill(none, -torch.inf).amax(1)
        told = values.masked_fill(none, 0.0).mul_(self.sizes).sum(1)
        means = told / self.sizes.expand_as(none).masked_fill(none, 0.0).sum(1)
        # all in one: a kind after the other, then what of no tensor is defined
        kinds = dict(
            zip(SUMMARIES, torch.stack([means, least, largest]).masked_fill(none.all(1), torch.nan), strict=True)
        )
        found = {summary(q, kind): x for kind, rows in kinds.items() for q, x in zip(quantities, rows, strict=True)}
        return found | {summary(q, "all"): x for q, x in self._whole().items()}

    def _whole(self) -> dict[str, Tensor]:
        """The quantities of all tensors as one that are no means: [runs] each."""
        own = self.columns
        found = {q: torch.linalg.vector_norm(own[q], dim=0) for q in (GRAD_NORM, PARAM_NORM, UPDATE_NORM) if q in own}
        if UPDATE_RATIO in own:
            found[UPDATE_RATIO] = ratio(found[UPDATE_NORM], found[PARAM_NORM])
        if COSINE in own:
            dots = (own[COSINE] * own[GRAD_NORM] * own[UPDATE_NORM]).nan_to_num(0.0).sum(0)
            found[COSINE] = ratio(dots, found[GRAD_NORM] * found[UPDATE_NORM])
        if SIGNAL_TO_NOISE in own:
            signal, noise = (torch.stack(part).sum(0) for part in zip(*self.noise.values(), strict=True))
            found[SIGNAL_TO_NOISE] = ratio(signal, noise).to(self.sizes.device)
        return found

    def rows(self, network: str) -> list[dict[str, float]]:
        """Of each run metric → value: of single tensors, and summed up; without what is not defined.

        Takes one synchronisation with the device.
        """
        sums = self.sums()
        if not self.columns:
            return []
        keys = keys_of(tuple(self.names), tuple(self.columns), tuple(sums), network)
        parts = [torch.cat(list(self.columns.values()))]
        parts += [torch.stack(list(sums.values()))] if sums else []
        runs = torch.cat(parts).T.tolist()
        return [{key: x for key, x in zip(keys, run, strict=True) if not math.isnan(x)} for run in runs]


def ratio(x: Tensor, by: Tensor) -> Tensor:
    """``x / by``, NaN where ``by`` is 0."""
    return (x / by).masked_fill_(by == 0, torch.nan)


@lru_cache(maxsize=64)
def keys_of(names: tuple[str, ...], quantities: tuple[str, ...], sums: tuple[str, ...], network: str) -> list[str]:
    """The metrics of a reading in order."""
    return [f"{q}/{name}" for q in quantities for name in names] + [f"{q}/{network}" for q in sums]
