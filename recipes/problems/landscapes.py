"""Functions with one difficulty each: many bumps, a bent valley, a plateau, a cliff."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .problem import Problem, tensor_names


def sines(sizes: list[int], instance: int = 0) -> Problem:
    """Σ x² + 3·sin²x: not convex, and yet ½·‖∇f‖² ≥ μ·(f − f*) with μ = 1/32 (Polyak-Łojasiewicz).

    The second derivative, 2 + 6·cos 2x, lies in [−4, 8].
    """
    rng = np.random.default_rng(instance)

    def value(x: Tensor) -> Tensor:
        return (x.square() + 3 * torch.sin(x).square()).sum()

    n = sum(sizes)
    start = torch.from_numpy(rng.uniform(-4, 4, n))
    zero = torch.zeros(n, dtype=torch.float64)
    return Problem(tensor_names(sizes), value, start, L=8.0, f_inf=0.0, f_star=0.0, x_star=zero)


def rosenbrock(sizes: list[int], box: float) -> Problem:
    """Σ 100·(x_{i+1} − x_i²)² + (1 − x_i)², from (−1.2, 1, −1.2, ...).

    No L holds everywhere. Where every |x_i| ≤ box, no row of the Hessian has a larger sum of absolute values than
    1200·box² + 400·box + 202 on the diagonal and 800·box beside it, so neither is an eigenvalue larger (Gershgorin).
    """
    n = sum(sizes)
    if n < 2:
        raise ValueError(f"problem.sizes={sizes}: rosenbrock needs two parameters or more")

    def value(x: Tensor) -> Tensor:
        return (100 * (x[1:] - x[:-1].square()).square() + (1 - x[:-1]).square()).sum()

    start = torch.ones(n, dtype=torch.float64)
    start[::2] = -1.2
    if box < 1.2:
        raise ValueError(f"problem.box={box:g}: must hold the start, whose largest component is 1.2")
    smoothness = 1200 * box**2 + 1200 * box + 202
    one = torch.ones(n, dtype=torch.float64)
    return Problem(tensor_names(sizes), value, start, smoothness, f_inf=0.0, f_star=0.0, x_star=one, box=box)


def plateau(sizes: list[int], distance: float, instance: int = 0) -> Problem:
    """1 − exp(−‖x‖²/2): a hole of width 1 in a plain on which the gradient vanishes, entered at ``distance``.

    Its curvatures lie in [−2·e^{−3/2}, 1]. At distance r the gradient's norm is r·exp(−r²/2): 1e-7 at r = 6.
    """
    n = sum(sizes)

    def value(x: Tensor) -> Tensor:
        return -torch.expm1(-x.square().sum() / 2)

    start = torch.from_numpy(np.random.default_rng(instance).standard_normal(n))
    start = distance * start / torch.linalg.vector_norm(start)
    zero = torch.zeros(n, dtype=torch.float64)
    return Problem(tensor_names(sizes), value, start, L=1.0, f_inf=0.0, f_star=0.0, x_star=zero)


def cliff(sizes: list[int], height: float, width: float, distance: float, instance: int = 0) -> Problem:
    """½·‖x‖² + height·σ((e·x − distance)/width): a bowl, and beside it a plain ``height`` above, from which one starts.

    σ is the logistic function and e the direction of the start, at twice the distance. |σ''| ≤ 1/(6·√3), so
    L = 1 + height/(6·√3·width²). f ≥ 0, and f(0) is that but for height·exp(−distance/width).
    """
    n = sum(sizes)
    direction = torch.from_numpy(np.random.default_rng(instance).standard_normal(n))
    direction = direction / torch.linalg.vector_norm(direction)

    def value(x: Tensor) -> Tensor:
        return x.square().sum() / 2 + height * torch.sigmoid(((x * direction).sum() - distance) / width)

    smoothness = 1 + height / (6 * math.sqrt(3) * width**2)
    return Problem(tensor_names(sizes), value, 2 * distance * direction, smoothness, f_inf=0.0)
