"""Measures one step of an optimizer: what it is given, and what it makes of it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from alphagrad.extent import is_sharded, shard_of
from alphagrad.instruments.flat import Layout
from alphagrad.instruments.gaussianity import components
from alphagrad.instruments.histogram import Histogram, counts_of
from alphagrad.instruments.observe import steepness
from alphagrad.instruments.quantities import GRAD_NORM, SIGNAL_TO_NOISE
from alphagrad.instruments.reading import Reading, ratio
from alphagrad.instruments.sums import Begun, Observation, column_of, columns_of, scale_down_, summed
from alphagrad.optimizer import AlphaGrad


class Meter:
    """Measures steps of an optimizer on named tensors: :meth:`before` each, and :meth:`after` it.

    It reads alone: training is bit for bit what it would be. What it keeps from measurement to measurement, the signs
    of the last update and the histogram, is its state. Sparse and complex gradients are left out, with a warning. Of
    sharded tensors it measures the whole, and every process must measure.

    Args:
        optimizer: AlphaGrad, or any other; then what needs α is left out.
        tensors: what it updates, by the names that an AlphaGrad knows them under, all on one device.
        batch_dims: leading dimensions of every tensor that count independent runs.
    """

    def __init__(self, optimizer: Optimizer, tensors: Mapping[str, Tensor], batch_dims: int = 0) -> None:
        self.optimizer, self.tensors, self.batch_dims = optimizer, tensors, batch_dims
        self.histogram = Histogram()
        self._layout = Layout([], [], batch_dims)
        self._signs: list[Tensor] = []
        """The direction of each element's last measured move, for each chunk of the layout; none yet if empty."""
        self._earlier: dict[str, Tensor] = {}
        """Likewise of tensors that another layout held, by name: [runs, width]."""
        self._begun: Begun | None = None
        self._warned = False

    @torch.no_grad()
    def before(self, observe: Observation, gradients: bool = True) -> None:
        """Call it right before the step, with the gradients that the step will be given.

        Args:
            observe: what is measured.
            gradients: whether they are there already; a step with a closure computes its own.
        """
        names = self._usable(largest(self.tensors, observe.tensors), gradients)
        tensors = [self.tensors[name] for name in names]
        layout = self._laid_out(names, tensors)
        begun = self._begun = Begun(observe, layout, tensors, [chunk.matrix(tensors) for chunk in layout.chunks])
        if not gradients or not names:
            return
        grads = [shard_of(p.grad, like=p) for p in tensors if p.grad is not None]
        begun.grads = [chunk.matrix(grads) for chunk in layout.chunks]
        if all(
            g.dtype is torch.float64 and not c.extent.groups for g, c in zip(begun.grads, layout.chunks, strict=True)
        ):
            parts = [scale_down_(g, chunk) for g, chunk in zip(begun.grads, layout.chunks, strict=True)]
            begun.exponents = layout.joined(parts, 0)
        begun.grad_scale = getattr(self.optimizer, "grad_scale", None)
        if isinstance(self.optimizer, AlphaGrad):
            begun.steep = steepness(self.optimizer, observe.tau)
        if observe.components:
            begun.columns = self._components(tensors)

    @torch.no_grad()
    def after(self, noise: Mapping[str, tuple[Tensor, Tensor]] | None = None) -> Reading:
        """Call it right after the step.

        Args:
            noise: what :meth:`alphagrad.instruments.noise.Noise.signal_and_noise` found, where it was asked.

        Raises:
            RuntimeError: :meth:`before` was not called.
        """
        begun, self._begun = self._begun, None
        if begun is None:
            raise RuntimeError("Meter.after: before() must be called first, once for each step that is measured")
        layout = begun.layout
        if not layout.names:
            return Reading([], layout.sizes, {})
        details = begun.observe.details
        last = self._last_signs(begun) if details else [None] * len(layout.chunks)
        sums = layout.joined([summed(begun, i, signs) for i, signs in enumerate(last)], 1)
        reading = Reading(layout.names, layout.sizes, columns_of(begun, sums))
        if details and begun.steep:
            self._count(begun, reading)
        own = {name: parts for name, parts in (noise or {}).items() if details and name in layout.names}
        if own:
            reading.noise = own
            none = torch.full_like(sums[0, 0], torch.nan)
            rows = [ratio(*own[name]).to(none) if name in own else none for name in layout.names]
            reading.columns[SIGNAL_TO_NOISE] = torch.stack(rows)
        return reading

    def _usable(self, names: Sequence[str], gradients: bool) -> list[str]:
        """Those of the tensors that can be measured in this step."""
        if not gradients:
            return [name for name in names if self.tensors[name].is_floating_point()]
        found: list[str] = []
        refused: list[str] = []
        for name in names:
            p = self.tensors[name]
            if p.grad is None:
                continue
            usable = p.grad.layout is torch.strided and p.is_floating_point()
            (found if usable else refused).append(name)
        if refused and not self._warned:
            self._warned = True
            warnings.warn(
                f"instruments: {', '.join(refused)} left out, whose gradients are sparse or complex", stacklevel=2
            )
        return found

    def _laid_out(self, names: list[str], tensors: list[Tensor]) -> Layout:
        """The layout of these tensors: the one that there is, unless others have gradients now."""
        if not self._layout.holds(names, tensors):
            self._earlier.update(self._layout.by_name(self._signs))
            self._layout, self._signs = Layout(names, tensors, self.batch_dims), []
        return self._layout

    def _last_signs(self, begun: Begun) -> list[Tensor]:
        """The signs that the measurement compares with and then takes."""
        layout = begun.layout
        begun.moved = [bool(self._signs) or name in self._earlier for name in layout.names]
        if self._signs:
            return self._signs
        for chunk in layout.chunks:
            rows = []
            for i, width in zip(chunk.index, chunk.widths, strict=True):
                own = self._earlier.pop(layout.names[i], None)
                rows.append(torch.zeros(chunk.runs, width, dtype=torch.int8) if own is None else own)
            self._signs.append(torch.cat([row.to(chunk.device) for row in rows], dim=1))
        return self._signs

    def _components(self, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """How far gradients are from Gaussian: quantity → [tensors, runs]."""
        found = []
        for p in tensors:
            assert p.grad is not None
            grad = p.grad.full_tensor() if is_sharded(p.grad) else p.grad  # type: ignore[attr-defined]
            found.append(components(grad, math.prod(p.shape[: self.batch_dims])))
        return {quantity: torch.stack([own[quantity] for own in found]) for quantity in found[0]}

    def _count(self, begun: Begun, reading: Reading) -> None:
        """Takes a measurement of α·ĝ into the histogram, of the tensors and runs whose gradients are finite."""
        layout, norms = begun.layout, reading.columns[GRAD_NORM]
        factors = column_of(begun.steep, "factor", layout.names, norms)
        if factors is None:
            return
        scaled = factors if begun.exponents is None else torch.ldexp(factors, begun.exponents)
        parts = []
        for chunk, grads, own in zip(layout.chunks, begun.grads, layout.divided(scaled), strict=True):
            numbers, total = chunk.spread(own), None
            for columns, _ in chunk.slices():
                counts = counts_of(grads[:, columns] * numbers, chunk)
                total = counts if total is None else total.add_(counts)
            assert total is not None
            parts.append(chunk.extent.total(total))
        counted = layout.joined(parts, 0).mul_(norms.isfinite().unsqueeze(-1)).cpu()
        steep = (~factors.isnan()).any(1).tolist()
        if not all(steep):
            counted = counted[steep]
        self.histogram.add([name for name, own in zip(layout.names, steep, strict=True) if own], counted)

    def state_dict(self) -> dict[str, Any]:
        """What is kept between measurements, as tensors and plain values; nothing before there is any.

        The signs of sharded tensors are left out: each process has its own. The first measurement of a run that goes on
        has no sign flips of these.
        """
        signs = {**self._earlier, **self._layout.by_name(self._signs)}
        signs = {name: own for name, own in signs.items() if not is_sharded(self.tensors[name])}
        if not signs and not self.histogram.measurements:
            return {}
        return {"signs": signs, "histogram": self.histogram.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes it back."""
        self._signs, self._earlier, self.histogram = [], dict(state.get("signs", {})), Histogram()
        if "histogram" in state:
            self.histogram.load_state_dict(state["histogram"])


def largest(tensors: Mapping[str, Tensor], count: int) -> list[str]:
    """The names of the ``count`` largest tensors, in the network's order."""
    if count >= len(tensors):
        return list(tensors)
    chosen = set(sorted(tensors, key=lambda n: -tensors[n].numel())[:count])
    return [name for name in tensors if name in chosen]
