"""The ledger of claims: its rules, its evidence, and that the numbers decide."""

from __future__ import annotations

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
        (["--run", "C14", "--evidence", "/dev/null"], "--evidence=/dev/null: cannot write there (File exists"),
        (["--evidence", "/nowhere"], "--evidence=/nowhere: there is no such folder"),
        (["--page", "/dev/null"], "--page=/dev/null: has to end in .md"),
        (["--evidence", ""], "--evidence=: has to be a folder"),
        (["--evidence", "x" * 300], "--evidence=xxx"),
        (["--output-root", "", "C8"], "--output-root=: has to be a folder"),
        (["--run", "C8", "--uri", "none"], "--uri=none: a claim's runs have to be in a store"),
        (["--figures", "/dev/null"], "--figures=/dev/null: cannot write there (File exists"),
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
