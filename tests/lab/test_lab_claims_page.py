"""What is made of the kept evidence: verdicts that its numbers decide, the page, the figures."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from alphagrad.lab.evidence.claims import data, ledger
from alphagrad.lab.evidence.claims.ledger import Claim, Part, told
from alphagrad.lab.evidence.claims.verdict import decide

ROOT = Path(__file__).resolve().parents[2]
EVIDENCE = ROOT / "evidence"
PAGE = ROOT / "docs" / "claims.md"


def test_the_page_is_made_again_from_what_is_kept(cli, tmp_path):
    """And a number that is changed changes the verdict."""
    kept = tmp_path / "evidence"
    shutil.copytree(EVIDENCE, kept)
    page = tmp_path / "claims.md"
    emptied = re.sub(r"(?s)(<!-- (\w+) -->\n).*?(<!-- end of \2 -->)", r"\1\3", PAGE.read_text())
    assert len(emptied) < len(PAGE.read_text()) / 2
    page.write_text(emptied)
    done = cli("claims", "--evidence", str(kept), "--page", str(page))
    assert done.status == 0, done.err
    assert page.read_text() == PAGE.read_text()
    assert "| [C9](#c9) | tensor-wise" in page.read_text()
    assert page.read_text().count("\n## C") == 15
    table = pd.read_csv(kept / "C9.csv.gz")
    table.loc[table["normalization"] == "tensor", ["roughness", "diverged"]] -= 1.0
    table.to_csv(kept / "C9.csv.gz", index=False)
    told = cli("claims", "C9", "--evidence", str(kept)).out
    assert re.search(r"supported +C9", told)
    assert "regression_stability.py" in told


def test_a_page_without_marks_is_written_whole(cli, tmp_path):
    assert cli("claims", "C9", "--evidence", str(EVIDENCE), "--page", str(tmp_path / "page.md")).status == 0
    page = (tmp_path / "page.md").read_text()
    assert page.startswith("<!-- verdicts -->\n\n| | claim | verdict |")
    assert page.count("\n## C") == 1
    assert (tmp_path / "images/claims/C9.svg").exists()


def test_a_page_of_somebody_elses_is_not_written_over(cli, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("my notes\n")
    failed = cli("claims", "C9", "--evidence", str(EVIDENCE), "--page", str(page))
    assert failed.status == 2
    assert "its text would be lost" in failed.err
    assert page.read_text() == "my notes\n"


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("<!-- claims -->\n", "has <!-- claims -->, and no line <!-- end of claims --> after it"),
        ("<!-- end of claims -->\n<!-- claims -->\n", "has <!-- end of claims -->, and no line <!-- claims --> before"),
        (2 * "<!-- claims -->\n<!-- end of claims -->\n", "has <!-- claims --> twice"),
        ("<!-- claims -->\n## C1\n<!-- end of claims -->", "has C1, which would be lost"),
        ("<!-- verdicts -->\n| [C9](#c9) |\n| [C4](#c4) |\n<!-- end of verdicts -->", "has C4, which would be lost"),
        ("<!-- claims --> and more\n", "its text would be lost"),
    ],
)
def test_a_page_that_would_lose_something_stays(cli, tmp_path, page, told):
    (file := tmp_path / "page.md").write_text(page)
    failed = cli("claims", "C9", "--evidence", str(EVIDENCE), "--page", str(file))
    assert failed.status == 2
    assert told in failed.err
    assert (failed.out, file.read_text()) == ("", page)
    assert not (tmp_path / "images").exists()


def test_a_page_is_written_where_a_link_leads(cli, tmp_path):
    (page := tmp_path / "page.md").write_text("## C1\n<!-- claims -->\n<!-- end of claims -->")
    (link := tmp_path / "link.md").symlink_to(page)
    assert cli("claims", "C9", "--evidence", str(EVIDENCE), "--page", str(link)).status == 0
    assert link.is_symlink()
    assert page.read_text().startswith("## C1\n<!-- claims -->\n\n## C9")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"title: \xff", "C1.yaml: 'utf-8' codec"),
        (b"a: b", "C1.yaml: title: Field required"),
        (b"- a", "C1.yaml: "),
    ],
)
def test_a_claims_file_that_is_wrong_is_told_in_one_line(cli, tmp_path, monkeypatch, text, told):
    (tmp_path / "C1.yaml").write_bytes(text)
    monkeypatch.setattr(ledger, "_folder", lambda: tmp_path)
    failed = cli("claims", "C1", "--evidence", str(EVIDENCE))
    assert failed.status == 2
    assert told in failed.err
    assert "pydantic" not in failed.err
    assert len(failed.err.splitlines()) == 1


def test_c1_was_repeated_to_the_same_verdict():
    """With AVX2 arithmetic, by its one command."""
    claim, kept = kept_table("C1")
    again, origin = data.read(ROOT / "docs/results/c1_again", claim)
    assert again is not None
    assert origin is not None
    assert origin.whole
    assert len(again) == len(kept) == 480
    first, second = decide(claim, kept), decide(claim, again)
    assert first.stand == second.stand
    assert {key: part.stand for key, part in first.parts.items()} == {k: p.stand for k, p in second.parts.items()}


def test_a_mark_without_its_end_is_told(cli, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(begun := "<!-- verdicts -->\n<!-- claims -->\n<!-- end of claims -->\n")
    failed = cli("claims", "C9", "--evidence", str(EVIDENCE), "--page", str(page))
    assert failed.status == 2
    assert "has <!-- verdicts -->, and no line <!-- end of verdicts --> after it" in failed.err
    assert page.read_text() == begun


def test_a_page_that_cannot_be_written_is_told(cli, tmp_path):
    (tmp_path / "images").write_text("in the way")
    failed = cli("claims", "C9", "--evidence", str(EVIDENCE), "--page", str(tmp_path / "page.md"))
    assert failed.status == 2
    assert "page.md: cannot be written" in failed.err
    assert not (tmp_path / "page.md").exists()


def test_figures_are_drawn_to_a_folder(cli, tmp_path):
    done = cli("claims", "C4", "C9", "--evidence", str(EVIDENCE), "--figures", str(tmp_path / "new" / "drawn"))
    assert done.status == 0, done.err
    assert {file.name for file in (tmp_path / "new" / "drawn").iterdir()} == {"C4.svg", "C9.svg"}
    assert done.err.endswith("drawn: 2\n")
    (tmp_path / "file").write_text("in the way")
    failed = cli("claims", "C9", "--evidence", str(EVIDENCE), "--figures", str(tmp_path / "file"))
    assert failed.status == 2
    assert failed.err.splitlines()[-1].startswith(f"alphagrad: --figures={tmp_path / 'file'}: cannot write there")


def test_every_claim_is_printed_with_its_commands(cli):
    printed = cli("claims", "--evidence", str(EVIDENCE)).out.splitlines()
    for name in ledger.names():
        own = ledger.claim(name)
        at = printed.index(f"# {name}")
        assert tuple(printed[at + 1 : at + 1 + len(data.commands(own))]) == data.commands(own)


def kept_table(name: str) -> tuple[Claim, pd.DataFrame]:
    claim = ledger.claim(name)
    table, origin = data.read(EVIDENCE, claim)
    assert table is not None
    assert origin is not None
    assert origin.whole
    return claim, table


def of(table: pd.DataFrame, cell: ledger.Cell) -> pd.Series:
    """Which rows a part means."""
    means = pd.Series(True, index=table.index)
    for setting, value in cell.items():
        means &= table[setting].map(told) == told(value)
    return means


def forced(claim: Claim, part: Part, table: pd.DataFrame, holds: bool) -> None:
    """Changes numbers of a part's first side so that it holds, or does not."""
    own = of(table, part.first)
    assert own.any()
    table[part.measure] = table[part.measure].astype(float)
    if part.bound:
        inside = next(edge for edge in (part.at_least, part.at_most) if edge is not None)
        table.loc[own, part.measure] = inside if holds else inside + (1.0 if part.at_least is None else -1.0)
    elif part.direction == "equal":
        assert isinstance(part.than, dict)
        other = table[of(table, part.than)].set_index(claim.pairs)[part.measure]
        shift = 10 ** (part.offset if holds else part.offset + 1)
        table.loc[own, part.measure] = table.loc[own, claim.pairs].map(other) * shift
    else:
        high = (part.direction == "above") == holds
        table.loc[own, part.measure] = (1e9 if high else 1e-9) if part.log else (1e9 if high else -1e9)


