"""Landscapes: a quadratic's is the analytic surface; curvature and directions are as NumPy has them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import nn
from torch.func import functional_call, hessian
from torch.nn.functional import cross_entropy

from alphagrad.landscape.directions import coordinates, filter_normalized, principal_directions, random_directions
from alphagrad.landscape.loss import FixedLoss
from alphagrad.landscape.picture import View, draw, write_data
from alphagrad.landscape.sharpness import largest_eigenvalues, worst_in_ball
from alphagrad.landscape.surface import axis, extent, surface

SHAPES = {"layer.weight": (3, 4), "layer.bias": (3,)}
SIZE = 15


def quadratic(seed: int = 0, definite: bool = True) -> tuple[FixedLoss, np.ndarray, np.ndarray]:
    """(x − m)ᵀA(x − m)/2 in two parts, with A and m."""
    rng = np.random.default_rng(seed)
    half = rng.standard_normal((SIZE, SIZE))
    a = half @ half.T / SIZE if definite else (half + half.T) / 2
    m = rng.standard_normal(SIZE)
    matrix, minimum = torch.from_numpy(a), torch.from_numpy(m)

    def part(share: float):
        def value(named):
            away = torch.cat([named[name].reshape(-1) for name in SHAPES]) - minimum
            return share * away @ matrix @ away / 2

        return value

    start = torch.from_numpy(rng.standard_normal(SIZE))
    named = dict(
        zip(
            SHAPES,
            (part.reshape(shape) for part, shape in zip(start.split([12, 3]), SHAPES.values(), strict=True)),
            strict=True,
        )
    )
    return FixedLoss(named, [part(0.25), part(0.75)]), a, m


def small_network() -> tuple[FixedLoss, torch.Tensor]:
    """Cross-entropy of a network of 26 weights, and its Hessian by torch.func."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, y = torch.randn(20, 3, dtype=torch.float64), torch.randint(2, (20,))
    parts = [
        lambda w, x=x[own], y=y[own]: cross_entropy(functional_call(net, dict(w), (x,)), y, reduction="sum") / 20
        for own in (slice(0, 12), slice(12, 20))
    ]
    loss = FixedLoss(dict(net.named_parameters()), parts)
    return loss, hessian(lambda v: cross_entropy(functional_call(net, loss.named(v), (x,)), y))(loss.start)


@pytest.mark.parametrize("dims", [1, 2])
def test_the_surface_of_a_quadratic_is_the_analytic_one(dims):
    loss, a, m = quadratic()
    drawn = torch.stack([loss.vector(d) for d in random_directions(loss.named(loss.start), dims, seed=3)])
    axes = [axis(0.2, 1.5, 5), axis(0.0, 1.0, 4)][:dims]
    told = []
    found = surface(loss, loss.start, drawn, axes, lambda: told.append(1))
    assert len(told) == found.size == np.prod([len(x) for x in axes])
    for index in np.ndindex(*found.shape):
        x = loss.start.numpy() + sum(axes[k][i] * drawn[k].numpy() for k, i in enumerate(index)) - m
        assert found[index] == pytest.approx(x @ a @ x / 2, rel=1e-12)


def test_gradient_and_curvature_of_a_quadratic():
    loss, a, m = quadratic()
    np.testing.assert_allclose(loss.gradient(loss.start), a @ (loss.start.numpy() - m))
    v = np.arange(15.0)
    np.testing.assert_allclose(loss.curvature(loss.start, torch.from_numpy(v)), a @ v)


@pytest.mark.parametrize("count", [1, 3])
def test_eigenvalues_of_a_small_network_are_numpys(count):
    loss, full = small_network()
    values, vectors = largest_eigenvalues(loss, loss.start, count)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(full.numpy())[::-1][:count], rtol=1e-8)
    for value, vector in zip(values, vectors, strict=True):
        np.testing.assert_allclose(full @ vector, value * vector, atol=1e-8)


def test_eigenvalues_where_lanczos_has_no_room():
    loss = FixedLoss({"x": torch.ones(2, dtype=torch.float64)}, [lambda w: w["x"][0] ** 2 - 3 * w["x"][1] ** 2])
    np.testing.assert_allclose(largest_eigenvalues(loss, loss.start, 5)[0], [2.0, -6.0])


def test_eigenvalues_of_a_linear_function_are_0():
    loss = FixedLoss({"x": torch.ones(12, dtype=torch.float64)}, [lambda w: w["x"].sum()])
    assert largest_eigenvalues(loss, loss.start, 12)[0] == pytest.approx(np.zeros(12))


def test_a_hessian_that_is_not_finite_is_told():
    loss = FixedLoss({"x": torch.zeros(3, dtype=torch.float64)}, [lambda w: w["x"].abs().sqrt().sum()])
    with pytest.raises(ArithmeticError, match="not finite"):
        largest_eigenvalues(loss, loss.start, 1)


@pytest.mark.parametrize("definite", [True, False])
@pytest.mark.parametrize("radius", [0.1, 2.0])
def test_the_worst_loss_in_a_ball_is_the_analytic_one(radius, definite):
    """Of a quadratic it lies where (μ − A)d = g and ‖d‖ = ρ with μ beyond the largest eigenvalue."""
    loss, a, m = quadratic(seed=1, definite=definite)
    x = loss.start.numpy()
    g, values, vectors = a @ (x - m), *np.linalg.eigh(a)
    b = vectors.T @ g

    def excess(mu: float) -> float:
        return float(np.linalg.norm(b / (mu - values)) - radius)

    mu = brentq(excess, values[-1] + 1e-9, values[-1] + np.linalg.norm(g) / radius + 1)
    d = vectors @ (b / (mu - values))
    worst = loss.value(loss.start) + g @ d + d @ a @ d / 2
    _, toward = largest_eigenvalues(loss, loss.start, 1)
    found = worst_in_ball(loss, loss.start, radius, list(toward))
    assert loss.value(loss.start) < found <= worst * (1 + 1e-12)
    assert found == pytest.approx(worst, rel=1e-3 if definite else 5e-2)


