"""The recipe ``regression``: its data, its networks, and what is called stable."""

from __future__ import annotations

import importlib
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from alphagrad.recipes.regression import Exam, Regression, RegressionSettings, squared_error
from alphagrad.recipes.tabular import stability
from alphagrad.recipes.tabular.data import TableSettings, table_of
from theory_cases import CONF, Notebook, alphagrad

from alphagrad import Rule
from alphagrad.harness import metrics
from alphagrad.harness.driver import OptimizerSpec
from alphagrad.harness.stack import RunSpec, RunStack
from alphagrad.harness.state import pack, unpack
from alphagrad.normalization import PerModule


def regression(data: dict | str = "diabetes", **changed) -> Regression:
    shipped = yaml.safe_load((CONF / "recipe/regression.yaml").read_text())["recipe"]
    del shipped["_target_"]
    table = yaml.safe_load((CONF / f"data/{data}.yaml").read_text()) if isinstance(data, str) else data
    short = {"total_steps": 60, "hidden": [8, 8], "log_every": 20}
    return Regression(RegressionSettings(**{**shipped, "data": TableSettings(**table), **short, **changed}))


def trained(recipe: Regression, *specs: OptimizerSpec, seeds: tuple[int, ...] = (0,)) -> Notebook:
    log = Notebook()
    log.results = recipe.train(RunStack([RunSpec(seed, spec) for spec in specs for seed in seeds]), log)
    return log


SGD = OptimizerSpec("sgd", partial(torch.optim.SGD, lr=0.05, momentum=0.9), "elementwise")


def test_it_learns_and_says_how_stably():
    log = trained(regression("friedman"), alphagrad(lr=0.003, momentum=0.9), SGD)
    for run in range(2):
        errors = log.column(metrics.CLEAN_ERROR, run)
        assert len(errors) == 12
        assert errors[-1] < 0.5 < errors[0]
        assert log.column(metrics.FINAL_ERROR, run) == [pytest.approx(errors[-1])]
        assert log.column(metrics.DIVERGED, run) == [0.0]
        assert len(log.column(metrics.TRAIN_ERROR, run)) == 3


