"""The ledger of claims: its rules, its evidence, and that the numbers decide."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from alphagrad.common.errors import ConfigError
from alphagrad.lab.config import compose, sweep
from alphagrad.lab.config.alike import compose_all
from alphagrad.lab.evidence.claims import data, ledger
from alphagrad.lab.evidence.claims.ledger import Claim, Part
from alphagrad.lab.evidence.claims.verdict import Stand, decide

ROOT = Path(__file__).resolve().parents[2]
EVIDENCE = ROOT / "evidence"


def claim(**parts: dict) -> Claim:
    return Claim(name="C0", title="t", says="s", section="1", objective="m", seeds=8, parts=parts)


def table(first: float, second: float, spread: float = 0.1, seeds: int = 8) -> pd.DataFrame:
    noise = np.random.default_rng(0).normal(0, spread, seeds)
    noise -= noise.mean()
    rows = [{"seed": n, "optimizer.name": "a", "m": first + noise[n]} for n in range(seeds)]
    return pd.DataFrame([*rows, *({"seed": n, "optimizer.name": "b", "m": second} for n in range(seeds))])


COMPARED = {"says": "a above b", "measure": "m", "first": {"optimizer.name": "a"}, "than": {"optimizer.name": "b"}}


def test_every_claim_of_the_paper_has_a_file():
    assert ledger.names() == [f"C{number}" for number in range(1, 16)]
    for name in ledger.names():
        one = ledger.claim(name)
        assert one.studies or one.script
        assert all(part.says for part in one.parts.values())


@pytest.mark.parametrize("name", ledger.names())
def test_the_studies_of_a_claim_can_be_run(lab, tmp_path, name):
    """Some of the configurations are composed, with one seed, as a run would be."""
    for words in ledger.claim(name).studies:
        one = [re.sub(r"^seed=range\(.*\)$", "seed=0", word) for word in words]
        with compose.hydra_initialized():
            lists = sweep.jobs_of([*sweep.sweep_parameters(one), *one])
            assert compose_all([*lists[::9], lists[-1]])


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
    found = decide(claim(only=COMPARED), table(5.0, 0.0, seeds=3))
    assert found.stand == Stand.UNDECIDED
    assert found.parts["only"].interval is None


def test_runs_that_diverged_count_as_the_worst():
    rows = table(1.0, 0.0)
    rows.loc[(rows["optimizer.name"] == "a") & (rows["seed"] < 6), "m"] = np.nan
    own = claim(only=COMPARED)
    assert decide(own, rows).stand == Stand.UNDECIDED  # no worst value is known, so nothing is tested
    assert decide(own.model_copy(update={"worst": {"m": -9.0}}), rows).parts["only"].effect == pytest.approx(
        np.mean([-9.0] * 6 + list(rows["m"][6:8]))
    )


def test_a_run_that_failed_counts_as_the_worst_whatever_it_logged_last():
    rows = table(1.0, 0.0)
    rows["status"] = "finished"
    rows.loc[0, "status"] = "failed"
    own = claim(only=COMPARED).model_copy(update={"worst": {"m": -9.0}})
    assert decide(own, rows).parts["only"].effect == pytest.approx((rows["m"][1:8].sum() - 9.0) / 8)
    bound = claim(only={"says": "s", "measure": "m", "at_least": 0.0})
    assert decide(bound, rows.assign(status="finished", m=1.0)).stand == Stand.SUPPORTED
    assert decide(bound, rows.assign(m=1.0)).stand == Stand.REFUTED


@pytest.mark.parametrize(
    ("kept", "asked"), [("None", None), ("0.001", 1e-3), ("1e-3", 0.001), ("True", True), ("adam", "adam")]
)
def test_a_setting_is_found_as_it_was_kept(tmp_path, kept, asked):
    own = claim(only=COMPARED)
    rows = pd.DataFrame([{"seed": n, "clip": clip, "m": 1.0} for n in range(4) for clip in (kept, "other")])
    data.keep(tmp_path, own, rows, data.Origin(("c",), "c", {}, 8, "d"))
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
    found = decide(claim(only=COMPARED | {"best": ["lr"]}), pd.DataFrame(rows)).parts["only"]
    assert found.n == 10
    assert found.effect == pytest.approx(np.mean([1.0 + 0.01 * n for n in range(1, 20, 2)]))
    assert found.chosen == "a: lr=0.1; b: lr=0.1"


def test_no_best_rate_is_chosen_before_all_rates_have_runs():
    studies = (("optimizer=a,b", "lr=0.1"), ("optimizer=a,b", "lr=2e-1"), ("optimizer=c", "lr=7"))
    own = Claim(
        name="C0", title="t", says="s", section="1", objective="m", seeds=8, studies=studies,
        parts={"only": COMPARED | {"best": ["lr"]}},
    )  # fmt: skip
    rows = [
        {"seed": n, "optimizer.name": who, "lr": lr, "m": (who == "a") + 0.01 * n}
        for n in range(16)
        for who in "ab"
        for lr in (0.1, 0.2)
    ]
    assert decide(own, pd.DataFrame(rows)).stand == "supported"
    assert decide(own, pd.DataFrame([row for row in rows if row["lr"] == 0.1])).stand == "undecided"


def test_a_bound_holds_for_every_run():
    own = claim(only={"says": "s", "measure": "m", "at_most": 1.0})
    rows = table(0.5, 0.5, spread=0.0)
    assert decide(own, rows).stand == Stand.SUPPORTED
    rows.loc[3, "m"] = 1.5
    assert decide(own, rows).stand == Stand.REFUTED
    rows.loc[3, "m"] = np.nan
    assert decide(own, rows).stand == Stand.REFUTED


@pytest.mark.parametrize(
    ("needs", "directions", "stand"),
    [
        (None, ("above", "above"), "supported"),
        (None, ("above", "below"), "refuted"),
        (1, ("above", "below"), "undecided"),
        (1, ("below", "below"), "refuted"),
        (1, ("above", "above"), "supported"),
    ],
)
def test_how_parts_make_a_verdict(needs, directions, stand):
    own = claim(**{f"p{n}": COMPARED | {"direction": d} for n, d in enumerate(directions)})
    assert decide(own.model_copy(update={"needs": needs}), table(1.0, 0.0)).stand == stand


def test_nothing_run_is_undecided():
    assert decide(claim(only=COMPARED), None).stand == Stand.UNDECIDED


@pytest.mark.parametrize("part", [{"than": 1.0, "at_most": 2.0}, {}, {"than": 1.0, "least": -1.0}])
def test_a_part_says_one_thing(part):
    with pytest.raises(ValueError, match=r"has to|must be"):
        Part(says="s", measure="m", **part)


def test_the_evidence_is_read_back_as_it_was(tmp_path):
    own, rows = claim(only=COMPARED), table(1.0, 0.0)
    origin = data.Origin(("a command",), "c0ffee", {"torch": "2"}, len(rows), "2026-01-01")
    data.keep(tmp_path, own, rows, origin)
    again, whence = data.read(tmp_path, own)
    pd.testing.assert_frame_equal(again, rows)
    assert whence.commit == "c0ffee"
    before = (tmp_path / "C0.csv.gz").read_bytes()
    data.keep(tmp_path, own, rows, origin)
    assert (tmp_path / "C0.csv.gz").read_bytes() == before
    (tmp_path / "C0.csv.gz").write_bytes(b"\x00damaged")
    with pytest.raises(ConfigError, match="is damaged"):
        data.read(tmp_path, own)


def test_the_page_is_made_again_from_what_is_kept(cli, tmp_path):
    """And a number that is changed changes the verdict."""
    kept = tmp_path / "evidence"
    shutil.copytree(EVIDENCE, kept)
    page = tmp_path / "claims.md"
    done = cli("claims", "--evidence", str(kept), "--page", str(page))
    assert done.status == 0, done.err
    assert page.read_text() == (ROOT / "docs" / "results" / "claims.md").read_text()
    assert "| [C9](#c9) | tensor-wise" in page.read_text()
    assert page.read_text().count("\n## C") == 15
    table = pd.read_csv(kept / "C9.csv.gz")
    table.loc[table["normalization"] == "tensor", ["roughness", "diverged"]] -= 1.0
    table.to_csv(kept / "C9.csv.gz", index=False)
    told = cli("claims", "C9", "--evidence", str(kept)).out
    assert re.search(r"C9 +supported", told)
    assert "regression_stability.py" in told


def test_evidence_says_where_it_comes_from():
    for file in EVIDENCE.glob("*.json"):
        origin = json.loads(file.read_text())
        assert origin["commands"]
        assert origin["commit"]
        assert origin["runs"] > 0
    assert {f.name.partition(".")[0] for f in EVIDENCE.glob("*.csv.gz")} == {f.stem for f in EVIDENCE.glob("*.json")}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["C99"], "C99: no such claim; there are C1, C2"),
        (["../C1"], "../C1: no such claim"),
        (["--run"], "--run: which claims?"),
        (["--run", "C4"], "C4: its evidence is written by a script: python benchmarks/claim_steps.py"),
        (["--page", "/nowhere/page.md"], "--page=/nowhere/page.md: has to be in a folder that exists"),
    ],
)
def test_wrong_words(cli, tmp_path, words, told):
    failed = cli("claims", *words, "--evidence", str(tmp_path))
    assert failed.status == 2
    assert failed.err.startswith(f"alphagrad: {told}")
    assert len(failed.err.splitlines()) == 1


@pytest.mark.long
def test_a_small_claim_is_run_gathered_and_decided(cli, odd, root, tmp_path, monkeypatch, lab):
    """What is missing is run, once; the runs are kept with what varies."""
    own = Claim(
        name="C0",
        title="t",
        says="s",
        section="1",
        objective="eval/return",
        seeds=4,
        studies=(("recipe=odd", "optimizer=adam,sgd", "recipe.total_steps=4", "seed=range(4)"),),
        parts={
            "only": {
                "says": "s",
                "measure": "eval/return",
                "first": {"optimizer.name": "adam"},
                "than": {"optimizer.name": "sgd"},
            },
            "curve": {"says": "s", "measure": "peak of eval/return", "at_least": -1e9},
        },
    )
    monkeypatch.setattr(ledger, "claim", lambda name: own)
    where = ["--evidence", str(tmp_path), "--output-root", str(root)]
    missing = cli("claims", "C0", "--gather", *where)
    assert missing.status == 2
    done = cli("claims", "C0", "--run", *where)
    assert done.status == 0, done.err
    rows, origin = data.read(tmp_path, own)
    assert sorted(zip(rows["optimizer.name"], rows["seed"], strict=True)) == [
        (who, seed) for who in ("adam", "sgd") for seed in range(4)
    ]
    assert rows["peak of eval/return"].notna().all()
    assert set(rows["status"]) == {"finished"}
    assert origin.runs == 8
    assert cli("claims", "C0", "--gather", *where).status == 0
    again, _ = data.read(tmp_path, own)
    pd.testing.assert_frame_equal(again, rows)


@pytest.mark.long
def test_runs_that_failed_are_kept_and_end_nothing(cli, odd, root, tmp_path, monkeypatch, lab):
    words = ("recipe=odd", "optimizer=adam,sgd", "recipe.total_steps=4", "recipe.raising=[1]", "seed=range(2)")
    part = {"says": "s", "measure": "eval/return", "at_least": -1e9}
    own = Claim(
        name="C0",
        title="t",
        says="s",
        section="1",
        objective="eval/return",
        seeds=2,
        studies=(words,),
        parts={"all": part},
    )
    monkeypatch.setattr(ledger, "claim", lambda name: own)
    done = cli("claims", "C0", "--run", "--evidence", str(tmp_path), "--output-root", str(root))
    assert done.status == 0, done.err
    assert "C0: not every run finished" in done.err
    rows, _ = data.read(tmp_path, own)
    assert sorted(rows["status"]) == ["failed", "failed", "finished", "finished"]
