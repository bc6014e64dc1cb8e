"""Quadratics ½·xᵀHx of given curvatures, exact or with noise on the gradient."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from .problem import Problem, Sampling, tensor_names


def quadratic(sizes: list[int], conditioning: float, flat: float, reach: float, instance: int = 0) -> Problem:
    """½·xᵀHx: curvatures from 1 down to 1/conditioning, evenly on a logarithmic scale, in random directions.

    Args:
        sizes: of the tensors; n is their sum.
        conditioning: the largest curvature, 1, over the least positive one.
        flat: share of directions without curvature; above 0 the problem is convex, but not strongly.
        reach: D over ‖x₁ − x*‖.
        instance: which random directions and start.
    """
    n = sum(sizes)
    rng = np.random.default_rng(instance)
    directions = np.linalg.qr(rng.standard_normal((n, n)))[0]
    level = math.floor(flat * n)
    curvatures = np.concatenate([np.logspace(0, -math.log10(conditioning), n - level), np.zeros(level)])
    hessian = torch.from_numpy(directions * curvatures @ directions.T)
    hessian = (hessian + hessian.T) / 2
    start = torch.from_numpy(rng.standard_normal(n))
    minimizer = torch.from_numpy(directions[:, n - level :] @ (directions[:, n - level :].T @ start.numpy()))

    def value(x: Tensor) -> Tensor:
        return 0.5 * (x * (hessian @ x)).sum()

    return Problem(
        sizes=tensor_names(sizes),
        value=value,
        start=start,
        L=1.0,
        f_inf=0.0,
        f_star=0.0,
        x_star=minimizer,
        convex=True,
        D=reach * float(torch.linalg.vector_norm(start - minimizer)),
    )


def with_noise(problem: Problem, snr: float) -> Problem:
    """The same, its gradient with Gaussian noise ξ: E‖ξ‖ ≤ σ, where σ = ‖∇f(x₁)‖/snr."""
    gradient = torch.func.grad(problem.value)(problem.start)
    deviation = float(torch.linalg.vector_norm(gradient)) / snr / math.sqrt(problem.n)
    value, n = problem.value, problem.n
    return replace(
        problem,
        sampling=Sampling(
            draw=lambda rng: deviation * rng.standard_normal(n), value=lambda x, noise: value(x) + (x * noise).sum()
        ),
    )
