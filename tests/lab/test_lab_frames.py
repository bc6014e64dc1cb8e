"""A study as tables: a row for each run, or each step of each run, in pandas and in files."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from alphagrad.lab.evidence import frame


@pytest.fixture
def studied(cli, odd, root):
    """A study of two optimizers whose runs with seed 1 diverge."""
    words = ("recipe=odd", "optimizer=sgd,adam", "seed=0,1", "recipe.total_steps=4", "recipe.diverging=[1]")
    cli("run", "-m", *words, f"output_root={root}")
    assert cli("run", "recipe=odd", "seed=7", "recipe.total_steps=2", f"output_root={root}").status == 0
    return root


@pytest.mark.long
def test_runs_curves_and_files(cli, studied, tmp_path):
    runs = frame(output_root=studied)  # the newest study, not the run after it
    assert list(runs["cell"]) == ["sgd", "sgd", "adam", "adam"]
    assert list(runs["seed"]) == [0, 1, 0, 1]
    assert list(runs["status"] == "finished") == [True, False, True, False]
    assert all("diverged" in reason for reason in runs["reason"][runs["seed"] == 1])
    assert set(runs["params.recipe.total_steps"]) == {"4"}
    assert runs["metrics.eval/return"].notna().all()
    assert (runs["seconds"] >= 0).all()
    assert runs["study"].nunique() == 1
    curves = frame(runs["study"][0][:8], curves=["eval/return", "stack"], output_root=studied)
    own = curves[(curves["cell"] == "sgd") & (curves["seed"] == 0)]
    assert list(own["step"]) == [1, 2, 3, 4]
    assert list(own["stack"].isna()) == [True, True, True, False]
    assert own["eval/return"].iloc[-1] == pytest.approx(runs["metrics.eval/return"][0])
    (single,) = frame(frame(curves=False, output_root=studied, experiment="odd")["run_id"][0], output_root=studied)[
        "seed"
    ]
    assert single == 0
    for name, read in (("runs.csv", pd.read_csv), ("runs.parquet", pd.read_parquet)):
        done = cli("export", "--to", str(tmp_path / name), "--output-root", str(studied))
        assert (done.status, done.out.split()[0]) == (0, "4")
        assert list(read(tmp_path / name)["metrics.eval/return"]) == pytest.approx(list(runs["metrics.eval/return"]))
    done = cli("export", "--curves", "--to", str(tmp_path / "curves.parquet"), "--output-root", str(studied))
    assert done.status == 0
    assert {"eval/return", "stack", "threads"} <= set(pd.read_parquet(tmp_path / "curves.parquet").columns)


@pytest.mark.long
def test_wrong_words_are_one_line(cli, studied, tmp_path):
    where = ("--output-root", str(studied))
    for words, told in (
        (("--to", "runs.xlsx"), "--to=runs.xlsx: has to end with one of .csv, .parquet"),
        (("--to", str(tmp_path / "no/runs.csv")), "has to be a file in a folder that exists"),
        (("--to", str(tmp_path / "runs.csv"), "--curves", "nope"), "--curves=nope: no run has this metric; there are"),
        (("ffff", "--to", str(tmp_path / "runs.csv")), "ffff: 0 studies and runs"),
        ((), "--to"),
    ):
        done = cli("export", *words, *where)
        assert (done.status, done.out, len(done.err.splitlines())) == (2, "", 1)
        assert told in done.err
    assert not list(tmp_path.glob("runs*"))


def test_infinity_is_infinity(odd, root):
    from alphagrad.lab.records.run import Tracker
    from alphagrad.lab.store.address import store_uri

    with Tracker(store_uri(None, root), "mine").run("a run", {}, {"seed": "0"}) as tracker:
        tracker.metrics(1, {"loss": math.inf})
        tracker.metrics(2, {"loss": math.nan})
    assert list(frame(curves=True, output_root=root)["loss"].isin([math.inf])) == [True, False]
