"""Regressions with known constants: a convex one on real data, and a smooth one that is not convex."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from .problem import Function, Problem, Sampling, tensor_names


def logistic(decay: float, reach: float, batch_size: int | None, instance: int = 0) -> Problem:
    """Logistic regression on scikit-learn's breast cancer (569 × 30, standardised), with decay/2·‖x‖².

    L = λ_max(AᵀA)/(4m) + decay, A being the rows with a 1 for the bias. The minimum is found by Newton's method.
    Instance 0 has the rows as they are, each other one as many of them drawn with replacement.
    """
    from sklearn.datasets import load_breast_cancer

    rows, classes = load_breast_cancer(return_X_y=True)
    if instance:
        drawn = np.random.default_rng(instance).integers(len(rows), size=len(rows))
        rows, classes = rows[drawn], classes[drawn]
    rows = (rows - rows.mean(0)) / rows.std(0)
    signed = np.hstack([rows, np.ones((len(rows), 1))]) * (2.0 * classes[:, None] - 1)
    a = torch.from_numpy(signed)
    count, n = a.shape

    def value(x: Tensor) -> Tensor:
        return softplus(-(a @ x)).mean() + decay / 2 * (x * x).sum()

    def sampled(x: Tensor, index: Tensor) -> Tensor:
        return softplus(-(a[index.long()] @ x)).mean() + decay / 2 * (x * x).sum()

    minimizer = _newton(value, torch.zeros(n, dtype=torch.float64))
    start = torch.zeros(n, dtype=torch.float64)
    if batch_size is not None and batch_size > count:
        raise ValueError(f"problem.batch_size={batch_size}: there are only {count} examples")
    return Problem(
        sizes={"linear.weight": n - 1, "linear.bias": 1},
        value=value,
        start=start,
        L=float(torch.linalg.eigvalsh(a.T @ a)[-1]) / (4 * count) + decay,
        f_inf=float(value(minimizer)),
        f_star=float(value(minimizer)),
        x_star=minimizer,
        convex=True,
        D=reach * float(torch.linalg.vector_norm(start - minimizer)),
        sampling=None
        if batch_size is None
        else Sampling(draw=lambda rng: rng.integers(count, size=batch_size), value=sampled),
    )


def _newton(value: Function, x: Tensor, steps: int = 30) -> Tensor:
    """The minimum of a strongly convex function, to rounding."""
    gradient: Function = torch.func.grad(value)
    hessian: Function = torch.func.hessian(value)
    for _ in range(steps):
        x = x - torch.linalg.solve(hessian(x), gradient(x))
    return x


def robust(sizes: list[int], rows: int, instance: int = 0) -> Problem:
    """Mean of log(1 + r²/2) over the residuals r of a linear model, some of which are outliers; not convex.

    The second derivative of log(1 + r²/2) lies in [−1/8, 1], so L = λ_max(AᵀA)/rows. f_inf = 0; the least value itself
    is not known.
    """
    n = sum(sizes)
    rng = np.random.default_rng(instance)
    features = torch.from_numpy(rng.standard_normal((rows, n)))
    targets = features @ torch.from_numpy(rng.standard_normal(n))
    outliers = rng.random(rows) < 0.2
    targets += torch.from_numpy(np.where(outliers, 20.0, 0.1) * rng.standard_normal(rows))

    def value(x: Tensor) -> Tensor:
        return torch.log1p((features @ x - targets).square() / 2).mean()

    return Problem(
        sizes=tensor_names(sizes),
        value=value,
        start=torch.zeros(n, dtype=torch.float64),
        L=float(torch.linalg.eigvalsh(features.T @ features)[-1]) / rows,
        f_inf=0.0,
    )
