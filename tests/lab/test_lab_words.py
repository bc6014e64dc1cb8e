"""Whatever comes from outside is shown as it is written, and no terminal obeys it."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiers import long

from alphagrad.common import words
from alphagrad.lab.training import logfiles
from alphagrad.lab.training.progress import ProgressLine, ShortLines

NASTY = (
    "[/bold] [red]x[/red] [/] [link=http://x]y[/link] [not] \\[z]",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b2J \x90q\x9c",
    "over\rwritten \x08\x08 \x7f \x00 \x0b\x0c",
    "\u202egnp.exe \u2066x\u2069 \u200f\u061c \u2028 \u2029 \x85",
    "$x^{$ \\frac{ _hidden",
    "\ud800\udcff",
)
OBEYED = set("\x1b\x9b\x90\x9d\r\x07\x08\x7f\x00\x0b\x0c\x85\u202e\u2066\u2069\u200f\u061c\u2028\u2029")


def test_what_terminals_obey_is_written_out():
    assert words.plain("a\x1b[2Jb\rc\u202ed\n") == r"a\x1b[2Jb\rc\u202ed\n"
    assert words.plain("a\n\tb\x1b", lines=True) == "a\n\tb\\x1b"
    assert words.plain("αβ√ 日本 é 👩‍🔬 [x]") == "αβ√ 日本 é 👩‍🔬 [x]"


@given(st.text())
def test_plain_text_can_be_printed_in_one_line(text):
    shown = words.plain(text)
    assert not OBEYED & set(shown)
    assert len(shown.splitlines()) <= 1
    shown.encode()
    assert words.plain(shown) == shown
    assert words.is_plain(text) == (shown == text)


@given(st.text(min_size=1), st.integers(31, 300))
def test_long_values_are_cut(text, longest):
    assert len(words.cut(text, longest)) <= longest
    assert text in words.cut(text, longest) or "characters)" in words.cut(text, longest)


def test_numbers_that_python_does_not_write():
    assert words.shown(10**5000).startswith("a int that is too long")


@pytest.fixture
def outside(root):
    """A study in a store whose names, reasons, tags and parameters are somebody's jokes."""
    from alphagrad.lab.records.lifecycle import REASON, Life, Standing
    from alphagrad.lab.records.run import Tracker
    from alphagrad.lab.records.search import FOLDER, JOB_KEY
    from alphagrad.lab.records.study import KIND
    from alphagrad.lab.store.address import store_uri

    uri = store_uri(None, root)
    parent = Tracker(uri, "alphagrad")
    with parent.run(f"study {NASTY[0]} {NASTY[4]}", {}, {KIND: "study", FOLDER: str(root / "[/b]")}):
        for number, nasty in enumerate(NASTY[:5]):
            run = Tracker(uri, "alphagrad")
            tags = {"mlflow.parentRunId": parent.run_id, JOB_KEY: f"key{number}", "seed": "1", "variant": nasty}
            run.start(nasty, {"p": nasty}, {**tags, FOLDER: str(root / f"x{number}"), "configuration": nasty})
            run.metrics(1, {"eval/return": 1.0 + number, "steps_per_second": 3.0})
            run.metrics(2, {"eval/return": 2.0 + number})
            run.end(Life(Standing.FINISHED if number % 2 else Standing.FAILED, nasty))
            run.client.set_tag(run.run_id, REASON, f"ValueError: {nasty}")
            run.client.set_tag(run.run_id, "alphagrad.step", nasty)
    return root


@pytest.mark.parametrize("terminal", [*long(False), True])
def test_status_and_report_show_them(cli, lab, outside, terminal):
    lab.setenv("COLUMNS", "300")
    if terminal:
        lab.setenv("FORCE_COLOR", "1")
    for command in (("status",), ("report",), ("report", "--plot", str(outside / "plot.png"))):
        done = cli(*command, "--output-root", str(outside))
        assert done.status == 0, done.err
        assert not (OBEYED - set("\x1b" if terminal else "")) & set(done.out)
        assert "\x1b]" not in done.out
        assert "\x1b[31mred" not in done.out
        marks = ["[/bold] [red]x[/red] [/] [link=http://x]y[/link] [not]", r"\x1b[31mred"]
        for mark in [*marks, r"over\rwritten"] if command[0] == "status" else marks:
            assert mark in done.out
    assert (outside / "plot.png").stat().st_size > 1000


@pytest.mark.parametrize("nasty", NASTY)
def test_errors_and_progress_show_them(cli, lab, nasty):

    def fail(argv):
        raise ValueError(nasty)

    lab.setattr("alphagrad.lab.commands.ls.main", fail)
    failed = cli("ls")
    assert (failed.status, len(failed.err.splitlines())) == (1, 1)
    assert not OBEYED & set(failed.err)
    for lines in (ShortLines(nasty), ProgressLine(nasty)):
        lines.start(10)
        lines.update(1, nasty)


@pytest.mark.parametrize("nasty", NASTY)
def test_the_line_that_moves_shows_them(lab, capsys, nasty):
    import sys

    lab.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with ProgressLine(nasty) as line:
        line.start(10)
        line.update(5, nasty)
    assert not set("\x9b\x07\u202e") & set(capsys.readouterr().err)


def test_log_files_show_them(tmp_path):
    whole = NASTY[:-1]  # half characters in pytest's own capture of the log cannot be sent by its workers
    with logfiles.log_files([str(tmp_path)]):
        for nasty in whole:
            try:
                raise ValueError(nasty)
            except ValueError:
                logging.getLogger("alphagrad").info("run %s", nasty, exc_info=True)
    text = (tmp_path / logfiles.LOG_FILE).read_text(encoding="utf-8")
    assert not OBEYED & set(text)
    assert "Traceback" in text
    assert len(text.splitlines()) > 2 * len(whole)
    half = logging.LogRecord("alphagrad", logging.INFO, "", 0, "run %s", (NASTY[-1],), None)
    assert logfiles.PlainLines(logfiles.FORMAT).format(half).endswith(r"run \ud800\udcff")


def test_hydras_log_files_show_them(composed):
    from omegaconf import OmegaConf

    from alphagrad.lab.config import compose

    formatters = OmegaConf.to_container(compose.hydra_config([]).hydra.job_logging.formatters)
    assert {f["class"] for f in formatters.values()} == {"alphagrad.lab.training.logfiles.PlainLines"}


@pytest.mark.parametrize(
    "word", ["\x1b[31m", "seed=1\r", "optimizer=\u202eadam", "a\x00b", "output_root=\udcff", "x\n"]
)
@pytest.mark.parametrize("command", ["run", "report", "resume", "tune", "watch", ""])
def test_words_that_hold_them_are_refused(cli, command, word):
    failed = cli(*filter(None, [command]), word)
    assert (failed.status, len(failed.err.splitlines())) == (2, 1)
    assert not OBEYED & set(failed.err)
