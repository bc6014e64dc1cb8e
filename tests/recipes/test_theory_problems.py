"""The problems of the recipe ``theory`` have the constants that they declare."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from theory_cases import PROBLEMS, alphagrad, audited, problem_of, recipe, settings_of


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_constants_are_the_problems(name):
    problem, rng = problem_of(name), np.random.default_rng(1)
    gradient = torch.func.grad(problem.value)
    spread = problem.box or 3.0
    for _ in range(60):
        x, y = (torch.from_numpy(rng.uniform(-spread, spread, problem.n)) for _ in range(2))
        if rng.random() < 0.5:
            y = x + 1e-3 * (y - x)
        assert (gradient(x) - gradient(y)).norm() <= problem.L * (x - y).norm() * (1 + 1e-9)
        assert problem.value(x) >= problem.f_inf
        assert problem.value(x) >= problem.least
        if problem.convex:
            assert problem.value(y) >= problem.value(x) + gradient(x) @ (y - x) - 1e-9
    if problem.x_star is not None:
        assert float(problem.value(problem.x_star)) == pytest.approx(problem.least, abs=1e-12)
        assert gradient(problem.x_star).norm() < 1e-9
    if problem.D is not None and problem.x_star is not None:
        assert float((problem.start - problem.x_star).norm()) <= problem.D


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name != "rosenbrock"])
def test_another_instance_is_another_problem_with_constants_of_its_own(name):
    first, again, other = (problem_of(name, instance=instance) for instance in (0, 0, 3))
    x = torch.full((first.n,), 0.3, dtype=torch.float64)

    def told(problem) -> list[float]:
        return [float(problem.value(x)), float(problem.value(problem.start)), *problem.start.tolist()]

    assert told(first) == told(problem_of(name)) == told(again)
    assert told(first) != told(other)
    slope = torch.func.grad(other.value)
    y = x + 1e-3 * other.start.roll(1) + 1e-3
    assert (slope(x) - slope(y)).norm() <= other.L * (x - y).norm() * (1 + 1e-9)
    if other.x_star is not None:
        assert slope(other.x_star).norm() < 1e-9


@pytest.mark.parametrize("name", ["sines", "robust", "rosenbrock", "plateau", "cliff"])
def test_what_is_called_not_convex_is_not(name):
    problem, rng = problem_of(name), np.random.default_rng(0)
    hessian = torch.func.hessian(problem.value)
    points = [torch.from_numpy(rng.uniform(-2, 2, problem.n)) for _ in range(30)] + [problem.start]
    assert min(float(torch.linalg.eigvalsh(hessian(x))[0]) for x in points) < -1e-10
    assert not problem.convex


def test_the_sines_satisfy_the_inequality_of_polyak_and_lojasiewicz():
    problem = problem_of("sines")
    x = torch.linspace(-30, 30, 20_001, dtype=torch.float64)
    f = x.square() + 3 * torch.sin(x).square()
    slope = 2 * x + 3 * torch.sin(2 * x)
    assert bool((slope.square() / 2 >= f / 32 - 1e-12).all())
    assert float(problem.value(torch.full((20,), 0.7, dtype=torch.float64))) == pytest.approx(
        20 * (0.49 + 3 * math.sin(0.7) ** 2)
    )


def test_conditioning_is_what_was_asked_for():
    hessian = torch.func.hessian(problem_of("quadratic", sizes=[6, 2], conditioning=50.0).value)
    curvatures = torch.linalg.eigvalsh(hessian(torch.zeros(8, dtype=torch.float64)))
    assert float(curvatures[-1] / curvatures[0]) == pytest.approx(50.0)
    flat = problem_of("convex_quadratic", sizes=[6, 2], flat=0.25)
    curvatures = torch.linalg.eigvalsh(torch.func.hessian(flat.value)(flat.start))
    assert int((curvatures.abs() < 1e-12).sum()) == 2


def test_the_noise_has_the_ratio_that_was_asked_for():
    problem = problem_of("noisy_quadratic", snr=4.0)
    assert problem.sampling is not None
    rng = np.random.default_rng(0)
    drawn = torch.from_numpy(np.stack([problem.sampling.draw(rng) for _ in range(500)]))
    gradient = torch.func.grad(problem.value)(problem.start)
    assert float(gradient.norm() / drawn.square().sum(1).mean().sqrt()) == pytest.approx(4.0, rel=0.02)
    sampled = torch.func.grad(problem.sampling.value)(problem.start, drawn[0])
    assert torch.allclose(sampled, gradient + drawn[0])


def test_a_minibatch_is_of_the_examples():
    problem = problem_of("logistic", batch_size=569)
    assert problem.sampling is not None
    everything = torch.arange(569)
    assert torch.allclose(problem.sampling.value(problem.start + 0.1, everything), problem.value(problem.start + 0.1))
    with pytest.raises(ValueError, match=r"problem\.batch_size=570: there are only 569"):
        problem_of("logistic", batch_size=570)


@pytest.mark.parametrize(
    ("problem", "changed", "told"),
    [
        ("sines", {"box": 1.0}, r"problem\.box=1\.0: sines has no such setting; it has sizes"),
        ("rosenbrock", {"sizes": [1]}, r"problem\.sizes=\[1\]: rosenbrock needs two"),
        ("rosenbrock", {"box": 1.0}, r"problem\.box=1: must hold the start"),
        ("quadratic", {"sizes": None}, r"problem\.sizes=null: quadratic needs it"),
        ("quadratic", {"sizes": [3000]}, r"problem\.sizes=\[3000\]: must sum up to at most"),
    ],
)
def test_settings_that_do_not_fit(problem, changed, told):
    with pytest.raises(ValueError, match=told):
        recipe(settings_of(problem, **changed))
    with pytest.raises(ValueError, match=r"optimizer\.lr=0"):
        audited("quadratic", alphagrad(lr=0.0))
