"""How the numbers decide a claim."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from alphagrad.common.errors import ConfigError
from alphagrad.lab.evidence.claims import data
from alphagrad.lab.evidence.claims.ledger import Claim
from alphagrad.lab.evidence.claims.verdict import Stand, decide
from alphagrad.lab.evidence.statistics.comparisons import seeds_needed


def claim(seeds: int = 8, studies: tuple = (), worst: dict | None = None, **parts: dict) -> Claim:
    compared = any("than" in part for part in parts.values())
    worst = worst or ({"m": -9.0} if compared else {})
    told = {"title": "t", "says": "s", "section": "1", "objective": "m", "worst": worst}
    return Claim(name="C0", seeds=seeds, studies=studies, parts=parts, **told)


def table(first: float, second: float, spread: float = 0.1, seeds: int = 8) -> pd.DataFrame:
    noise = np.random.default_rng(0).normal(0, spread, seeds)
    noise -= noise.mean()
    rows = [{"seed": n, "optimizer.name": "a", "m": first + noise[n]} for n in range(seeds)]
    return pd.DataFrame([*rows, *({"seed": n, "optimizer.name": "b", "m": second} for n in range(seeds))])


COMPARED = {"says": "a above b", "measure": "m", "first": {"optimizer.name": "a"}, "than": {"optimizer.name": "b"}}


@pytest.mark.parametrize(
    ("gap", "least", "direction", "stand"),
    [
        (1.0, 0.5, "above", "supported"),
        (1.0, 0.5, "below", "refuted"),
        (0.4, 0.5, "above", "refuted"),  # it is there, and smaller than what matters
        (0.48, 0.5, "above", "undecided"),  # it may be as large as what matters
        (0.01, 0.0, "above", "undecided"),
        (-1.0, 0.0, "above", "refuted"),
        (-1.0, 0.5, "below", "supported"),
    ],
)
def test_the_numbers_decide(gap, least, direction, stand):
    own = claim(only=COMPARED | {"least": least, "direction": direction})
    found = decide(own, table(gap, 0.0))
    assert found.stand == found.parts["only"].stand == stand
    assert found.parts["only"].n == 8


def test_what_it_may_miss_is_spared():
    rows = table(-0.3, 0.0)
    assert decide(claim(only=COMPARED), rows).stand == Stand.REFUTED
    assert decide(claim(only=COMPARED | {"within": 1.0}), rows).stand == Stand.SUPPORTED


def test_few_seeds_decide_nothing():
    found = decide(claim(seeds=3, only=COMPARED), table(5.0, 0.0, seeds=3))
    assert found.stand == Stand.UNDECIDED
    assert found.parts["only"].interval is None


def test_runs_that_diverged_count_as_the_worst():
    rows = table(1.0, 0.0)
    rows.loc[(rows["optimizer.name"] == "a") & (rows["seed"] < 6), "m"] = np.nan
    assert decide(claim(only=COMPARED), rows).parts["only"].effect == pytest.approx(
        np.mean([-9.0] * 6 + list(rows["m"][6:8]))
    )


@pytest.mark.parametrize(("worst", "counts"), [(-9.0, -20.0), (-30.0, -30.0), (9.0, 9.0), (1.5, 2.0)])
def test_no_run_that_finished_is_worse_than_one_that_did_not(worst, counts):
    """Worse is where the claim's worst lies, seen from the median."""
    rows = table(1.0, 0.0, spread=0.0)
    rows.loc[[0, 8, 9], "m"] = [np.nan, -20.0, 2.0]
    own = claim(only=COMPARED).model_copy(update={"worst": {"m": worst}})
    assert decide(own, rows).parts["only"].values[0] == pytest.approx(counts + 20.0)


