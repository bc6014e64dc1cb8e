"""The tables of docs/precision.md are those of its results."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def made():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import precision_tables

        yield precision_tables
    sys.modules.pop("precision_tables", None)


def test_each_table_stands_on_the_page(made):
    """Whole, as the results make it."""
    page = (ROOT / "docs" / "precision.md").read_text(encoding="utf-8")
    tables = [table for table in "\n".join(made.tables()).split("\n\n") if table.strip()]
    studies = set(pd.read_csv(made.SCORES).study)
    assert len(tables) == sum(table[0] in studies for table in made.TABLES) + ("fixed_point" in studies) + 1
    for table in tables:
        assert f"\n{table.strip()}\n" in page, table


def test_results_are_complete(made):
    """Each cell has five seeds or is told as not run; each run is there once."""
    scores = pd.read_csv(made.SCORES)
    assert not scores.duplicated(made.KEYS).any()
    assert set(scores.groupby(made.KEYS[:-1]).seed.nunique()) == {5}
