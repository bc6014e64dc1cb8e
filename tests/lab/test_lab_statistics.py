"""Intervals that cover what they promise, aggregates as rliable has them, tests that find nothing where nothing is."""

from __future__ import annotations

import importlib.util
import logging
import math
import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tiers import long

from alphagrad.lab.evidence.statistics import aggregates, comparisons, curves
from alphagrad.lab.evidence.statistics.intervals import _means, interval, intervals, of_mean, of_median

DRAWN = {
    "normal": (lambda rng, size: rng.normal(size=size), 0.0, 0.0),
    "uniform": (lambda rng, size: rng.uniform(size=size), 0.5, 0.5),
    "exponential": (lambda rng, size: rng.exponential(size=size), 1.0, math.log(2)),
    "gumbel": (lambda rng, size: rng.gumbel(size=size), np.euler_gamma, -math.log(math.log(2))),
}
"""Distribution → how it is drawn, its mean and its median."""


def covered(bounds: tuple[np.ndarray, np.ndarray], truth: float) -> float:
    low, high = bounds
    return float(np.mean((low <= truth) & (truth <= high)))


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("count", [5, pytest.param(7, marks=pytest.mark.slow), *long(10)])
def test_intervals_cover_what_they_promise(name, count):
    """95 % of 2,000 simulated studies, whose own error is half a percent."""
    draw, mean, median = DRAWN[name]
    rows = draw(np.random.default_rng(7), (count, 2000))
    assert 0.92 <= covered(intervals(rows), mean) <= 0.98
    assert 0.92 <= covered(of_median(rows), median) <= 0.98
    assert covered(percentile(rows), mean) < 0.92  # what a plain bootstrap of so few values does


@pytest.mark.long
def test_interval_of_an_interquartile_mean_covers():
    rows = np.random.default_rng(3).normal(size=(8, 2000))
    assert 0.93 <= covered(intervals(rows, "iqm"), 0.0) <= 0.97