def test_it_is_the_loop_that_anyone_would_write():
    recipe = regression(hidden=[5], batch_size=16)
    log = trained(recipe, SGD)
    stack = RunStack([RunSpec(0, SGD)])
    (model,) = stack.modules(lambda: recipe.networks()["mlp"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x, y = recipe.table.train
    key = int(stack.generators("minibatch")[0].integers(2**63))
    per_epoch = len(x) // 16
    for step in range(60):
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng([key, epoch]).permutation(len(x))[16 * place : 16 * (place + 1)]
        optimizer.zero_grad()
        ((model(x[order])[:, 0] - y[order]) ** 2).mean().backward()
        optimizer.step()
    with torch.no_grad():
        error = float(((model(recipe.table.test[0])[:, 0] - recipe.table.test[1]) ** 2).mean())
    assert log.column(metrics.EVAL_ERROR)[-1] == pytest.approx(error, rel=1e-4)


def test_a_run_alone_is_the_run_of_a_stack():
    specs = [alphagrad(momentum=0.9, lr=0.003), alphagrad(lr=0.003, rule=Rule(normalization=PerModule())), SGD]
    recipe = regression(total_steps=20)
    together = trained(recipe, *specs, seeds=(3, 4))
    for run, (spec, seed) in enumerate((spec, seed) for spec in specs for seed in (3, 4)):
        alone = trained(recipe, spec, seeds=(seed,))
        assert together.column(metrics.EVAL_ERROR, run) == pytest.approx(alone.column(metrics.EVAL_ERROR), rel=1e-3)
    again = trained(recipe, *specs, seeds=(3, 4))
    for one, other in zip(together.results, again.results, strict=True):
        assert torch.equal(one["model"]["0.weight"], other["model"]["0.weight"])


def test_a_run_that_is_not_finite_ends():
    log = trained(regression(), OptimizerSpec("sgd", partial(torch.optim.SGD, lr=1e6), "elementwise"), SGD)
    assert set(log.ended) == {0}
    assert log.column(metrics.DIVERGED, 1) == [0.0]
    assert not log.column(metrics.DIVERGED, 0)


@pytest.mark.parametrize("hidden", [[7, 6, 5], [7, 6], []])
def test_unequal_layers_compute_the_same(hidden):
    """Weights √spread times larger and smaller in turn, and no bias at work: the same function of a ReLU network."""
    x = torch.randn(20, 10)
    even, uneven = regression(hidden=hidden).networks(), regression(hidden=hidden, spread=100.0).networks()
    torch.manual_seed(0)
    plain, scaled = even["mlp"], uneven["mlp"]
    layers = [(a, b) for a, b in zip(plain, scaled, strict=True) if isinstance(a, torch.nn.Linear)]
    factors = []
    with torch.no_grad():
        for k, (a, b) in enumerate(layers):
            a.bias.zero_()
            b.bias.zero_()
            factor = 1.0 if k >= len(layers) // 2 * 2 else (10.0, 0.1)[k % 2]
            b.weight.copy_(a.weight * factor)
            factors.append(factor)
    assert math.prod(factors) == pytest.approx(1.0)
    assert torch.allclose(plain(x), scaled(x), rtol=1e-4, atol=1e-6)
    torch.manual_seed(1)
    drawn = regression(hidden=hidden).networks()["mlp"]
    torch.manual_seed(1)
    spread = regression(hidden=hidden, spread=100.0).networks()["mlp"]
    each = [factor for factor in factors for _ in ("weight", "bias")]
    for a, b, factor in zip(drawn.parameters(), spread.parameters(), each, strict=True):
        assert torch.allclose(b, a * factor if a.dim() == 2 else a)


def test_tables(tmp_path):
    rows = ["a,b,y,c", *(f"{k},{k * k % 7},{2 * k + 1},1" for k in range(40))]
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    given = {"name": "numbers", "root": str(tmp_path), "file": "t.csv", "target": "y", "test": 0.25}
    table = table_of(TableSettings(**given))
    assert table.features == 3
    (x, y), (x_test, _) = table.train, table.test
    assert (len(x), len(x_test)) == (30, 10)
    assert torch.allclose(x[:, 0], y, atol=1e-5)  # both are standardised
    assert float(y.mean()) == pytest.approx(0, abs=1e-6)
    assert float(y.square().mean()) == pytest.approx(1, rel=1e-5)
    assert bool((x[:, 2] == 0).all())  # a column of one value alone
    assert table_of(TableSettings(**given, features=["b"])).features == 1
    log = trained(regression(given, batch_size=10, total_steps=40), alphagrad(lr=0.01))
    assert log.column(metrics.CLEAN_ERROR)[-1] < 0.2


@pytest.mark.parametrize(
    ("changed", "content", "told"),
    [
        ({}, "a,y\n1,2\nx,3\n", r"data\.features=a: .* has no number in row 2, but 'x'"),
        ({}, "a,y\n1,2\n4,nan\n", r"data\.target=y: .* has no number in row 2, but 'nan'"),
        ({}, "a,y\n1,2\n4,2\n3,2\n7,2\n", r"data\.target: has one value alone"),
        ({"target": "z"}, "a,y\n1,2\n", r"data\.target=z: .* has no such column; it has a, y"),
        ({"features": ["y"]}, "a,y\n1,2\n", r"data\.features: must be columns other than data\.target=y"),
        ({"features": []}, "a,y\n1,2\n", r"data\.features: must be columns other"),
        ({"file": "nowhere.csv"}, "a,y\n1,2\n", r"data\.file=nowhere\.csv: no such file"),
        ({"file": "*.csv"}, "a,y\n1,2\n", r"data\.file=\*\.csv: names 2 files"),
        ({"target": None}, "a,y\n1,2\n", r"data\.target=null: numbers needs it"),
        ({"rows": 3}, "a,y\n1,2\n", r"data\.rows=3: numbers has no such setting"),
        ({}, "a,y\n1,2\n", r"data\.test=0\.2: of 1 rows that leaves none"),
    ],
)
def test_tables_that_do_not_fit(tmp_path, changed, content, told):
    (tmp_path / "t.csv").write_text(content)
    (tmp_path / "u.csv").write_text(content)
    given = {"name": "numbers", "root": str(tmp_path), "file": "t.csv", "target": "y", "test": 0.2}
    with pytest.raises(ValueError, match=told):
        table_of(TableSettings(**given | changed))


def test_a_batch_is_no_larger_than_the_table():
    with pytest.raises(ValueError, match=r"recipe\.batch_size=400: there are only 354 training rows"):
        regression(batch_size=400)


def test_the_curve_is_a_part_of_the_state():
    recipe = regression()
    stack = RunStack([RunSpec(0, SGD)])
    exam, other = Exam(recipe, stack), Exam(recipe, stack)
    exam.curves[0] += [3.0, 2.0]
    unpack(other, pack(exam))
    assert other.curves == [[3.0, 2.0]]


def test_squared_error():
    loss, told = squared_error(torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 0.0]))
    assert float(loss) == 5.0
    assert told.tolist() == [5.0]


