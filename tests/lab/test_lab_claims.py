"""The ledger of claims: its rules, its evidence, and that the numbers decide."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from test_lab_verdict import COMPARED, claim, table
from tiers import quick_where

from alphagrad.common.errors import ConfigError
from alphagrad.lab.config import compose, sweep
from alphagrad.lab.config.alike import compose_all
from alphagrad.lab.evidence.claims import data, ledger
from alphagrad.lab.evidence.claims.ledger import Claim

ROOT = Path(__file__).resolve().parents[2]
EVIDENCE = ROOT / "evidence"


def test_every_claim_of_the_paper_has_a_file():
    assert ledger.names() == [f"C{number}" for number in range(1, 16)]
    for name in ledger.names():
        one = ledger.claim(name)
        assert one.studies or one.script
        assert all(part.says for part in one.parts.values())


QUICK = ("C1",)
"""Claims of few studies."""


@pytest.mark.parametrize("name", quick_where(ledger.names(), lambda name: name in QUICK))
def test_the_studies_of_a_claim_can_be_run(lab, tmp_path, name):
    """Some of the configurations are composed, with one seed, as a run would be."""
    for words in ledger.claim(name).studies:
        one = [re.sub(r"^seed=range\(.*\)$", "seed=0", word) for word in words]
        with compose.hydra_initialized():
            lists = sweep.jobs_of([*sweep.sweep_parameters(one), *one])
            assert compose_all([*lists[::9], lists[-1]])


def test_the_evidence_is_read_back_as_it_was(tmp_path):
    own, rows = claim(only=COMPARED), table(1.0, 0.0)
    origin = data.Origin((), "c0ffee", {"torch": "2"}, len(rows), "2026-01-01", 20)
    data.keep(tmp_path, own, rows, origin)
    again, whence = data.read(tmp_path, own)
    pd.testing.assert_frame_equal(again, rows)
    assert whence == origin
    assert not whence.whole
    before = (tmp_path / "C0.csv.gz").read_bytes()
    data.keep(tmp_path, own, rows, origin)
    assert (tmp_path / "C0.csv.gz").read_bytes() == before


def flipped(file: Path) -> None:
    """One byte of what is compressed."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(bytes(content))


def noted(**changes: object) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        beside = file.parent / "C0.json"
        beside.write_text(json.dumps(json.loads(beside.read_text()) | changes))

    return change


def with_words(column: str) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        table = pd.read_csv(file).astype({column: object})
        table.loc[2, column] = "word"
        table.to_csv(file, index=False)

    return change


def twice(file: Path) -> None:
    """A run in place of another."""
    table = pd.read_csv(file)
    table.loc[3, ["seed", "m"]] = [2, 0.5]
    table.to_csv(file, index=False)


def with_value(column: str, value: object) -> Callable[[Path], None]:
    """Of one run, after it has said the right thing."""

    def change(file: Path) -> None:
        table = pd.read_csv(file).astype({column: object})
        table.loc[2, column] = value
        table.to_csv(file, index=False)

    return change


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (with_value("seed", 4.5), r"C0.csv.gz: is damaged, not all of seed are whole numbers"),
        (with_value("seed", -1), r"C0.csv.gz: is damaged, not all of seed are whole numbers"),
        (with_value("seed", None), r"C0.csv.gz: is damaged, not all of seed are whole numbers"),
        (with_value("status", "running"), r"C0.csv.gz: is damaged, the status of a run has to be finished or failed"),
        (with_value("status", None), r"C0.csv.gz: is damaged, the status of a run has to be finished or failed"),
        (twice, r"C0.csv.gz: is damaged, it has 1 of 16 runs twice"),
        (lambda file: file.write_bytes(b"\x00damaged"), r"C0.csv.gz: is damaged"),
        (flipped, r"C0.csv.gz: is damaged"),
        (lambda file: file.write_bytes(file.read_bytes()[:40]), r"C0.csv.gz: is damaged"),
        (lambda file: file.unlink(), r"C0.csv.gz: is damaged"),
        (with_words("m"), r"C0.csv.gz: is damaged, not all of m are numbers"),
        (with_words("seed"), r"C0.csv.gz: is damaged, not all of seed are numbers"),
        (lambda file: (file.parent / "C0.json").unlink(), r"C0.json: is damaged or missing"),
        (lambda file: (file.parent / "C0.json").write_text("{"), r"C0.json: is damaged or missing"),
        (noted(runs=9999), r"C0.csv.gz: has 16 rows, and C0.json says 9999"),
        (noted(runs="many"), r"C0.json: is damaged or missing"),
        (noted(commit=None), r"C0.json: is damaged or missing"),
        (noted(versions=[]), r"C0.json: is damaged or missing"),
        (noted(commands=["others"]), r"C0.json: its commands are not those of conf/claim/C0.yaml"),
    ],
)
def test_evidence_that_is_not_what_it_says_is_refused(tmp_path, damage, told):
    own, rows = claim(studies=(("recipe=odd",),), only=COMPARED), table(1.0, 0.0).assign(status="finished")
    data.keep(tmp_path, own, rows, data.Origin(data.commands(own), "c0ffee", {"torch": "2"}, len(rows), "2026-01-01"))
    data.read(tmp_path, own)
    damage(tmp_path / "C0.csv.gz")
    with pytest.raises(ConfigError, match=told) as refused:
        data.read(tmp_path, own)
    assert len(str(refused.value).splitlines()) == 1


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
        (["--gather"], "--gather: which claims?"),
        (["--uri", "sqlite:///x.db"], "--uri and --output-root: which claims?"),
        (["--output-root", "/nowhere", "C8"], "--evidence="),
        (
            ["--gather", "--output-root", "/nowhere", "C8"],
            "tracking.uri=sqlite:////nowhere/mlflow.db",
        ),
        (["--run", "C14", "C4"], "C4: its evidence is written by a script"),
        (["--run", "C14", "--evidence", "/dev/null"], "--evidence=/dev/null: cannot be written (File exists)"),
        (["--evidence", "/nowhere"], "--evidence=/nowhere: there is no such folder"),
        (["--page", "/dev/null"], "--page=/dev/null: has to end in .md"),
        (["--evidence", ""], "--evidence=: has to be a folder"),
        (["--evidence", "x" * 300], "--evidence=xxx"),
        (["--output-root", "", "C8"], "--output-root=: has to be a folder"),
        (["--run", "C8", "--uri", "none"], "--uri=none: a claim's runs have to be in a store"),
        (["--figures", "/dev/null"], "--figures=/dev/null: cannot be written (File exists)"),
        (["--figures", ""], "--figures=: has to be a folder"),
        (["--page", ""], "--page=: has to end in .md"),
        (["--page", "x" * 300 + ".md"], "--page=xxx"),
        (["--run", "C4"], "C4: its evidence is written by a script: python benchmarks/claim_steps.py"),
        (["--page", "/nowhere/page.md"], "--page=/nowhere/page.md: has to be a file in a folder that exists"),
    ],
)
def test_wrong_words(cli, tmp_path, words, told):
    failed = cli("claims", "--evidence", str(tmp_path), *words)
    assert failed.status == 2
    assert failed.err.startswith(f"alphagrad: {told}")
    assert len(failed.err.splitlines()) == 1


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
