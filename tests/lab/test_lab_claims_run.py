"""The runs of a claim: made, gone on with, gathered from a store, and kept."""

from __future__ import annotations

import dataclasses
import re

import pandas as pd
import pytest

from alphagrad.lab.config import compose
from alphagrad.lab.evidence.claims import data, ledger
from alphagrad.lab.evidence.claims.ledger import Claim


def stands(out: str) -> list[str]:
    """The rows of a printed table of verdicts."""
    return re.findall(r"^ +(?:supported|refuted|undecided) .*$", out, re.MULTILINE)


def of_odd(words: tuple[str, ...], parts: dict) -> Claim:
    """A claim about the recipe ``odd``."""
    worst = {"eval/return": -1e9} if any("than" in part for part in parts.values()) else {}
    told = {"title": "t", "says": "s", "section": "1", "objective": "eval/return", "seeds": 4, "worst": worst}
    return Claim(name="C0", studies=(words,), parts=parts, **told)


@pytest.mark.long
def test_a_small_claim_is_run_gathered_and_decided(cli, odd, root, tmp_path, monkeypatch, store_runs):
    """What is missing is run, once; the runs are kept with what varies."""
    own = of_odd(
        ("recipe=odd", "optimizer=adam,sgd", "recipe.total_steps=4", "seed=range(4)"),
        {
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
    assert (origin.runs, origin.planned) == (8, 8)
    before = store_runs(root)
    again = cli("claims", "C0", "--run", *where)
    assert "is finished, nothing is left to do" in again.out
    assert [run.info.run_id for run in store_runs(root)] == [run.info.run_id for run in before]
    assert cli("claims", "C0", "--gather", *where).status == 0
    pd.testing.assert_frame_equal(data.read(tmp_path, own)[0], rows)
    # of a job that was run twice the newest run counts
    run = ("run", "-m", *own.studies[0], f"output_root={root}", "tracking.experiment='claim C0'")
    assert cli(*run, "study.rerun=all").status == 0
    assert cli("claims", "C0", "--gather", *where).status == 0
    assert len(data.read(tmp_path, own)[0]) == 8
    # another study of the experiment is none of the claim's
    other = [*own.studies[0][:-1], "seed=range(7)", f"output_root={root}", "tracking.experiment='claim C0'"]
    assert cli("run", "-m", *other).status == 0
    assert cli("claims", "C0", "--gather", *where).status == 0
    assert len(data.read(tmp_path, own)[0]) == 8
    # fewer runs never take the place of more; and the store alone says the same
    data.keep(
        tmp_path, own, pd.concat([rows, rows.assign(seed=rows["seed"] + 4)]), dataclasses.replace(origin, runs=16)
    )
    fewer = cli("claims", "C0", "--gather", *where)
    assert fewer.status == 2
    assert "C0: the store has 8 runs of it, fewer than" in fewer.err
    # nor do damaged ones give way
    (tmp_path / "C0.json").write_text("{")
    assert "C0.json: is damaged" in cli("claims", "C0", "--gather", *where).err
    unread = cli("claims", "C0", "--evidence", str(tmp_path / "none"), "--output-root", str(root))
    assert unread.status == 2
    assert "is not looked at where --uri or --output-root names a store" in unread.err
    alone = cli("claims", "C0", "--output-root", str(root))
    assert alone.status == 0, alone.err
    assert stands(alone.out) == stands(done.out) != []
    assert not (tmp_path / "none").exists()
    # runs under the study's name that were made before its configuration changed do not count
    with monkeypatch.context() as changed:
        changed.setattr(compose, "job_key", lambda config: f"changed-{config.seed}")
        older = cli("claims", "C0", "--output-root", str(root))
        assert older.status == 2
        assert "C0: 16 runs of its studies are of another configuration, and do not count" in older.err


@pytest.mark.long
def test_a_claim_goes_on_where_a_later_study_stopped(cli, odd, at, root, tmp_path, monkeypatch):
    """The studies before it are kept while it is not done."""
    studies = [("recipe=odd", f"optimizer={name}", "recipe.total_steps=4", "seed=0,1") for name in ("adam", "sgd")]
    part = {"says": "s", "measure": "eval/return", "at_least": -1e9}
    own = of_odd(studies[0], {"all": part}).model_copy(update={"studies": tuple(studies), "seeds": 2})
    monkeypatch.setattr(ledger, "claim", lambda name: own)
    where = ["--evidence", str(tmp_path), "--output-root", str(root)]

    def interrupt() -> None:
        raise KeyboardInterrupt

    at(2, interrupt)
    words = ("run", "-m", *studies[1], f"output_root={root}", "tracking.experiment='claim C0'")
    assert cli(*words).status == 130
    assert "1 of 1 runs have not ended; alphagrad claims --run C0" in cli("claims", "C0", "--gather", *where).err
    done = cli("claims", "C0", "--run", *where)
    assert done.status == 0, done.err
    _, origin = data.read(tmp_path, own)
    assert (origin.runs, origin.planned) == (4, 4)


@pytest.mark.long
def test_a_run_of_two_studies_is_one_run(cli, odd, root, tmp_path, monkeypatch):
    """The evidence is whole all the same."""
    studies = [("recipe=odd", f"optimizer={names}", "recipe.total_steps=4", "seed=0") for names in ("adam", "adam,sgd")]
    part = {"says": "s", "measure": "eval/return", "at_least": -1e9}
    own = of_odd(studies[0], {"all": part}).model_copy(update={"studies": tuple(studies), "seeds": 1})
    monkeypatch.setattr(ledger, "claim", lambda name: own)
    where = ["--evidence", str(tmp_path), "--output-root", str(root)]
    assert cli("run", "-m", *studies[1], f"output_root={root}", "tracking.experiment='claim C0'").status == 0
    assert cli("claims", "C0", "--gather", *where).status == 0
    _, origin = data.read(tmp_path, own)
    assert (origin.runs, origin.planned, origin.whole) == (2, 3, False)
    assert cli("claims", "C0", "--run", *where).status == 0
    rows, origin = data.read(tmp_path, own)
    assert (len(rows), origin.planned, origin.whole) == (2, 2, True)


@pytest.mark.long
def test_runs_that_failed_are_kept_and_end_nothing(cli, odd, root, tmp_path, monkeypatch, lab):
    words = ("recipe=odd", "optimizer=adam,sgd", "recipe.total_steps=4", "recipe.raising=[1]", "seed=range(2)")
    part = {"says": "s", "measure": "eval/return", "at_least": -1e9}
    own = of_odd(words, {"all": part})
    monkeypatch.setattr(ledger, "claim", lambda name: own)
    done = cli("claims", "C0", "--run", "--evidence", str(tmp_path), "--output-root", str(root))
    assert done.status == 0, done.err
    assert "C0: not every run finished" in done.err
    rows, _ = data.read(tmp_path, own)
    assert sorted(rows["status"]) == ["failed", "failed", "finished", "finished"]
    # where more had finished they stay
    _, origin = data.read(tmp_path, own)
    data.keep(tmp_path, own, rows.assign(status="finished"), origin)
    fewer = cli("claims", "C0", "--gather", "--evidence", str(tmp_path), "--output-root", str(root))
    assert fewer.status == 2
    assert "or fewer that finished" in fewer.err