def test_roughness_is_the_variance_about_the_trend():
    rng = np.random.default_rng(0)
    steps = np.arange(400)
    smooth = 10 ** (-steps / 100)
    assert stability.roughness(smooth) == pytest.approx(0, abs=1e-20)
    noisy = smooth * 10 ** (0.3 * rng.standard_normal(400))
    # a moving average of 11 points takes in a 11th of each point itself
    assert stability.roughness(noisy) == pytest.approx(0.09 * (1 - 1 / 11), rel=0.15)
    assert stability.roughness(1000 * noisy) == pytest.approx(stability.roughness(noisy))
    assert stability.roughness([1.0, math.nan]) == math.inf
    assert stability.roughness([1.0, 0.5, 0.2]) == 0.0


def test_the_width_of_the_range_of_rates():
    rates = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    width = lambda *losses: stability.decades_near_best(dict(zip(rates, losses, strict=True)))  # noqa: E731
    assert width(0.9, 0.5, 0.52, 0.9, 2.0) == pytest.approx(2.0)
    assert width(0.5, 0.9, 0.52, 0.5, math.nan) == pytest.approx(1.0)  # a gap divides
    assert width(5.0, math.inf, math.nan, 1.0, 2.0) == 0.0
    assert stability.decades_near_best({1e-2: 0.3}) == 0.0
    assert stability.share_diverged([0.9, 1.0, math.nan, math.inf]) == 0.75
    assert stability.final_loss([9.0] * 18 + [1.0, 3.0]) == 2.0


def test_the_study_is_what_its_rule_says():
    text = (CONF / "experiment/regression_stability.yaml").read_text()
    sweep = yaml.safe_load(text)["hydra"]["sweeper"]["params"]
    assert sweep["seed"] == "range(20)"
    assert len(sweep["optimizer.lr"].split(",")) == 7
    assert Path(CONF.parent / "benchmarks/regression_stability.py").exists()
    assert "refuted" in text


def test_the_verdict_is_what_the_kept_runs_say(capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(CONF.parent / "benchmarks"))
    judge = importlib.import_module("regression_stability").judge
    judge(CONF.parent / "docs/results/regression.csv.gz")
    told = capsys.readouterr().out
    page = (CONF.parent / "docs/results/regression.md").read_text(encoding="utf-8").replace("−", "-")
    assert told.startswith("8 cells, 20 seeds")
    for line in told.splitlines():
        if line.startswith(("| module", "| group", "| global", "| blend", "| tensor | ")):
            assert line in page
    verdict = told.splitlines()[-1].split()[1].rstrip(":")
    assert f"**{verdict.capitalize()}: " in page
