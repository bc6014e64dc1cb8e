"""The instruments in runs: their tiers, their pictures, what resumes, and the command that reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from alphagrad.recipes.dqn import DQN

from alphagrad.common.errors import ConfigError
from alphagrad.harness.driver import OptimizerSpec
from alphagrad.harness.pictures import RunHistogram, draw_histogram, histogram_data, save_histogram
from alphagrad.harness.sharing import StackOptimizer
from alphagrad.harness.tensors import StackedTensors
from alphagrad.instruments.histogram import BINS, SLOTS, Histogram
from alphagrad.instruments.quantities import SUMMED_UP
from alphagrad.instruments.sums import Observation
from alphagrad.lab.evidence.signals import crossings
from alphagrad.lab.records.search import FOLDER
from alphagrad.optimizer import AlphaGrad
from alphagrad.rule import Rule

DETAILS = {"cosine", "sign_flips", "kurtosis"}
FULL = Observation(99, 0.6, details=True)


def quantities(run) -> set[str]:
    return {name.partition("/")[0] for name in run.data.metrics} - set(SUMMED_UP)


@pytest.mark.long
def test_the_tiers(cli, root, tiny, store_runs):
    """economy is cheap signals of the largest tensors, full everything of all."""
    seen = {}
    for tier in ("economy", "full"):
        words = ("instruments.every=4", f"instruments={tier}", f"seed={len(seen)}")
        told = cli("run", *tiny, "recipe.compile=false", *words, f"output_root={root}")
        assert told.status == 0, told.err
        seen[tier] = next(run for run in store_runs(root) if run.data.tags["seed"] == str(len(seen)))
    economy, full = (set(run.data.metrics) for run in seen.values())
    norms = {"grad_norm", "param_norm", "update_norm", "update_ratio", "saturation", "alpha"}
    assert quantities(seen["economy"]) - {name.partition("/")[0] for name in DQN.logs} - {"cost"} == norms
    assert quantities(seen["full"]) - quantities(seen["economy"]) == DETAILS
    assert len([name for name in economy if name.startswith("saturation/")]) == 4
    assert len([name for name in full if name.startswith("saturation/")]) == 6
    assert {"saturation_all/network", "saturation_largest/network"} <= economy & full
    folders = {tier: Path(run.data.tags[FOLDER]) for tier, run in seen.items()}
    assert {tier for tier, f in folders.items() if (f / "histogram.npz").exists()} == {"full"}
    assert (folders["full"] / "histogram.png").read_bytes()[:4] == b"\x89PNG"
    data = np.load(folders["full"] / "histogram.npz")
    counts = data["counts/0.weight"]
    assert counts.shape[1] == BINS
    assert (counts.sum(1) == counts[0].sum()).all()
    assert data["steps/0.weight"][-1] == 4 * len(counts)


def test_none_measures_nothing_and_full_alone_in_detail(composed):
    tiers = {tier: composed(f"instruments={tier}").instruments for tier in ("none", "economy", "full")}
    assert [own.details for own in tiers.values()] == [False, False, True]
    assert [own.every for own in tiers.values()] == [0, 200, 20]


@pytest.mark.long
def test_adam_has_no_histogram_and_a_diverged_run_has_one(cli, root, tiny, store_runs):
    words = ("instruments=full", "instruments.every=1", "recipe.compile=false", f"output_root={root}")
    assert cli("run", *tiny, *words, "optimizer=adam").status == 0
    assert cli("run", *tiny, *words, "optimizer=alphagrad", "optimizer.lr=1e38", "seed=5").status != 0
    folders = {run.data.tags["variant"]: Path(run.data.tags[FOLDER]) for run in store_runs(root)}
    assert not (folders["adam"] / "histogram.png").exists()
    assert (folders["alphagrad"] / "histogram.png").exists()


def given(kind: str) -> tuple[StackOptimizer, StackedTensors]:
    specs = {
        "alphagrad": OptimizerSpec("a", lambda p, **k: AlphaGrad(p, lr=0.1, rule=Rule(), **k), "batch_dims"),
        "adam": OptimizerSpec("b", torch.optim.Adam, "elementwise"),
        "alone": OptimizerSpec("c", lambda p: AlphaGrad(p, lr=0.1), "per_run"),
    }
    drawn = torch.Generator().manual_seed(0)
    params = StackedTensors.of({n: torch.randn(2, *s, generator=drawn) for n, s in (("w", (3, 4)), ("b", (3,)))})
    return StackOptimizer([specs[kind]] * 2, params), params


def steps(optimizer: StackOptimizer, seeds: range) -> list[list[dict[str, float]]]:
    rows = []
    for seed in seeds:
        grads = torch.randn(optimizer.params.flat.shape, generator=torch.Generator().manual_seed(seed))
        rows.append(optimizer.step(grads, FULL))
    return rows


@pytest.mark.parametrize("kind", ["alphagrad", "adam", "alone"])
def test_what_the_instruments_keep_goes_on(kind, tmp_path):
    """Sign flips and histograms of a stack that was saved are those of one that was not."""
    whole, _ = given(kind)
    rows = steps(whole, range(6))
    first, params = given(kind)
    steps(first, range(3))
    torch.save({"optimizer": first.state_dict(), "flat": params.flat}, tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    second, own = given(kind)
    own.flat.copy_(saved["flat"])
    second.load_state_dict(saved["optimizer"])
    assert steps(second, range(3, 6)) == rows[3:]
    assert "sign_flips/w" in rows[3][0]
    for run in range(2):
        pair = [histogram_data(optimizer.histograms(run), 1) for optimizer in (whole, second)]
        assert (pair[0] == {}) == (kind == "adam")
        assert all(np.array_equal(pair[0][key], pair[1][key]) for key in pair[0])
    del saved["optimizer"]["optimizers"][0]["instruments"]  # of an earlier alphagrad
    given(kind)[0].load_state_dict(saved["optimizer"])


def test_each_run_of_a_stack_has_its_own_histogram():
    optimizer, _ = given("alphagrad")
    steps(optimizer, range(3))
    one, other = (histogram_data(optimizer.histograms(run), 7) for run in range(2))
    assert one["steps/w"].tolist() == [0, 7, 14, 21]
    assert one["counts/w"].sum() == other["counts/w"].sum() == 3 * 12
    assert not np.array_equal(one["counts/w"], other["counts/w"])
    with pytest.raises(IndexError, match="run 2"):
        optimizer.histograms(2)


@pytest.mark.long
def test_pictures_of_many_tensors_and_of_several_optimizers(tmp_path):
    own = []
    for count, tensors in ((3, 14), (SLOTS + 3, 2)):
        histogram = Histogram()
        for _ in range(count):
            histogram.add([f"{count}.{i}" for i in range(tensors)], torch.ones(tensors, 1, BINS, dtype=torch.int64))
        own.append(RunHistogram(histogram, 0))
    data = histogram_data(own, 10)
    draw_histogram(tmp_path / "h.png", data)
    assert (tmp_path / "h.png").read_bytes()[:4] == b"\x89PNG"
    save_histogram(tmp_path / "h.npz", data)
    again = np.load(tmp_path / "h.npz", allow_pickle=False)
    assert set(again) == set(data)
    assert len(again["edges"]) == BINS - 1
    assert all(len(again[f"steps/{n}"]) == len(again[f"counts/{n}"]) + 1 for n in ("3.0", "67.0"))
    assert histogram_data([RunHistogram(Histogram(), 0)], 1) == {}


@pytest.fixture
def two(cli, root, tiny):
    """A study of AlphaGrad with a small and a large α."""
    words = ("optimizer=alphagrad", "alpha.value=1,1000", "instruments=full", "instruments.every=4")
    assert cli("run", "-m", *tiny, *words, "recipe.compile=false", f"output_root={root}").status == 0
    return root


@pytest.mark.long
def test_which_tensors_saturate_and_when(cli, two):
    found = crossings(None, "saturation", 0.25, output_root=two)
    by = {cell: [c for c in found if c.cell == cell] for cell in {c.cell for c in found}}
    small, large = sorted(by.values(), key=lambda own: max(c.last for c in own))
    assert {c.tensor for c in small} == {c.tensor for c in large}
    assert not any(c.beyond for c in small)
    assert [c.first is None for c in small] == [True] * len(small)
    assert all(c.runs == c.beyond == 1 and c.first is not None and c.largest > 0.25 for c in large if c.beyond)
    assert any(c.beyond for c in large)
    done = cli("instruments", "--output-root", str(two))
    assert done.status == 0, done.err
    assert "never" in done.out
    assert "0.weight" in done.out
    higher = cli("instruments", "--above", "1", "--quantity", "alpha", "--output-root", str(two)).out
    assert "alpha was above 1" in higher
    wrong = cli("instruments", "--quantity", "speed", "--output-root", str(two))
    assert (wrong.status, wrong.err.count("\n")) == (2, 1)
    assert "--quantity=speed" in wrong.err
    with pytest.raises(ConfigError, match="instruments=full"):
        crossings(None, "signal_to_noise", 1.0, output_root=two)