@pytest.mark.parametrize("name", ledger.names())
def test_the_numbers_decide_every_claim(name):
    """Whatever a claim's verdict is, other numbers in its evidence support it, and others refute it."""
    claim, table = kept_table(name)
    for holds, stand in ((True, "supported"), (False, "refuted")):
        changed = table.copy()
        for part in claim.parts.values():
            forced(claim, part, changed, holds)
        found = decide(claim, changed)
        assert found.stand == stand, {says: part.stand for says, part in found.parts.items()}


@pytest.mark.parametrize("name", [n for n in ledger.names() if any(p.bound for p in ledger.claim(n).parts.values())])
def test_one_number_breaks_a_bound(name):
    claim, table = kept_table(name)
    for key, part in claim.parts.items():
        if part.bound:
            changed = table.astype({part.measure: float})
            first = of(table, part.first).idxmax()
            changed.loc[first, part.measure] = 1e9 if part.at_most is not None else -1e9
            assert decide(claim, changed).parts[key].stand == "refuted"
            changed.loc[first, part.measure] = float("nan")
            assert decide(claim, changed).parts[key].stand == "refuted"


@pytest.mark.parametrize("name", ledger.names())
def test_a_missing_run_leaves_its_parts_undecided(name):
    claim, table = kept_table(name)
    for key, part in claim.parts.items():
        if not part.bound:
            lost = of(table, part.first) & (table[claim.pairs] == 1)
            assert decide(claim, table[~lost], whole=False).parts[key].stand == "undecided"
