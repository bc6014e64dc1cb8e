"""Wrong command lines, made up: each is refused with status 2 and one line, before anything is written."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fuzzed import left_in, lines, nothing_trains


def badly(cli, lab, tmp_path, compose, seed: int, count: int) -> list[str]:
    """The lines that are not refused as they ought to be, with what was seen."""
    made = list(lines(compose, seed, count))  # before the commands clear what it needs
    lab.chdir(tmp_path)
    found = []
    with nothing_trains(lab) as taken:
        for words in made:
            told = cli("run", *words)
            said = told.err.splitlines()
            wrong = [
                *([f"status {told.status}"] if told.status != 2 else []),
                *([f"{len(said)} lines"] if len(said) != 1 else []),
                *(["too long"] if len(told.err) > 4200 else []),
                *(["no message"] if said and not said[0].startswith("alphagrad: ") else []),
                *([f"would train {taken}"] if taken else []),
                *([f"left {left_in(tmp_path)}"] if left_in(tmp_path) else []),
                *(["a traceback"] if "Traceback" in told.err else []),
            ]
            if wrong:
                shown = [word if len(word) < 100 else f"{word[:60]}…({len(word)})" for word in words]
                found.append(f"{shown}: {', '.join(wrong)}: {told.err[:300]}")
            taken.clear()
            for name in os.listdir(tmp_path):
                if name.startswith("outputs"):
                    os.rename(tmp_path / name, tmp_path.parent / f"{tmp_path.name}-{len(found)}-{name}")
    return found


@pytest.mark.long
def test_a_sample_of_wrong_lines_is_refused(cli, lab, tmp_path, composed):
    assert badly(cli, lab, tmp_path, composed, seed=0, count=25) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_wrong_lines_are_refused(cli, lab, tmp_path, composed, seed):
    assert badly(cli, lab, tmp_path, composed, seed, count=250) == []