def test_a_negative_value_has_no_logarithm_and_counts_as_the_worst_that_is_named():
    """And so does a run that failed, though the worst of the finished ones is negative."""
    rows = table(100.0, 1000.0, spread=0.0)
    own = claim(only=COMPARED | {"log": True, "direction": "below", "least": 0.5}, worst={"m": 1.0})
    assert decide(own, rows).parts["only"].effect == pytest.approx(-1.0)
    rows.loc[rows.index[:2], "m"] = -3.0
    rows["status"] = ["finished"] * 2 + ["failed"] + ["finished"] * (len(rows) - 3)
    found = decide(own, rows).parts["only"]
    assert sorted(found.values) == pytest.approx([-3.0] * 3 + [-1.0] * 5)
    assert found.stand == Stand.SUPPORTED


def test_the_worst_of_a_logarithm_is_above_zero():
    with pytest.raises(ValueError, match="worst of m has to be above 0"):
        claim(only=COMPARED | {"log": True}, worst={"m": 0.0})


@pytest.mark.parametrize(
    ("gap", "part", "apart"),
    [
        (0.02, {"least": 0.1}, 0.1),  # what matters cannot be told from nothing
        (0.93, {"least": 1.0}, 0.07),  # it can, but not from what is seen
        (-0.93, {"least": 1.0, "direction": "below"}, 0.07),
        (-0.93, {"within": 1.0}, 0.07),
        (1.02, {"within": 1.0, "direction": "equal"}, 0.02),
        (0.02, {}, 0.02),
    ],
)
def test_how_many_seeds_would_settle_it(gap, part, apart):
    rows = table(gap, 0.0, spread=0.25)
    found = decide(claim(only=COMPARED | part), rows).parts["only"]
    assert found.stand == Stand.UNDECIDED
    assert found.more == seeds_needed(apart, np.std(found.values, ddof=1))
    assert found.more > 8


def test_what_is_compared_has_a_worst():
    with pytest.raises(ValueError, match="worst has to name what is compared, and nothing else; m differs"):
        Claim(name="C0", title="t", says="s", section="1", objective="m", seeds=8, parts={"only": COMPARED})
    with pytest.raises(ValueError, match="other differs"):
        claim(only=COMPARED).__class__(**claim(only=COMPARED).model_dump() | {"worst": {"m": 0.0, "other": 1.0}})


@pytest.mark.parametrize(
    ("gap", "spread", "stand"),
    [(12.0, 0.01, "supported"), (12.3, 0.01, "refuted"), (11.7, 0.01, "refuted"), (12.0, 1.0, "undecided"),
     (12.09, 0.05, "undecided")],
)  # fmt: skip
def test_that_two_are_equal_is_asked_on_both_sides(gap, spread, stand):
    own = claim(only=COMPARED | {"direction": "equal", "offset": 12.0, "within": 0.1})
    found = decide(own, table(gap, 0.0, spread))
    assert found.stand == stand
    assert found.parts["only"].effect == pytest.approx(gap)
    failed = table(gap, 0.0, spread)
    failed.loc[:7, "m"] = np.nan
    assert decide(own, failed).stand == "refuted"


def test_pairs_are_those_that_were_declared():
    rows = table(1.0, 0.0, seeds=20)
    found = decide(claim(only=COMPARED), rows).parts["only"]
    assert (found.stand, found.n, found.wanted) == ("supported", 8, 8)
    short = decide(claim(only=COMPARED), rows[rows["seed"] != 3]).parts["only"]
    assert (short.stand, short.n, short.wanted) == ("undecided", 7, 8)
    one_side = rows.drop(index=5)
    assert decide(claim(only=COMPARED), one_side).parts["only"].n == 7


