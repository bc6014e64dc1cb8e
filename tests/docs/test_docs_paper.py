"""The tables beside the paper's figures are those of the kept runs."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = (CHECKOUT / "docs/paper.md").read_text(encoding="utf-8").replace("−", "-")


def runs(claim: str) -> pd.DataFrame:
    return pd.read_csv(CHECKOUT / f"evidence/{claim}.csv.gz", keep_default_na=False, na_values=[""])


def table(figure: str, first: str) -> dict[str, list[str]]:
    """Row → its cells, of the table below a figure's heading whose first line begins so."""
    below = PAGE.partition(f"## Figure {figure}:")[2].partition("\n## ")[0]
    rows = below.partition(first)[2].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    names = [name.removeprefix("AlphaGrad, ") for name, *_ in cells]
    return {name: values for name, (_, *values) in zip(names, cells, strict=True)}


def of(table: pd.DataFrame, row: str, rate: float) -> pd.DataFrame:
    """The runs of *Adam* or *α = 93* at a rate."""
    own = table[table["optimizer.lr"] == rate]
    if row == "Adam":
        return own[own["optimizer.name"] == "adam"]
    return own[own["alpha.value"] == float(row.removeprefix("α = "))]


def test_figure_1():
    kept, shown = runs("C1"), table("1", "| optimizer | 1e-4")
    assert len(shown) == 4
    for row, cells in shown.items():
        for rate, cell in zip((1e-4, 2.5e-4, 1e-3, 2.5e-3), cells, strict=True):
            own = of(kept, row, rate)
            means = own["final/return"].mean(), own["drawdown of eval/return"].mean()
            assert len(own) == 30
            assert [float(number) for number in re.findall(r"\d+", cell)] == pytest.approx(means, abs=0.51)


def test_figure_2():
    kept, shown = runs("C2"), table("2", "| optimizer | 1e-4")
    assert len(shown) == 6
    for row, cells in shown.items():
        for rate, cell in zip((1e-4, 3e-4), cells, strict=True):
            own = of(kept, row, rate)["final/return"]
            mean, learnt = (float(number) for number in cell.split(", "))
            assert len(own) == 5
            assert mean == pytest.approx(own.mean(), abs=0.51)
            assert learnt == (own > 100).sum()


def test_figure_3():
    kept, shown = runs("C3"), table("3", "| optimizer | 3e-5")
    kept = kept[(kept["env.id"] == "HalfCheetah-v5")]
    published = (kept["optimizer.clip_grad_norm"] == "0.5") & (kept["optimizer.eps"] == 1e-5)
    bare = (kept["optimizer.clip_grad_norm"] == "None") & (kept["optimizer.momentum"] == 0.9)
    kept = kept[published.where(kept["optimizer.name"] == "adam", bare)]
    assert len(shown) == 4
    for row, cells in shown.items():
        for rate, cell in zip((3e-5, 1e-4, 3e-4, 1e-3), cells, strict=True):
            own = of(kept, row, rate)["final/return"]
            assert len(own) == 10
            assert float(cell) == pytest.approx(own.mean(), abs=0.51)
    said = PAGE.partition("| here | Adam beats every α")[2].partition("\n")[0]
    ends = of(kept, "Adam", 3e-4)["final/return"]
    assert f"ends at {ends.mean():.0f} [" in said
    assert f"one ends at {ends.max():.0f}" in said
    assert "446, 328 and 528 (α = 98, 196, 294)" in said