def test_at_a_minimum_the_worst_loss_lies_along_the_largest_eigenvector():
    loss, _, m = quadratic()
    minimum = torch.from_numpy(m)
    values, vectors = largest_eigenvalues(loss, minimum, 1)
    assert worst_in_ball(loss, minimum, 0.5, list(vectors)) == pytest.approx(values[0] * 0.125, rel=1e-6)


def test_a_loss_that_is_not_finite_in_the_ball_is_told():
    loss = FixedLoss({"x": torch.full((1,), 0.05, dtype=torch.float64)}, [lambda w: -w["x"].log().sum()])
    assert np.isnan(worst_in_ball(loss, loss.start, 0.1))


def test_each_filters_direction_has_the_filters_norm():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5, 3))
    weights = {name: p.detach() for name, p in net.named_parameters()}
    weights["3.weight"][1] = 0  # a filter that is dead stays so
    first, second = random_directions(weights, 2, seed=0)
    for name, tensor in weights.items():
        if tensor.dim() < 2:
            assert not first[name].any()
            continue
        norms = [t.reshape(len(t), -1).norm(dim=1) for t in (first[name], second[name], tensor)]
        torch.testing.assert_close(norms[0], norms[2])
        torch.testing.assert_close(norms[1], norms[2])
        assert not torch.equal(first[name], second[name])
    again = random_directions({name: 2 * t for name, t in weights.items()}, 2, seed=0)
    torch.testing.assert_close(again[0], {name: 2 * t for name, t in first.items()})  # the same draws in other units


def test_vectors_alone_are_a_filter_each():
    weights = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([2.0])}
    (direction,) = random_directions(weights, 1, seed=5)
    assert [float(t.norm()) for t in direction.values()] == pytest.approx([5.0, 2.0])
    assert not filter_normalized(torch.zeros(2, 2), torch.ones(2, 2)).any()


def test_a_path_in_a_plane_projects_exactly(monkeypatch):
    monkeypatch.setattr("alphagrad.landscape.directions.BLOCK", 7)  # larger vectors come in blocks
    rng = np.random.default_rng(0)
    plane = np.linalg.qr(rng.standard_normal((30, 2)))[0].T
    places = rng.standard_normal((9, 2)) * [5.0, 1.0]
    centre = torch.from_numpy(rng.standard_normal(30))
    points = [centre + torch.from_numpy(place @ plane) for place in places]
    directions, shares = principal_directions(points, centre, 2)
    np.testing.assert_allclose(directions @ directions.T, np.eye(2), atol=1e-12)
    assert sum(shares) == pytest.approx(1)
    found = coordinates(points, centre, directions)
    for point, place in zip(points, found, strict=True):
        np.testing.assert_allclose(centre + place @ directions, point, atol=1e-12)
    squares = np.linalg.svd(places, compute_uv=False) ** 2
    np.testing.assert_allclose(shares, squares / squares.sum())
    with pytest.raises(ValueError, match="the 9 models span 2 of 3 dimensions"):
        principal_directions(points, centre, 3)


def test_axes_hold_the_paths():
    for middle, half in extent(np.array([[0.0, 0.0], [4.0, 0.0]])):
        places = axis(middle, half, 5)
        assert places[2] == middle
        assert half in (2.6, 0.26)
    assert extent(np.zeros((1, 2))) == [(0.0, 1.0), (0.0, 1.0)]


def test_weights_that_are_others_are_named():
    loss, *_ = quadratic()
    with pytest.raises(ValueError, match=r"layer.bias: must be a tensor \[3\], and there is \[2\]"):
        loss.vector({"layer.weight": torch.zeros(3, 4), "layer.bias": torch.zeros(2)})
    with pytest.raises(ValueError, match="there is nothing"):
        loss.vector({})


@pytest.mark.parametrize(
    "values", [[[1.0, 2.0], [3.0, np.inf]], [[1.0, 1.0], [1.0, 1.0]], [[np.nan] * 2] * 2, [[1.0, 900.0], [2.0, 3.0]]]
)
def test_any_losses_can_be_drawn_and_are_written_as_they_are(tmp_path, values):
    axes = [np.arange(2.0), np.arange(2.0)]
    views = [
        View("one $_", np.array(values, float), np.eye(2), np.ones(2), {"eigenvalues": np.ones(3)}) for _ in range(2)
    ]
    draw(tmp_path / "a.png", axes, views, ["p", "q"])
    draw(tmp_path / "b.svg", axes[:1], [View("x", np.array(values[0], float), None, np.zeros(1))], ["p"])
    write_data(tmp_path / "a.npz", axes, views, {"seed": 3})
    with np.load(tmp_path / "a.npz") as data:
        np.testing.assert_array_equal(data["loss_1"], values)
        assert (str(data["title_0"]), int(data["seed"]), data["path_1"].shape) == ("one $_", 3, (2, 2))
    assert "<svg" in (tmp_path / "b.svg").read_text()