def percentile(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(0).integers(len(rows), size=(500, len(rows)))
    low, high = np.quantile(rows[drawn].mean(1), [0.025, 0.975], axis=0)
    return low, high


def test_the_studentized_bootstrap_against_one_written_out():
    values = np.array([1.0, 2.0, 4.0, 8.0, 9.0])
    error, rng = values.std(ddof=1) / math.sqrt(5), np.random.default_rng(5)
    ts = []
    for _ in range(20_000):
        drawn = rng.choice(values, 5)
        if (own := drawn.std(ddof=1) / math.sqrt(5)) > 0:
            ts.append((drawn.mean() - values.mean()) / own)
    below, above = np.quantile(ts, [0.025, 0.975])
    assert interval(values.tolist()) == pytest.approx(
        (values.mean() - above * error, values.mean() - below * error), rel=0.06
    )


def test_too_few_values_have_no_interval():
    """Of two or three nothing covers 95 %; equal ones have no width; an infinite one has no mean."""
    assert [interval(values) for values in ([], [1.0], [1.0, 2.0], [1.0, 2.0, 3.0])] == [None] * 4
    assert interval([1.0, 2.0, 3.0, 4.0]) is not None
    assert [interval([1.0] * 4, "median"), interval([1.0] * 5, "iqm")] == [None, None]
    assert interval([500.0] * 5) == (500.0, 500.0)
    assert interval([1.0, 2.0, 3.0, math.inf, 5.0]) is None


def test_values_at_a_ceiling_have_students_interval():
    """Of four equal values and another, a third of all resamples has no spread."""
    values = [500.0, 500.0, 500.0, 500.0, 480.0]
    error = np.std(values, ddof=1) / math.sqrt(5)
    expected = stats.t.interval(0.95, 4, loc=496.0, scale=error)
    assert interval(values) == pytest.approx(expected)


@pytest.mark.parametrize("count", [2, 5, 8])
def test_equal_gaps_are_no_certainty(count):
    """Without spread Student's test would give p = 0, of two seeds already."""
    first, second = {n: 1.0 + n for n in range(count)}, {n: 1.5 + n for n in range(count)}
    expected = stats.binomtest(0, count, 0.5).pvalue
    assert comparisons.difference(first, second).p == pytest.approx(expected)
    apart = comparisons.difference(dict.fromkeys(range(count), 1.0), dict.fromkeys(range(50, 50 + count), 2.0))
    assert apart.p == pytest.approx(2 / math.comb(2 * count, count))


def test_no_bound_is_absurdly_far():
    """Of four values close together and another, resamples have next to no spread, and their t is in the thousands."""
    values = [330.0, 330.1, 330.2, 330.3, 150.0]
    error = np.std(values, ddof=1) / math.sqrt(5)
    low, high = interval(values)
    assert max(np.mean(values) - low, high - np.mean(values)) <= stats.t.ppf(0.9995, 4) * error * (1 + 1e-12)
    assert low < np.mean(values) < high


@settings(max_examples=30)
@given(
    st.lists(st.integers(-100, 100), min_size=5, max_size=9, unique=True),
    st.sampled_from([0.25, 1.0, 8.0]),
    st.integers(-100, 100),
)
def test_an_interval_moves_and_grows_with_its_values(values, scale, shift):
    low, high = interval(values)
    assert low <= high
    moved = interval([scale * v + shift for v in values])
    assert moved == pytest.approx((scale * low + shift, scale * high + shift), rel=1e-6, abs=1e-6)


@pytest.fixture(scope="module")
def rliable():
    """rliable, with what it needs of arch, whose models do not load beside pandas 3, and Python's logging for absl's.

    absl's handler closes the stream that it was made with once Hydra sets logging up, and pytest writes to that.
    """
    found = importlib.util.find_spec("arch")
    bare, absl = types.ModuleType("arch"), types.ModuleType("absl")
    bare.__path__, absl.logging = list(found.submodule_search_locations), logging
    sys.modules.update(arch=bare, absl=absl)
    from rliable import library, metrics

    yield library, metrics
    for name in [name for name in sys.modules if name.partition(".")[0] in ("arch", "absl", "rliable")]:
        del sys.modules[name]


@pytest.mark.parametrize("shape", [(5, 1), (6, 4), (10, 7)])
@pytest.mark.long
def test_aggregates_agree_with_rliable(rliable, shape):
    library, metrics = rliable
    rng = np.random.default_rng(shape)
    first, second = rng.normal(0.5, 0.3, shape), rng.exponential(0.6, shape)
    ours = (aggregates.mean, aggregates.median, aggregates.iqm, aggregates.optimality_gap)

    def theirs(scores):
        return np.array(
            [
                metrics.aggregate_mean(scores),
                metrics.aggregate_median(scores),
                metrics.aggregate_iqm(scores),
                metrics.aggregate_optimality_gap(scores, 1.0),
            ]
        )

    points, bounds = library.get_interval_estimates({"a": first}, theirs, reps=4000)
    assert [float(of(first)) for of in ours] == pytest.approx(points["a"].tolist())
    for number, of in enumerate(ours):
        # the quantiles of 2,000 and 4,000 resamples
        assert aggregates.stratified(first, of) == pytest.approx(
            tuple(bounds["a"][:, number]), abs=0.06 if shape[1] == 1 else 0.035
        )
    assert aggregates.improvement(first, second) == pytest.approx(metrics.probability_of_improvement(first, second))
    levels = np.linspace(-0.5, 2, 9)
    shares, bands = library.create_performance_profile({"a": first}, levels, reps=2000)
    assert aggregates.profile(first, levels).tolist() == pytest.approx(shares["a"].tolist())
    low, high = aggregates.profile_band(first, levels)
    assert low == pytest.approx(bands["a"][0], abs=0.07)
    assert high == pytest.approx(bands["a"][1], abs=0.07)


def test_probability_of_improvement():
    larger, smaller = np.array([[3.0], [4.0]]), np.array([[1.0], [2.0], [2.5]])
    assert aggregates.improvement(larger, smaller) == 1
    assert aggregates.improvement(smaller, larger) == 0
    assert aggregates.improvement(larger, larger) == 0.5
    low, high = aggregates.improvement_interval(np.array([[1.0], [3.0]]), np.array([[2.0], [2.0]]))
    assert (low, high) == (0.0, 1.0)


def test_a_comparison_over_common_seeds_is_paired():
    """Runs of one seed share their beginning: what seeds differ in counts for nothing."""
    base = {seed: 100.0 * seed for seed in range(6)}
    better = {seed: value + 1 + 0.1 * (seed % 3) for seed, value in base.items()}
    paired = comparisons.difference(better, base)
    assert (paired.paired, paired.seeds) == (True, 6)
    assert paired.mean == pytest.approx(1.1)
    assert paired.p == pytest.approx(stats.ttest_rel(list(better.values()), list(base.values())).pvalue)
    assert paired.interval[0] > 0.9
    other = comparisons.difference({seed + 100: value for seed, value in better.items()}, base)
    assert not other.paired
    assert other.p > 0.9
    welch = stats.ttest_ind(list(better.values()), list(base.values()), equal_var=False)
    assert other.p == pytest.approx(welch.pvalue)


def test_comparisons_that_cannot_be_tested():
    assert math.isnan(comparisons.difference({0: 1.0}, {0: 2.0}).p)
    assert math.isnan(comparisons.difference({0: 1.0, 1: math.inf}, {0: 2.0, 1: 1.0}).p)
    assert comparisons.difference({0: 1.0, 1: 1.0}, {0: 1.0, 1: 1.0}).p == 1
    assert comparisons.difference({0: 2.0, 1: 2.0}, {0: 1.0, 1: 1.0}).p == 0.5  # the sign test
    assert math.isnan(comparisons.difference({}, {0: 1.0}).mean)


def test_holm_against_the_rule_written_out():
    assert comparisons.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    told = comparisons.holm([0.5, math.nan, 0.001])
    assert told[0] == 0.5
    assert math.isnan(told[1])
    assert told[2] == pytest.approx(0.002)
    assert comparisons.holm([]) == []


@pytest.mark.long
def test_corrected_tests_keep_five_percent_family_wise():
    """Four configurations that are equal, six pairs: a false finding in at most 5 % of 600 studies, give or take 2."""
    rng = np.random.default_rng(11)
    found = raw = 0
    for _ in range(600):
        cells = [dict(enumerate(rng.normal(size=6))) for _ in range(4)]
        ps = [comparisons.difference(cells[a], cells[b]).p for a in range(4) for b in range(a)]
        found += min(comparisons.holm(ps)) < 0.05
        raw += min(ps) < 0.05
    assert found / 600 <= 0.075
    assert raw / 600 > 0.12


def test_seeds_needed_find_the_difference_as_often_as_they_say():
    count = comparisons.seeds_needed(1.0, 1.5)
    assert count == 20  # Cohen's tables: 20 pairs for an effect of 2/3
    rng = np.random.default_rng(2)
    pairs = rng.normal(1.0, 1.5, (count, 4000))
    assert np.mean(stats.ttest_1samp(pairs, 0).pvalue < 0.05) == pytest.approx(0.8, abs=0.03)
    assert comparisons.power_of(count - 1, 1.0, 1.5) < 0.8
    assert comparisons.seeds_needed(1.0, 0.0) == 2
    assert comparisons.seeds_needed(0.0, 1.0) is None
    assert comparisons.seeds_needed(1e-9, 1.0) is None
    assert comparisons.seeds_needed(math.nan, 1.0) is None


def test_curves_are_lined_up_on_measured_steps():
    one = np.array([0, 10, 20, 30]), np.array([0.0, 1.0, 4.0, 9.0])
    grid, rows = curves.lined_up([one, (np.array([0, 10, 30]), np.array([1.0, 1.0, 1.0]))])
    assert grid.tolist() == [0, 10, 30]
    assert rows.tolist() == [[0, 1, 9], [1, 1, 1]]
    grid, rows = curves.lined_up([one, (np.array([5, 25]), np.array([5.0, 25.0]))])
    assert grid.tolist() == [2.5, 20]  # of 0 | 10, 20 and of 5 | 25
    assert rows.tolist() == [[0, 2.5], [5, 25]]
    grid, rows = curves.lined_up([one, (np.array([30]), np.array([7.0]))])
    assert rows.tolist() == [[9], [7]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sets(st.integers(0, 60), min_size=1), min_size=1, max_size=4), st.integers(1, 9))
