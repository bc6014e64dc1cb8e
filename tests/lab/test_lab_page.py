"""`alphagrad report --html` and `--markdown`: one file with everything in it, true numbers, and nobody's markup."""

from __future__ import annotations

import base64
import csv
import io
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from alphagrad.harness import metrics
from alphagrad.lab.evidence.page import pairs, rendering
from alphagrad.lab.evidence.page.blocks import Code, Page, Picture, Section, Table, Text
from alphagrad.lab.evidence.page.making import page_of
from alphagrad.lab.evidence.page.subject import Subject, subjects
from alphagrad.lab.evidence.results import Comparison, Results, grouped

JUDGED = {"alphagrad.objective": "max eval/return", "alphagrad.headlines": '{"eval/return": 2}'}
EVIL = "<script>alert(1)</script>[/red]\x1b[31m|`a`&\u202e$x$"


class Read(HTMLParser):
    """What a browser finds in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.links, self.text, self.rows = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data):
        self.text.append(data)
        if self.rows and self.rows[-1] and self.tags[-1] in ("td", "th", "wbr"):
            self.rows[-1][-1] += data.strip()


def run(configuration, seed, value, status="FINISHED", standing="finished", settings=None, reason="", **more):
    """A run as the store has it."""
    tags = {"seed": str(seed), "configuration": configuration, "config_hash": configuration, "recipe": "odd", **JUDGED}
    tags |= {"alphagrad.standing": standing, "alphagrad.reason": reason, "host": "here", "version.torch": "2"}
    values = {} if value is None else {metrics.EVAL_RETURN: value, **more}
    name = {"run_id": f"{configuration}-{seed}", "run_name": configuration, "experiment_id": "1"}
    info = SimpleNamespace(**name, status=status, lifecycle_stage="active", start_time=0, end_time=2000)
    return SimpleNamespace(info=info, data=SimpleNamespace(tags=tags, params=settings or {}, metrics=values))


def results_of(runs, curves=None):
    """A store with these runs."""
    study = Comparison("Study 1", grouped(runs[::-1]))

    def histories(wanted, names):
        ids = {one.id for one in wanted}
        return {key: curve for key, curve in (curves or {}).items() if key[0] in ids and key[1] in names}

    return SimpleNamespace(comparison=lambda _: study, histories=histories)


def subject_of(runs) -> Subject:
    results = results_of(runs)
    return subjects(results, [("", results.comparison(None))])[0]


def page(runs, curves=None) -> Page:
    return page_of(results_of(runs, curves), [])


def section(found: Page, title: str) -> list:
    return next((one.blocks for one in found.sections if one.title == title), [])


def said(found: Page) -> str:
    return " ".join(block.text for one in found.sections for block in one.blocks if isinstance(block, Text))


def table(blocks) -> Table:
    return next(block for block in blocks if isinstance(block, Table))


A, B = [3.0, 4.0, 5.0, 7.0, 6.0], [1.0, 2.5, 2.0, 6.5, 4.0]


def test_numbers_are_those_computed_independently():
    runs = [run("a", seed, value) for seed, value in enumerate(A)] + [run("b", seed, v) for seed, v in enumerate(B)]
    found = page(runs)
    final = table(section(found, "Final results"))
    assert [row[:2] for row in final.rows] == [["a", "5/5"], ["b", "5/5"]]
    assert [row[2].split()[0] for row in final.rows] == [f"{np.mean(A):.2f}", f"{np.mean(B):.2f}"]
    assert final.best == {(0, 2)}
    (row,) = table(section(found, "Pairwise comparison")).rows
    assert row[:3] == ["a", "b", f"{np.mean(A) - np.mean(B):+.2f}"]
    assert float(row[4]) == pytest.approx(stats.ttest_rel(A, B).pvalue, rel=1e-3)
    assert float(row[5]) == pytest.approx(stats.mannwhitneyu(A, B).statistic / 25, abs=0.005)
    assert row[6] == "5 shared"
    assert "one seed" not in said(found).lower()


def test_probability_of_improvement_of_diverged_runs_and_of_less_is_better():
    assert pairs.probability({0: 1.0, 1: 2.0}, {0: 2.0, 1: 3.0}, "min") == pytest.approx(3.5 / 4)
    assert pairs.probability({0: -math.inf, 1: 1.0}, {0: -math.inf, 1: -math.inf}, "max") == pytest.approx(3 / 4)


def test_one_seed_shows_nothing_about_variance():
    found = page([run("a", 0, 1.0), run("b", 0, 2.0)])
    assert "One seed shows nothing about the variance" in said(found)
    assert "Nothing can be tested" in said(found)
    (row,) = table(section(found, "Pairwise comparison")).rows
    assert row[3:5] == ["–", "–"]
    assert not [row for row in table(section(found, "Final results")).rows if "[" in row[2]]


def test_few_seeds_have_no_interval():
    found = page([run("a", seed, float(seed)) for seed in range(3)])
    assert "no honest interval" in said(found)
    assert table(section(found, "Final results")).rows == [["a", "3/3", "1.00 (0.00 to 2.00)"]]


def test_failed_runs_have_their_reasons_and_diverged_ones_are_the_worst():
    runs = [run("a", seed, float(seed)) for seed in range(3)]
    runs += [run("b", 0, 9.0), run("b", 1, 9.0, "FAILED", "diverged", reason="diverged at step 3: loss is nan")]
    runs += [run("b", 2, None, "FAILED", "failed", reason="ZeroDivisionError: x")]
    found = page(runs)
    counts, listed = (b for b in section(found, "Failures and divergence") if isinstance(b, Table))
    assert list(counts.headings) == ["configuration", "runs", "diverged", "failed", "finished"][:4]
    assert counts.rows == [["b", "3", "1", "1"]]
    assert [row[1:4] for row in listed.rows] == [
        ["diverged at step 3: loss is nan", "1", "diverged"],
        ["ZeroDivisionError: x", "2", "failed"],
    ]
    (row,) = table(section(found, "Pairwise comparison")).rows
    assert row[2:5] == ["+inf", "–", "–"]


def test_no_finished_run_and_no_curves():
    for runs in ([run("a", 0, None, "FAILED", "failed")], [run("a", 0, None, "RUNNING", "running")]):
        found = page(runs)
        assert "No run is finished" in said(found)
        assert rendering.html(found).rstrip().endswith("</html>")
        assert not found.pictures()
    assert "Sensitivity" not in [one.title for one in page([run("a", 0, 1.0)]).sections]


def test_markup_from_outside_is_text():
    settings = {"data.root": EVIL}
    runs = [run(f"a{EVIL}", 0, 1.0, settings=settings), run("b", 0, None, "FAILED", "failed", reason=EVIL)]
    steps = np.array([0, 1, 2])
    found = page(runs, {(f"a{EVIL}-0", metrics.EVAL_RETURN): (steps, steps * 1.0)})
    read = Read(rendering.html(found))
    assert "script" not in read.tags
    assert "<script>alert(1)</script>[/red]\\x1b[31m|`a`&\\u202e$x$" in "".join(read.text)
    for link in read.links:
        assert link.startswith(("#", "data:image/svg+xml;base64,", "data:text/csv;"))
    (picture,) = (one for name, one in found.pictures().items() if name.startswith("curve/"))
    assert b"<script" not in picture.svg
    assert b"\x1b" not in picture.svg
    text = rendering.markdown(found)
    assert "\x1b" not in text
    assert "\u202e" not in text
    outside = re.sub(r"^(`{3,})sh\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"(?<!\\)<script", outside)
    for listed in re.findall(r"(?:^\|.*\n)+", outside, flags=re.MULTILINE):  # a bar in a name parts no cells
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in listed.splitlines()}) == 1


def test_each_figure_has_its_data_and_what_draws_it():
    steps = np.array([0, 10, 20])
    runs = [run("a", seed, 1.0, **{"saturation/w": 0.5}) for seed in range(4)]
    curves = {(f"a-{seed}", metrics.EVAL_RETURN): (steps, steps * 0.1 + seed) for seed in range(4)}
    curves |= {(f"a-{seed}", "saturation/w"): (steps, steps * 0.01) for seed in range(4)}
    found = page(runs, curves)
    assert {"curve/eval/return", "profile", "signal/saturation"} <= found.pictures().keys()
    rows = list(csv.DictReader(io.StringIO(found.pictures()["curve/eval/return"].csv())))
    assert [float(row["mean"]) for row in rows] == pytest.approx([1.5, 2.5, 3.5])
    assert all(float(row["low"]) < float(row["mean"]) < float(row["high"]) for row in rows)
    page_ = rendering.html(found)
    held = re.findall(r"data:text/csv;charset=utf-8;base64,([\w+/=]+)", page_)
    assert {base64.b64decode(one).decode() for one in held} == {one.csv() for one in found.pictures().values()}
    assert page_.count("alphagrad report") >= len(held)


def test_a_spreadsheet_finds_no_formula():
    drawn = Picture("x", "x", b"", ["a", "b"], [["=1+1", -1.5]], "")
    assert drawn.csv() == "a,b\n'=1+1,-1.5\n"


def test_a_fence_is_longer_than_what_it_holds():
    text = rendering.markdown(Page("t", [Section("s", [Code("a ```` b")])]))
    assert "`````sh\na ```` b\n`````" in text


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("page")


@pytest.mark.long
def test_pages_of_real_studies(cli, odd, root, shared, lab):
    """Two studies, one of which diverges in part, side by side; files are there whole or not at all."""
    words = ("recipe=odd", "seed=0,1", "recipe.total_steps=4", f"output_root={root}")
    assert cli("run", "-m", "optimizer=sgd", "optimizer.lr=0.1,0.01", *words).status == 0
    cli("run", "-m", "optimizer=adam", "recipe.diverging=[1]", *words)
    results = Results(f"sqlite:///{root}/mlflow.db")
    ids = [one.info.run_id[:8] for one in results.studies()]
    where = ("--output-root", str(root))
    html, text = shared / "report.html", shared / "report.md"
    lab.setenv("COLUMNS", "80")
    figure = ("--figure", "over/optimizer.lr", "--plot", str(shared / "one.svg"))
    done = cli("report", *ids, "--html", str(html), "--markdown", str(text), *figure, *where)
    assert done.status == 0, done.err
    assert all(len(line) <= 80 for line in done.out.splitlines() if str(shared) not in line)
    read = Read(html.read_text(encoding="utf-8"))
    everything = "".join(read.text)
    for told in ("optimizer=sgd", "optimizer.lr=0.01", "on demand", "torch", *[f"{one[:4]}: " for one in ids]):
        assert told in everything
    assert [row for row in read.rows if row[:2] == [f"{ids[0][:4]}: adam recipe.diverging=[1]", "1/2"]]
    assert "![" in text.read_text(encoding="utf-8")
    assert (shared / "one.svg").read_bytes().startswith(b"<?xml")
    for wrong, line in (
        (("--html", str(shared / "no/x.html")), "has to be a file in a folder that exists"),
        (("--figure", "none", "--plot", str(shared / "x.svg")), "there is no such figure; there are curve/"),
        (("--figure", "none"), "needs --plot FILE.svg"),
    ):
        failed = cli("report", ids[1], *wrong, *where)
        assert (failed.status, len(failed.err.splitlines())) == (2, 1)
        assert line in failed.err
    assert not list(shared.glob("x*"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium")
def test_the_page_in_a_browser(shared, tmp_path):
    """It opens from a file, and all its pictures are drawn."""
    steps = np.array([0, 10, 20])
    runs = [run("a", seed, 1.0) for seed in range(4)]
    curves = {(f"a-{seed}", metrics.EVAL_RETURN): (steps, steps * 0.1 + seed) for seed in range(4)}
    file = tmp_path / "page.html"
    rendering.write(page(runs, curves), file, "--html", rendering.html)
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/browser")
    shot = (f"--screenshot={tmp_path}/page.png", "--window-size=1280,3000", f"file://{file}")
    subprocess.run(["chromium", *flags, *shot], capture_output=True, check=True, timeout=120)
    from PIL import Image

    seen = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).reshape(-1, 3)
    assert (seen == (0, 0x72, 0xB2)).all(1).sum() > 200  # the first line's colour
