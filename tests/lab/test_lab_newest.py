"""Which study is the newest, and values that are not finite."""

from __future__ import annotations

import io
import time

import numpy as np
from rich.console import Console

from alphagrad.lab.evidence import figures, report
from alphagrad.lab.evidence.results import Results
from alphagrad.lab.records.run import Tracker
from alphagrad.lab.store.address import store_uri


def test_values_that_are_not_finite_are_told_as_such(lab, root, tmp_path):
    uri = store_uri(None, root)
    for seed in range(2):
        tags = {"seed": str(seed), "configuration": "a", "config_hash": "h"}
        with Tracker(uri, "alphagrad").run("a run", {}, tags) as tracker:
            for step, value in enumerate((1.0, float("inf"), float("-inf"), float("nan"), float("inf"))):
                tracker.metrics(step, {"eval/return": value})
    results = Results(uri, "alphagrad")
    found = results.study()
    assert found.groups[0].values("eval/return") == [float("inf")] * 2
    _, values = results.history(found.groups[0].runs[0], "eval/return")
    np.testing.assert_array_equal(values, [1.0, np.inf, -np.inf, np.nan, np.inf])
    assert found.groups[0].runs[0].tags["alphagrad.nonfinite"] == "eval/return: inf at step 1"
    console = Console(width=200, file=io.StringIO())
    console.print(report.study_table(found))
    assert "inf" in console.file.getvalue()
    figures.plot(results, found, "eval/return", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").exists()


def test_the_newest_study_is_the_last_that_was_recorded(lab, root, monkeypatch):
    """Though the clock went backwards meanwhile."""
    uri, real = store_uri(None, root), time.time
    for number in range(3):
        monkeypatch.setattr(time, "time", lambda number=number: real() - 1000 * number)
        with Tracker(uri, "alphagrad").run(f"study {number}", {}, {"alphagrad.kind": "study"}):
            pass
    monkeypatch.setattr(time, "time", real)
    assert Results(uri, "alphagrad").named().info.run_name == "study 2"
