"""Reading a study back: grouping, labels, intervals, curves, pictures."""

from __future__ import annotations

import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from alphagrad.common.errors import ConfigError
from alphagrad.harness import metrics
from alphagrad.lab.evidence import figures, report
from alphagrad.lab.evidence.results import Comparison, Group, Results, Run, grouped
from alphagrad.lab.launching.study import study
from alphagrad.lab.records.lifecycle import Life, Standing
from alphagrad.lab.records.run import PARENT_RUN, Tracker
from alphagrad.lab.store.address import store_uri
from alphagrad.lab.store.connection import open_store


def entry(
    configuration: str, seed: int, digest: str, status: str = "FINISHED", recipe: str = "lm", **values: float
) -> SimpleNamespace:
    """A run as MLflow's search returns it."""
    tags = {"seed": str(seed), "configuration": configuration, "config_hash": digest, "recipe": recipe}
    name = {"run_id": f"{digest}{seed}", "run_name": "x", "experiment_id": "1"}
    return SimpleNamespace(
        info=SimpleNamespace(**name, status=status, lifecycle_stage="active", start_time=0, end_time=None),
        data=SimpleNamespace(tags=tags, params={}, metrics={metrics.EVAL_RETURN: 1.0, **values}),
    )


def test_runs_that_differ_in_seed_alone_are_one_group():
    found = [entry("adam", 1, "a"), entry("alphagrad alpha.value=93", 0, "b"), entry("adam", 0, "a")]
    groups = grouped(found)  # newest first, as searched
    assert [(g.label, [r.seed for r in g.runs]) for g in groups] == [
        ("adam", [0, 1]),
        ("alphagrad alpha.value=93", [0]),
    ]


def test_labels_leave_out_what_all_share():
    shared = "recipe.total_steps=9"
    found = [
        entry(f"adam {shared}", 0, "a"),
        entry(f"alphagrad {shared} alpha.value=93", 0, "b"),
        entry(f"alphagrad {shared} alpha.value=186", 0, "c"),
    ]
    labels = {g.label for g in grouped(found)}
    assert labels == {"adam", "alphagrad alpha.value=93", "alphagrad alpha.value=186"}
    assert [g.label for g in grouped(found[:1])] == [f"adam {shared}"]  # alone, it keeps everything


def test_labels_tell_recipes_apart():
    found = [entry("adam", 0, "a"), entry("adam", 0, "b", recipe="theory")]
    assert {g.label for g in grouped(found)} == {"lm", "theory"}


def test_equal_titles_of_unequal_configurations_stay_apart():
    assert len(grouped([entry("adam", 0, "a"), entry("adam", 1, "b")])) == 2


def test_a_label_is_never_empty():
    groups = grouped([entry("adam", 0, "a"), entry("adam alpha.k=1", 0, "b")])
    assert all(g.label for g in groups)
    assert len({g.label for g in groups}) == 2


def test_only_finished_runs_count():
    found = [
        entry("adam", 0, "a", **{"m": 1.0}),
        entry("adam", 1, "a", "FAILED", **{"m": 100.0}),
        entry("adam", 2, "a", "RUNNING", **{"m": 100.0}),
        entry("adam", 3, "a"),
    ]
    (group,) = grouped(found)
    assert len(group.runs) == 4
    assert group.values("m") == [1.0]
    assert sorted(r.seed for r in group.finished()) == [0, 3]


def test_band_of_curves_known_at_different_steps():
    """From measured points alone, each stretch with one of either curve at least."""
    first = (np.array([0, 10, 20, 40]), np.array([0.0, 10.0, 20.0, 40.0]))
    second = (np.array([5, 35, 60]), np.array([15.0, 45.0, 70.0]))
    grid, low, mean, high = figures.band([first, second])
    np.testing.assert_allclose(grid, [2.5, (15 + 35) / 2, (40 + 60) / 2])
    np.testing.assert_allclose(low, [0.0, 15.0, 40.0])
    np.testing.assert_allclose(high, [15.0, 45.0, 70.0])
    np.testing.assert_allclose(mean, (low + high) / 2)


