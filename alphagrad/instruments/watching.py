"""The instruments in anyone's training loop."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from alphagrad.instruments import quantities
from alphagrad.instruments.histogram import Histogram
from alphagrad.instruments.meter import Meter
from alphagrad.instruments.noise import Noise
from alphagrad.instruments.reading import Reading
from alphagrad.instruments.sums import Observation
from alphagrad.values import check_count, check_range

COLUMNS = {
    quantities.GRAD_NORM: "|g|",
    quantities.PARAM_NORM: "|w|",
    quantities.UPDATE_RATIO: "|dw|/|w|",
    quantities.COSINE: "cosine",
    quantities.SIGN_FLIPS: "flips",
    quantities.KURTOSIS: "kurtosis",
    quantities.ALPHA: "alpha",
    quantities.SATURATION: "S",
}
"""What a table shows, with its heads."""
WIDTH = 80
CELL = 9
"""Characters of a column, with the space before it."""


class Watch:
    """What :func:`watch` has seen of an optimizer.

    ``measured`` holds the step, counted from 0, and the reading (names and columns) of each
    measurement.
    """

    def __init__(self, meter: Meter, observe: Observation, every: int) -> None:
        self.steps = 0
        """Steps taken."""
        self.measured: list[tuple[int, Reading]] = []
        self._meter, self._observe, self._every = meter, observe, every
        self._noise: Noise | None = None

    @property
    def histogram(self) -> Histogram:
        """How often α·ĝ was where, through time; of an AlphaGrad whose rule has an α."""
        return self._meter.histogram

    @torch._disable_dynamo
    def accumulated(self) -> None:
        """Call it after each backward pass of a step that has several, for ``signal_to_noise``.

        The passes are of equally large parts of the batch.
        """
        if self.steps % self._every == 0 and self._observe.details:
            if self._noise is None:
                self._noise = Noise(self._meter.tensors, self._meter.batch_dims)
            self._noise.add()

    def rows(self) -> list[dict[str, Any]]:
        """All that was measured, as plain data: a dictionary for each step, tensor and run.

        Keys are ``step``, ``tensor``, ``run`` (0 without a stack) and the quantities; None where one is not defined.
        ``pandas.DataFrame(w.rows())`` makes a frame of it.
        """
        found = []
        for step, reading in self.measured:
            columns = {quantity: column.tolist() for quantity, column in reading.columns.items()}
            for i, name in enumerate(reading.names):
                for run in range(len(next(iter(columns.values()))[i])):
                    values = {q: None if math.isnan(c[i][run]) else c[i][run] for q, c in columns.items()}
                    found.append({"step": step, "tensor": name, "run": run, **values})
        return found

    def table(self, run: int = 0) -> str:
        """The last measurement of one run, at most 80 columns wide; the last line is of all tensors as one."""
        if not self.measured:
            return "nothing was measured: no step was taken with a gradient"
        step, reading = self.measured[-1]
        shown = {q: head for q, head in COLUMNS.items() if q in reading.columns}
        space = WIDTH - CELL * len(shown)
        sums = reading.sums()
        rows = [(name, [float(reading.columns[q][i, run]) for q in shown]) for i, name in enumerate(reading.names)]
        rows.append(("all", [float(sums[quantities.summary(q, "all")][run]) for q in shown]))
        width = min(max(len(name) for name, _ in rows), space)
        lines = [f"step {step}", line("tensor", list(shown.values()), width)]
        return "\n".join([*lines, *(line(name, [number(x) for x in values], width) for name, values in rows)])

    @torch._disable_dynamo
    def _before(self, optimizer: Optimizer, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        if self.steps % self._every == 0:
            closure = kwargs.get("closure") is not None or any(callable(a) for a in args if a is not optimizer)
            self._meter.before(self._observe, gradients=not closure)

    @torch._disable_dynamo
    def _after(self, optimizer: Optimizer, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        if self.steps % self._every == 0:
            noise, self._noise = self._noise, None
            reading = self._meter.after(None if noise is None else noise.signal_and_noise())
            if reading.names:
                self.measured.append((self.steps, reading))
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """What later measurements build on, the count of steps among it; what was measured is the caller's to keep."""
        return {"steps": self.steps, **self._meter.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes it back."""
        self.steps = state["steps"]
        self._meter.load_state_dict(state)


@contextmanager
def watch(
    optimizer: Optimizer, every: int = 1, tensors: int | None = None, tau: float = 2.5, details: bool = True
) -> Iterator[Watch]:
    """Measures the steps of an optimizer that are taken within; afterwards the optimizer is as it would be without.

    Training stays the same bit for bit. Of other optimizers than AlphaGrad what needs α is left out, and so are
    gradients where ``step`` is given a closure. Names come from ``named_parameters()``, if it was made of these.

    >>> import torch
    >>> from alphagrad import AlphaGrad, instruments
    >>> model = torch.nn.Linear(3, 2)
    >>> optimizer = AlphaGrad(model.named_parameters(), lr=0.01)
    >>> with instruments.watch(optimizer, every=2) as w:
    ...     for _ in range(4):
    ...         optimizer.zero_grad()
    ...         model(torch.ones(4, 3)).square().sum().backward()
    ...         optimizer.step()
    >>> [(row["step"], row["tensor"], row["alpha"]) for row in w.rows()]
    [(0, 'weight', 100.0), (0, 'bias', 100.0), (2, 'weight', 100.0), (2, 'bias', 100.0)]
    >>> w.table().splitlines()[1].split()
    ['tensor', '|g|', '|w|', '|dw|/|w|', 'cosine', 'flips', 'kurtosis', 'alpha', 'S']

    Args:
        optimizer: AlphaGrad, or any other.
        every: steps between measurements.
        tensors: how many of the largest tensors are measured; None for all.
        tau: a component of α·ĝ is saturated beyond ±tau.
        details: whether cosine, sign flips, kurtosis, signal over noise and the histogram are measured, too.

    Raises:
        ValueError: an argument is out of range.
    """
    every = check_count("every", every)
    count = check_count("tensors", tensors) if tensors is not None else 2**31
    observe = Observation(count, check_range("tau", tau, 0, math.inf), details=details)
    meter = Meter(optimizer, named(optimizer), optimizer.param_groups[0].get("batch_dims", 0))
    seen = Watch(meter, observe, every)
    hooks = (
        optimizer.register_step_pre_hook(seen._before),
        optimizer.register_step_post_hook(seen._after),
    )
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def named(optimizer: Optimizer) -> dict[str, Tensor]:
    """An optimizer's parameters by name; by number, as in its state_dict, those without."""
    found: dict[str, Tensor] = {}
    for group in optimizer.param_groups:
        names = group.get("param_names") or [f"parameter {len(found) + i}" for i in range(len(group["params"]))]
        found.update(zip(names, group["params"], strict=True))
    return found


def line(name: str, cells: Sequence[str], width: int) -> str:
    """A line of a table; of a long name the end is shown, where names differ."""
    told = name if len(name) <= width else "…" + name[len(name) - width + 1 :]
    return told.ljust(width) + "".join(cell.rjust(CELL) for cell in cells)


def number(x: float) -> str:
    """At most eight characters."""
    return "-" if math.isnan(x) else f"{x:.3g}"
