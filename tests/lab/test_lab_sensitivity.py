"""What a report says of the numbers that were varied."""

from __future__ import annotations

import numpy as np
import pytest
from test_lab_page import page, run, section, subject_of, table

from alphagrad.harness import metrics
from alphagrad.lab.evidence.page import sensitivity


def valley_runs():
    """Returns by α, five seeds, the best 10 at α = 30; α = 300 diverges."""
    means = {"3": 2.0, "10": 9.2, "30": 10.0, "100": 9.4, "300": None}
    for alpha, mean in means.items():
        for seed in range(5):
            settings = {"alpha.value": alpha, "seed": str(seed), "optimizer.lr": "0.1"}
            how = ("FINISHED", "finished") if mean else ("FAILED", "diverged")
            yield run(f"a alpha.value={alpha}", seed, mean and mean + 0.01 * (seed - 2), *how, settings)


def test_the_best_value_and_its_valley():
    found = page(list(valley_runs()))
    (row,) = table(section(found, "Sensitivity")).rows
    assert row[:3] == ["alpha.value", "all", "30"]
    assert row[4:] == ["10 to 100", "1.00", "3 to 300 (5)", "300"]
    assert "over/alpha.value" in found.pictures()


def test_survivors_of_divergence_decide_nothing():
    """At the rate 1 four of five runs diverged, and the one that did not ended best of all."""
    rates = {"0.1": [0.82] * 5, "1": [0.95, None, None, None, None]}
    runs = [
        run(f"adam lr={rate}", seed, value, settings={"optimizer.lr": rate, "optimizer.name": "adam"})
        if value is not None
        else run(f"adam lr={rate}", seed, 0.99, "FAILED", "diverged", {"optimizer.lr": rate, "optimizer.name": "adam"})
        for rate, values in rates.items()
        for seed, value in enumerate(values)
    ]
    subject = subject_of(runs)
    assert subject.best().label.endswith("0.1")
    (family,) = sensitivity.families(subject, "optimizer.lr", sensitivity.numbers_of(subject)["optimizer.lr"])
    assert family.best(subject) == (0.1, pytest.approx(0.82))
    assert family.valley(subject) == [0.1]
    curve = (np.array([0.0, 5.0]), np.array([0.0, 0.9]))
    found = page(runs, {(one.info.run_id, metrics.EVAL_RETURN): curve for one in runs})
    rows = {row[0]: row[1] for row in table(section(found, "Speed and stability")).rows}
    assert {label.rpartition("=")[2]: reached for label, reached in rows.items()} == {"0.1": "5/5", "1": "1/5"}


def test_a_map_over_two_settings():
    runs = [
        run(f"a alpha.value={alpha} optimizer.lr={rate}", seed, alpha * rate + seed, settings=settings)
        for alpha in (1, 2)
        for rate in (3, 4)
        for seed in range(2)
        for settings in [{"alpha.value": str(alpha), "optimizer.lr": str(rate)}]
    ]
    own = subject_of(runs)
    (drawn,) = sensitivity.grids(own, "alpha.value", "optimizer.lr", sensitivity.numbers_of(own))
    assert drawn.rows == [[1, 3, 3.5], [2, 3, 6.5], [1, 4, 4.5], [2, 4, 8.5]]