def test_band_of_one_curve_is_the_curve():
    grid, low, mean, high = figures.band([(np.array([0, 100]), np.array([0.0, 1.0]))])
    np.testing.assert_allclose(mean, grid / 100)
    np.testing.assert_array_equal(low, mean)
    np.testing.assert_array_equal(high, mean)


def test_band_of_curves_of_one_point():
    one = (np.array([7]), np.array([3.0]))
    grid, low, mean, high = figures.band([one, (np.array([7]), np.array([5.0]))])
    assert (grid.tolist(), mean.tolist()) == ([7], [4.0])
    assert low[0] < mean[0] < high[0]


def shown(table) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


def test_table_of_a_study():
    def run(seed, standing=Standing.FINISHED, value=1.0):
        return Run(
            str(seed),
            "n",
            Life(standing),
            seed,
            {metrics.EVAL_RETURN: value, metrics.STEPS_PER_SECOND: 1000.0 * (seed + 1)},
            {},
        )

    groups = [
        Group("adam", [run(0, value=100.0), run(1, value=200.0), run(2, Standing.FAILED, 900.0)]),
        Group("alphagrad", [run(0, value=50.0)]),
        Group("none", [run(0, Standing.RUNNING)]),
    ]
    lines = shown(report.study_table(Comparison("s", groups))).splitlines()
    (adam,) = [line for line in lines if "adam" in line]
    assert "2/3" in adam
    assert "150.0 (100.0 to 200.0)" in adam
    assert "1,500" in adam
    (alone,) = [line for line in lines if "alphagrad" in line]
    assert "1/1" in alone
    assert " 50.0 " in alone
    assert "[" not in alone  # no interval from one seed
    (none,) = [line for line in lines if line.strip().startswith("none")]
    assert "0/1" in none
    assert "–" in none
    assert metrics.FINAL_RETURN not in shown(report.study_table(Comparison("s", groups)))


@pytest.fixture(scope="module")
def studied(tmp_path_factory, empty_store):
    """A store with two studies and a single run, written by :class:`Tracker`; the newest study has two settings."""
    root = tmp_path_factory.mktemp("studied")
    shutil.copy(empty_store, root / "mlflow.db")
    uri = store_uri(None, root)

    def job(seed, configuration, slope, status="FINISHED"):
        tags = {"seed": str(seed), "configuration": configuration, "config_hash": configuration}
        try:
            with Tracker(uri, "unit").run(configuration, {}, tags) as tracker:
                for step in (30, 10, 20):
                    tracker.metrics(step, {metrics.EVAL_RETURN: slope * step + seed})
                if status == "FAILED":
                    raise ValueError("stopped")
        except ValueError:
            assert status == "FAILED"

    with study(Tracker(uri, "unit"), "older", "first key", {}, {}, root / "older"):
        older = os.environ[PARENT_RUN]
        job(0, "sgd", 1.0)
    with (  # noqa: PT012 - what is raised comes from the study's end
        pytest.raises(RuntimeError, match="1 of 5 jobs are not finished"),
        study(Tracker(uri, "unit"), "newer", "second key", {}, {}, root / "newer"),
    ):
        newer = os.environ[PARENT_RUN]
        for seed in range(3):
            job(seed, "adam", 2.0)
        job(0, "alphagrad", 3.0)
        job(1, "alphagrad", 100.0, "FAILED")
    job(5, "lion", 1.0)
    return root, older, newer


def test_the_newest_study_by_default_or_by_its_id(studied):
    root, older, newer = studied
    found = Results(store_uri(None, root), "unit")
    study_ = found.study()
    assert study_.title == f"Study {newer[:8]}: newer"
    assert [(g.label, len(g.runs)) for g in study_.groups] == [("adam", 3), ("alphagrad", 2)]
    assert [g.label for g in found.study(older[:12]).groups] == ["sgd"]
    assert found.study(newer) == study_
    with pytest.raises(ConfigError, match="0 studies and runs have an id that begins so"):
        found.study("zzz")


