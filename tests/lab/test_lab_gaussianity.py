"""The instrument that holds the components of gradients against a Gaussian."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from alphagrad.harness.pictures import draw_qq, tensors_in
from alphagrad.instruments import quantities
from alphagrad.instruments.gaussianity import LEVELS, MOST, components, expected, kept
from alphagrad.lab.config.shape import identity

DRAWS = {
    "gaussian": lambda rng: rng.standard_normal((40, 50)) * 1e-20,
    "heavy tails": lambda rng: rng.standard_t(5, (40, 50)),
    "sparse": lambda rng: rng.standard_normal((40, 50)) * (rng.random((40, 50)) < 0.3),
    "one element": lambda rng: np.array([2.0]),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_it_is_what_scipy_and_numpy_say(draw):
    g = draw(np.random.default_rng(0))
    found = {name: float(value) for name, value in components(torch.from_numpy(g), None).items()}
    flat = g.ravel() * math.sqrt(g.size) / np.linalg.norm(g)
    assert found[quantities.KURTOSIS] == pytest.approx(np.mean(flat**4))
    assert found[quantities.ZEROS] == np.mean(flat == 0)
    for tail in (2, 3, 4):
        assert found[quantities.tail(tail)] == np.mean(np.abs(flat) > tail)
    for level in LEVELS:
        own = np.quantile(flat, stats.norm.cdf(level), method="hazen")
        assert found[quantities.quantile(level)] == pytest.approx(own, abs=1e-9)


def test_a_gaussian_is_told_from_what_is_none():
    rng = np.random.default_rng(1)
    gaussian = components(torch.from_numpy(rng.standard_normal(200_000)), None)
    for quantity in (quantities.KURTOSIS, quantities.ZEROS, *map(quantities.tail, (2, 3, 4))):
        assert float(gaussian[quantity]) == pytest.approx(expected(quantity), rel=0.2, abs=3e-5)
    assert all(abs(float(gaussian[quantities.quantile(z)]) - z) < 0.1 for z in LEVELS)
    heavy = components(torch.from_numpy(rng.standard_t(3, 200_000)), None)
    assert float(heavy[quantities.KURTOSIS]) > 6
    assert float(heavy[quantities.tail(4)]) > 20 * (expected(quantities.tail(4)) or 0)
    assert expected("alpha") is None


def test_thinning_keeps_every_column():
    """Also of a matrix whose rows are a multiple of the distance between the components that are kept."""
    rows, columns = 4096, 1024
    assert rows * columns == 4 * MOST
    assert len(kept(rows * columns)) == MOST
    assert len(set((kept(rows * columns) % columns).tolist())) == columns
    assert kept(7).tolist() == list(range(7))
    assert int(kept(MOST + 5).max()) <= MOST + 4


def test_each_run_of_a_stack_has_its_own():
    g = torch.randn(3, 8, 5)
    g[1] = 0.0
    together = components(g, 3)
    for run in (0, 2):
        for name, value in components(g[run], None).items():
            assert float(together[name][run]) == pytest.approx(float(value))
    assert float(together[quantities.ZEROS][1]) == 1.0
    assert math.isnan(float(together[quantities.tail(2)][1]))


def test_large_tensors_are_thinned_out():
    found = components(torch.randn(2 * MOST + 7), None)
    assert float(found[quantities.quantile(0.0)]) == pytest.approx(0, abs=0.01)
    assert float(found[quantities.quantile(2.0)]) == pytest.approx(2, abs=0.02)


@pytest.mark.long
def test_any_recipe_switches_it_on(cli, root, tiny, store_runs, tmp_path):
    told = cli("run", *tiny, "optimizer=adam", "instruments=gaussianity", "instruments.every=1", f"output_root={root}")
    assert told.status == 0, told.err
    (run,) = store_runs(root)
    names = tensors_in(run.data.metrics)
    assert len(names) == 4
    for name in names:
        assert 0 <= run.data.metrics[f"beyond_2_sigma/{name}"] <= 1
        assert run.data.metrics[f"quantile_3.50/{name}"] > run.data.metrics[f"quantile_-3.50/{name}"]
    (file,) = [f for f in root.rglob("qq.png") if "artifacts" not in f.parts]
    assert file.read_bytes()[:4] == b"\x89PNG"
    draw_qq(tmp_path / "again.png", run.data.metrics)
    assert (tmp_path / "again.png").exists()


def test_without_it_a_configuration_is_the_one_it_was(composed):
    """So that studies begun by an earlier alphagrad go on."""
    without = {"instruments": {"every": 200}, "recipe": {}}
    assert identity({**without, "instruments": {"every": 200, "components": False}}) == identity(without)
    assert identity({**without, "instruments": {"every": 200, "components": True}}) != identity(without)
    assert composed("instruments=economy").instruments.components is False
