"""How sharp a minimum is: the largest eigenvalues of the Hessian, and the worst loss in a ball."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from alphagrad.landscape.loss import FixedLoss

STEPS = 20
"""Of the ascent in the ball; a few suffice, as each goes to the ball's edge."""


def largest_eigenvalues(loss: FixedLoss, at: Tensor, count: int, seed: int = 0) -> tuple[np.ndarray, Tensor]:
    """The largest eigenvalues of ∇²L at a vector [D], by Lanczos' method on products with vectors.

    Returns:
        At most D of them, the largest first, and their eigenvectors [count, D].

    Raises:
        ArithmeticError: the method does not converge, or the Hessian is not finite.
        NotImplementedError: the loss cannot be differentiated twice.
    """
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    size = len(at)
    count = min(count, size)

    def product(v: np.ndarray) -> np.ndarray:
        along = torch.from_numpy(np.ascontiguousarray(v.reshape(-1))).to(at)
        found: np.ndarray = loss.curvature(at, along).double().cpu().numpy()
        if not np.isfinite(found).all():
            raise ArithmeticError("the Hessian is not finite")
        return found

    if size <= max(10, 2 * count):  # Lanczos' method needs room
        hessian = np.stack([product(row) for row in np.eye(size)])
        values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    else:
        first = np.random.default_rng(seed).standard_normal(size)
        operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
        # products in single precision have no more digits than that
        exact = 0.0 if at.dtype == torch.float64 else 1e-5
        try:
            values, vectors = eigsh(operator, k=count, which="LA", v0=first, tol=exact)
        except ArpackError as error:
            raise ArithmeticError(f"Lanczos' method found no {count} eigenvalues: {error}") from error
    order = np.argsort(values)[::-1][:count]
    return values[order], torch.from_numpy(np.ascontiguousarray(vectors[:, order].T)).to(at)


def worst_in_ball(loss: FixedLoss, at: Tensor, radius: float, toward: Sequence[Tensor] = ()) -> float:
    """The largest loss found within an L2 distance: what SAM minimises (Foret et al. 2021), sought for longer.

    The first step is SAM's own, along the gradient to the ball's edge; each next one goes along the gradient found
    there to the edge. For a convex loss no step lowers it. Where L has no gradient, at a minimum, only the
    directions ``toward``, both ways, say where to begin; eigenvectors of the largest eigenvalues are good ones.

    Returns:
        A lower bound of the maximum; the loss at the centre where nothing larger was found. NaN or infinite where
        the loss is within the ball.
    """
    best = loss.value(at)
    for start in (loss.gradient(at), *(sign * vector for vector in toward for sign in (1.0, -1.0))):
        moved = _to_edge(start, radius)
        before = -np.inf
        for _ in range(STEPS):
            if moved is None:
                break
            value = loss.value(at + moved)
            if not np.isfinite(value):
                return value
            best = max(best, value)
            if value <= before + 1e-9 * abs(before):
                break
            before = value
            moved = _to_edge(loss.gradient(at + moved), radius)
    return best


def _to_edge(along: Tensor, radius: float) -> Tensor | None:
    """A vector as long as the radius; None where it has no direction."""
    size = torch.linalg.vector_norm(along.double()).item()
    return None if not np.isfinite(size) or size == 0 else along * (radius / size)
