"""The intervals that pages tell of one setting's effect are those of the kept runs."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pandas as pd
import pytest

from alphagrad.lab.evidence.statistics.comparisons import difference

DOCS = Path(__file__).resolve().parents[2] / "docs"
MEANS = re.compile(r"-?\d+ \[-?\d+, -?\d+\]")


@pytest.fixture
def effects(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS.parent / "benchmarks"))
    yield importlib.import_module("paired_effects")
    sys.modules.pop("paired_effects")


def section(page: str, begins: str, ends: str) -> str:
    text = (DOCS / page).read_text(encoding="utf-8").replace("−", "-")
    return text.partition(begins)[2].partition(ends)[0]


def test_of_clipping_epsilon_and_momentum(effects, capsys):
    effects.ppo()
    printed = capsys.readouterr().out
    page = section("paper.md", "paired_effects.py ppo", "## ")
    on_page = MEANS.findall(page)
    assert len(on_page) == 8
    assert set(on_page) <= set(MEANS.findall(printed))
    told = re.findall(r"(\d+) below [^\[]*(\[[^\]]+\])", page)
    assert len(told) == 2
    for below, bounds in told:
        assert f"| -{below} {bounds}" in printed.replace("+", "")


def test_of_momentum_on_digits(effects, capsys):
    effects.momentum()
    printed = capsys.readouterr().out
    page = section("results/vision.md", "## Momentum", "\n## ")
    points = {part.strip("[]") for part in re.findall(r"\[[^\]]+\]", page)}
    differences = re.findall(r"minus none.*?\| 10 \| (\S+) \[(\S+), (\S+)\] \| (.*) \|", printed)
    assert len(differences) == len(points) == 2
    for mean, low, high, chosen in differences:
        assert f"{100 * float(low):.2f}, {100 * float(high):.2f}" in points
        assert f"{-100 * float(mean):.2f} points" in page
        assert re.findall(r"lr=([\d.]+)", chosen) == ["0.01", "0.03"]
    rows = [line for line in page.splitlines() if re.match(r"\| (`\w+` )?\| 0", line)]
    runs = pd.read_csv(DOCS / "results/momentum.csv.gz")
    means = runs.groupby(["variant", "optimizer.momentum", "optimizer.lr"])["eval/accuracy"].mean().unstack()
    assert len(rows) == len(means) == 4
    for row, (_, own) in zip(rows, means.iterrows(), strict=True):
        assert [float(cell.strip("* ")) for cell in row.split("|")[3:-1]] == pytest.approx(own.tolist(), abs=5e-4)


def test_of_rate_and_momentum_on_hopper(effects, capsys):
    """The table of docs/paper.md, and which of the six have learnt."""
    effects.hopper()
    printed = capsys.readouterr().out
    found = re.findall(r"momentum ([\d.]+), lr (\S+), minus .* \| 5 \| (\S+) (\[.*\]) \| (\w+) \|", printed)
    assert len(found) == 6
    page = section("paper.md", "paired_effects.py hopper", "## Figure 3")
    said = {"supported": "learnt", "refuted": "not learnt", "undecided": "undecided"}
    for momentum, rate, mean, bounds, stand in found:
        (ends,) = re.findall(rf"\| alphagrad \| {momentum} \| {float(rate)} \| 5 \| (\S+) \[", printed)
        rate = rate.replace("e-0", "e-").replace("0.0001", "1e-4").replace("0.0003", "3e-4")
        effect = f"{mean} {bounds}".replace("+", "")
        assert f"| {float(momentum):g} | {rate} | {ends} | {effect} | {said[stand]} |" in page


def test_a_changed_run_changes_what_is_said(effects, capsys, monkeypatch):
    effects.momentum()
    before = capsys.readouterr().out
    whole = pd.read_csv(DOCS / "results/momentum.csv.gz")
    whole.loc[whole["seed"] == 1, "eval/accuracy"] = 0.5
    monkeypatch.setattr(effects.pd, "read_csv", lambda *_, **__: whole)
    effects.momentum()
    assert capsys.readouterr().out != before


def test_pairs_are_those_of_a_seed(effects, capsys):
    """The mean and interval of one difference, by hand."""
    effects.ppo()
    printed = capsys.readouterr().out
    runs = pd.read_csv(DOCS.parent / "evidence/C3.csv.gz", keep_default_na=False, na_values=[""])
    runs = runs[(runs["env.id"] == "HalfCheetah-v5") & (runs["optimizer.lr"] == 3e-4) & (runs["alpha.value"] == 98)]
    runs = runs[runs["optimizer.clip_grad_norm"] == "None"].set_index("seed")
    sides = [runs[runs["optimizer.momentum"] == momentum]["final/return"].to_dict() for momentum in (0.0, 0.9)]
    found = difference(*sides)
    assert found.paired
    assert found.seeds == 10
    low, high = found.interval
    assert f"no momentum minus 0.9 | 10 | {found.mean:+.0f} [{low:+.0f}, {high:+.0f}]" in printed
