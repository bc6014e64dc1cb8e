"""The transfer curve of a variant: a component of its update over that component of the normalised gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alphagrad import AlphaGrad, variants

D = 10_000
"""Elements of the tensor. A typical component of ĝ is 1/√D = 0.01, and α = 100 is √D."""
WIDEST = 0.05
"""The largest component shown: five times a typical one."""


@dataclass(frozen=True)
class Case:
    """One curve."""

    label: str
    settings: dict[str, Any] = field(default_factory=dict)
    norm: float = 1.0
    """‖g‖ of the tensor."""
    share: float = 1.0
    """The tensor's part of the norm that it is divided by; 1 where it is alone."""


def varied(name: str, symbol: str, *values: float) -> list[Case]:
    """A curve for each value of one setting."""
    return [Case(f"{symbol} = {value:g}", {name: value}) for value in values]


CASES: dict[str, list[Case]] = {
    "alphagrad": varied("alpha", "α", 30, 100, 300),
    "group_wise": [Case(f"‖tensor‖ = {s:g}·‖group‖", share=s) for s in (1.0, 0.5, 0.1)],
    "hybrid": varied("lam", "λ", 1, 0.5, 0.1, 0),
    "module_wise": [Case(f"‖tensor‖ = {s:g}·‖module‖", share=s) for s in (1.0, 0.5, 0.1)],
    "saturation": varied("k", "at the first update, k", 1, 2),
    "scaled_tanh": varied("beta", "β", 0.5, 1, 2),
    "sin_tanh": varied("kappa", "κ", 1, 1.57, 2.5, 4),
    "sqrt_dim": varied("k", "k", 1, 2, 3),
    "tanh_only": [Case(f"‖g‖ = {norm:g}", norm=norm) for norm in (0.1, 1.0, 10.0)],
}
"""What is drawn of each variant; of one that is not here, its defaults."""


def cases(name: str) -> list[Case]:
    """The curves of a variant."""
    return CASES.get(name) or [Case("defaults")]


def curve(name: str, case: Case, x: np.ndarray) -> np.ndarray:
    """g' where a component of g/‖g‖ is ``x`` [n], from one step of the optimizer with η = 1 on a stack of n tensors.

    The tensor's other elements are of one size, and a second tensor of its module and group has the rest of the norm.
    """
    unit = torch.as_tensor(x, dtype=torch.float32)
    rest = ((1 - unit**2) / (D - 1)).sqrt()
    grad = torch.cat([unit[:, None], rest[:, None].expand(-1, D - 1)], dim=1) * case.norm
    other = torch.full((len(x), 1), case.norm * math.sqrt(1 / case.share**2 - 1))
    tensors = [torch.nn.Parameter(torch.zeros_like(g)) for g in (grad, other)]
    for tensor, g in zip(tensors, (grad, other), strict=True):
        tensor.grad = g.contiguous()
    rule = getattr(variants, name)(**case.settings)
    named = list(zip(("layer.weight", "layer.bias"), tensors, strict=True))
    AlphaGrad(named, lr=1.0, rule=rule, batch_dims=1).step()
    return -tensors[0].detach()[:, 0].numpy()


def draw(name: str, file: Path) -> None:
    """The picture of a variant's curves, as SVG."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    x = np.linspace(-WIDEST, WIDEST, 201)
    with mpl.rc_context({"svg.hashsalt": name, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
        for case in cases(name):
            axes.plot(x, curve(name, case, x), label=case.label)
        axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
        axes.axvline(0, color="0.8", linewidth=0.8, zorder=0)
        axes.set_xlabel(f"one component of g/‖g‖, in a tensor of {D:,} elements")
        axes.set_ylabel("the same component of g'")
        if len(cases(name)) > 1:
            axes.legend(frameon=False)
        figure.savefig(file, metadata={"Date": None})
        plt.close(figure)