def test_lined_up_values_are_means_of_measured_ones(all_steps, points):
    """Of curves y = x too, the rows are steps; those of all lie within the curve's own, and rise."""
    own = [(np.array(sorted(steps)), np.array(sorted(steps), dtype=float)) for steps in all_steps]
    grid, rows = curves.lined_up(own, points)
    assert len(grid) >= 1
    assert (np.diff(rows, axis=1) > 0).all()
    np.testing.assert_allclose(rows.mean(0), grid)
    for (steps, _), row in zip(own, rows, strict=True):
        assert steps[0] <= row[0]
        assert row[-1] <= steps[-1]


def test_the_fast_bootstrap_of_means_is_the_plain_one():
    rng = np.random.default_rng(2)
    rows = 1000 + rng.normal(size=(5, 30)).round(1)
    drawn = rng.integers(5, size=(400, 5))
    for fast, plain in zip(_means(rows, drawn), of_mean(rows[drawn]), strict=True):
        np.testing.assert_allclose(fast, plain, rtol=0, atol=2e-8)


def test_what_a_curve_amounts_to():
    curve = np.array([0, 10, 30]), np.array([0.0, 2.0, 2.0])
    assert curves.area(curve) == pytest.approx((10 * 1 + 20 * 2) / 30)
    assert curves.area((np.array([5]), np.array([3.0]))) == 3
    assert curves.reached(curve, 2.0) == 10
    assert curves.reached(curve, 2.1) == math.inf
    assert curves.reached(curve, 0.0, "min") == 0
    assert curves.drawdown(np.array([1.0, 5.0, 2.0, 4.0, 3.0])) == 3
    assert curves.drawdown(np.array([1.0, 2.0, 3.0])) == 0
    assert curves.drawdown(np.array([3.0, 1.0, 2.5]), "min") == 1.5


def test_the_variance_about_the_trend_is_that_of_the_noise():
    rng = np.random.default_rng(4)
    noise = rng.normal(0, 2.0, 20_000)
    assert curves.detrended_variance(3 + 0.5 * np.arange(20_000) + noise) == pytest.approx(4.0, rel=0.05)
    assert curves.detrended_variance(np.arange(10.0)) == pytest.approx(0, abs=1e-12)
    assert math.isnan(curves.detrended_variance(np.array([1.0, 2.0])))