def test_a_run_that_failed_counts_as_the_worst_whatever_it_logged_last():
    rows = table(1.0, 0.0)
    rows["status"] = "finished"
    rows.loc[0, "status"] = "failed"
    own = claim(only=COMPARED).model_copy(update={"worst": {"m": -9.0}})
    assert decide(own, rows).parts["only"].effect == pytest.approx((rows["m"][1:8].sum() - 9.0) / 8)
    bound = claim(only={"says": "s", "measure": "m", "at_least": 0.0})
    assert decide(bound, rows.assign(status="finished", m=1.0)).stand == Stand.SUPPORTED
    assert decide(bound, rows.assign(status="finished", m=1.0), whole=False).stand == Stand.UNDECIDED
    assert decide(bound, rows.assign(m=1.0)).stand == Stand.REFUTED


@pytest.mark.parametrize(
    ("kept", "asked"), [("None", None), ("0.001", 1e-3), ("1e-3", 0.001), ("True", True), ("adam", "adam")]
)
def test_a_setting_is_found_as_it_was_kept(tmp_path, kept, asked):
    own = claim(only=COMPARED)
    rows = pd.DataFrame([{"seed": n, "clip": clip, "m": 1.0} for n in range(4) for clip in (kept, "other")])
    data.keep(tmp_path, own, rows, data.Origin((), "c", {}, 8, "d"))
    again, _ = data.read(tmp_path, own)
    bound = claim(only={"says": "s", "measure": "m", "first": {"clip": asked}, "at_least": 1.0})
    assert decide(bound, again).parts["only"].n == 4


def test_the_best_rate_is_chosen_on_other_seeds_than_it_is_judged_on():
    """A rate that shines on the even seeds alone is chosen, and its odd seeds count."""
    rows = [
        {"seed": n, "optimizer.name": who, "lr": lr, "m": value}
        for n in range(20)
        for who, lr, value in (
            ("a", 0.1, 9.0 if n % 2 == 0 else 1.0 + 0.01 * n),
            ("a", 0.2, 5.0),
            ("b", 0.1, 0.0),
            ("b", 0.2, -1.0),
        )
    ]
    found = decide(claim(seeds=20, only=COMPARED | {"best": ["lr"]}), pd.DataFrame(rows)).parts["only"]
    assert found.n == 10
    assert found.effect == pytest.approx(np.mean([1.0 + 0.01 * n for n in range(1, 20, 2)]))
    assert found.chosen == "a: lr=0.1; b: lr=0.1"


def test_no_best_rate_is_chosen_before_all_rates_have_runs():
    studies = (("optimizer=a,b", "lr=0.1"), ("optimizer=a,b", "lr=2e-1"), ("optimizer=c", "lr=7"))
    own = claim(seeds=16, studies=studies, only=COMPARED | {"best": ["lr"]})
    rows = [
        {"seed": n, "optimizer.name": who, "lr": lr, "m": (who == "a") + 0.01 * n}
        for n in range(16)
        for who in "ab"
        for lr in (0.1, 0.2)
    ]
    assert decide(own, pd.DataFrame(rows)).stand == "supported"
    assert decide(own, pd.DataFrame([row for row in rows if row["lr"] == 0.1])).stand == "undecided"
    lacking = [row for row in rows if (row["lr"], row["seed"], row["optimizer.name"]) != (0.2, 4, "a")]
    assert decide(own, pd.DataFrame(lacking)).stand == "undecided"
    beyond = [{"seed": n, "optimizer.name": "b", "lr": 7.0, "m": 100.0} for n in range(16)]
    assert decide(own, pd.DataFrame([*rows, *beyond])).parts["only"].chosen == "a: lr=0.1; b: lr=0.1"
    assert decide(own, pd.DataFrame(rows).drop(columns="lr"), whole=False).stand == "undecided"


def test_a_bound_holds_for_every_run():
    own = claim(only={"says": "s", "measure": "m", "at_most": 1.0})
    rows = table(0.5, 0.5, spread=0.0)
    assert decide(own, rows).stand == Stand.SUPPORTED
    rows.loc[3, "m"] = 1.5
    assert decide(own, rows).stand == Stand.REFUTED
    assert decide(own, rows).parts["only"].effect == 1.5
    rows.loc[3, "m"] = np.nan
    assert decide(own, rows).stand == Stand.REFUTED
    assert decide(own, rows.drop(columns="m"), whole=False).stand == Stand.UNDECIDED