def test_history_is_in_order_of_steps(studied):
    root, _, _ = studied
    found = Results(store_uri(None, root), "unit")
    run = found.study().groups[0].runs[1]
    steps, values = found.history(run, metrics.EVAL_RETURN)
    assert steps.tolist() == [10, 20, 30]
    assert values.tolist() == [20.0 + run.seed, 40.0 + run.seed, 60.0 + run.seed]
    assert found.history(run, "nothing")[0].tolist() == []


def test_all_runs_without_a_multirun(root):
    uri = store_uri(None, root)
    for seed in range(2):
        with Tracker(uri, "unit").run("r", {}, {"seed": str(seed), "configuration": "adam", "config_hash": "h"}):
            pass
    study_ = Results(uri, "unit").study()
    assert study_.title == "All runs"
    assert [(g.label, len(g.runs)) for g in study_.groups] == [("adam", 2)]


@pytest.mark.long
def test_report_reads_and_draws(studied, cli, tmp_path):
    root, older, newer = studied
    for name in ("curve.png", "curve.pdf", "curve.svg"):
        done = cli("report", "--output-root", str(root), "--experiment", "unit", "--plot", str(tmp_path / name))
        assert done.status == 0, done.err
        assert f"Study {newer[:8]}: newer" in done.out
        assert "3/3" in done.out
        assert "1/2" in done.out
        assert (tmp_path / name).stat().st_size > 2000
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "sgd" in cli("report", older, "--output-root", str(root), "--experiment", "unit").out


def test_what_a_plot_shows(studied, tmp_path, monkeypatch):
    root, _, _ = studied
    found = Results(store_uri(None, root), "unit")
    drawn = {}
    from matplotlib import pyplot as plt

    monkeypatch.setattr(plt, "close", lambda figure: drawn.update(axes=figure.axes[0]))
    figures.plot(found, found.study(), metrics.EVAL_RETURN, tmp_path / "p.png")
    lines = {line.get_label(): line for line in drawn["axes"].get_lines()}
    assert set(lines) == {"adam (n=3, least to largest)", "alphagrad (n=1)"}  # the failed run is not drawn
    x, y = lines["adam (n=3, least to largest)"].get_data()
    assert (x[0], x[-1]) == (10, 30)
    np.testing.assert_allclose(y, 2 * np.asarray(x) + 1)
    assert drawn["axes"].get_ylabel() == metrics.title(metrics.EVAL_RETURN)
    assert drawn["axes"].get_yscale() == "linear"
    figures.plot(found, found.study(), metrics.EVAL_RETURN, tmp_path / "p.png", logarithmic=True)
    assert drawn["axes"].get_yscale() == "log"


def test_report_says_what_is_wrong(studied, cli, tmp_path):
    root, _, _ = studied
    where = ("--output-root", str(root), "--experiment", "unit")
    for words, said in [
        (("--metric", "nope", "--plot", str(tmp_path / "p.png")), ("--metric=nope", metrics.EVAL_RETURN)),
        (("--plot", str(tmp_path / "none/p.png")), ("--plot=", "none/p.png")),
        (("--plot", str(tmp_path / "p.xyz")), ("--plot=", "p.xyz")),
        (("zzz",), ("zzz", "0 studies")),
        (("--experiment", "other"), ("tracking.experiment=other", "unit")),
        (("--uri", "ftp://x"), ("tracking.uri=ftp://x",)),
    ]:
        failed = cli("report", *where, *words)
        assert failed.status == 2, words
        (line,) = failed.err.splitlines()
        assert all(s in line for s in said)
        assert not (tmp_path / "p.png").exists()


def test_reading_changes_nothing(studied, cli):
    root, _, _ = studied
    before = open_store(store_uri(None, root)).search_runs(["1"], order_by=["start_time"])
    assert before
    assert cli("report", "--output-root", str(root), "--experiment", "unit").status == 0
    after = open_store(store_uri(None, root)).search_runs(["1"], order_by=["start_time"])
    assert [r.to_dictionary() for r in before] == [r.to_dictionary() for r in after]