def test_a_bound_is_not_kept_by_all_while_a_seed_is_missing():
    own = claim(only={"says": "s", "measure": "m", "at_most": 1.0})
    rows = table(0.5, 0.5, spread=0.0)
    assert decide(own, rows[rows["seed"] != 3]).stand == Stand.UNDECIDED
    assert decide(own, rows.replace({"seed": {3: 14}})).stand == Stand.UNDECIDED
    rows.loc[0, "m"] = 1.5
    assert decide(own, rows[rows["seed"] != 3]).stand == Stand.REFUTED


def test_a_bounds_effect_is_the_value_nearest_to_breaking_it():
    own = claim(only={"says": "s", "measure": "m", "at_least": 0.0, "at_most": 1.0})
    rows = table(0.5, 0.8, spread=0.0)
    rows.loc[2, "m"] = 0.1
    assert decide(own, rows).parts["only"].effect == 0.1


@pytest.mark.parametrize(
    ("needs", "unopposed", "directions", "stand"),
    [
        (None, False, ("above", "above"), "supported"),
        (None, False, ("above", "below"), "refuted"),
        (None, False, ("above", "open"), "undecided"),
        (1, False, ("above", "below"), "supported"),
        (1, True, ("above", "below"), "undecided"),
        (1, False, ("below", "below"), "refuted"),
        (1, False, ("below", "open"), "undecided"),
        (2, False, ("below", "below", "open"), "refuted"),
        (2, True, ("below", "below", "above"), "undecided"),
        (1, True, ("above", "above"), "supported"),
    ],
)
def test_how_parts_make_a_verdict(needs, unopposed, directions, stand):
    changes = {"above": {}, "below": {"direction": "below"}, "open": {"least": 1.03}}
    own = claim(**{f"p{n}": COMPARED | changes[way] for n, way in enumerate(directions)})
    own = own.model_copy(update={"needs": needs, "unopposed": unopposed})
    assert decide(own, table(1.0, 0.0)).stand == stand


def test_nothing_run_is_undecided():
    assert decide(claim(only=COMPARED), None).stand == Stand.UNDECIDED


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"measure": "n"}, "C0: only: no run that finished has n"),
        ({"measure": "void"}, "C0: only: no run that finished has void"),
        ({"first": {"optimizer.name": "c"}}, "C0: only: no run has optimizer.name=c"),
        ({"than": {"optimizer.nam": "b"}}, "C0: only: no run has optimizer.nam=b"),
        ({"best": ["rate"]}, "C0: only: no run has rate, whose best value is asked for"),
    ],
)
def test_a_name_that_no_run_has_decides_nothing(part, told):
    """Misspelt, it would be decided by the worst of both sides. While runs are missing it may still come."""
    rows = table(1.0, 0.0).assign(void=np.nan)
    measure = part.get("measure", "m")
    own = claim(worst={measure: -9.0}, only=COMPARED | part)
    with pytest.raises(ConfigError, match=told):
        decide(own, rows)
    assert decide(own, rows, whole=False).parts["only"].stand == "undecided"


def test_where_no_run_finished_all_count_as_the_worst():
    found = decide(claim(only=COMPARED), table(1.0, 0.0).assign(status="failed", m=np.nan))
    assert found.parts["only"].effect == 0.0
    spared = claim(only=COMPARED | {"within": 1.0})
    assert decide(spared, table(1.0, 0.0).assign(status="failed", m=np.nan)).stand == Stand.UNDECIDED
    one_side = table(1.0, 0.0)
    one_side["status"] = ["failed"] * 8 + ["finished"] * 8
    assert decide(spared, one_side).stand == Stand.REFUTED
