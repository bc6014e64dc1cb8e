"""What is listed, and small files that are damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alphagrad.common.errors import ConfigError
from alphagrad.lab.config import catalogue as listing
from alphagrad.lab.records.folder import claimed
from alphagrad.lab.records.study import JOBS, titles_of


def test_a_file_of_the_users_that_is_no_text_is_named_and_the_others_listed(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "optimizer"
    folder.mkdir()
    (folder / "bad.yaml").write_bytes(b"\xff\xfe\x00")
    (folder / "mine.yaml").write_text("# of my own\nname: mine\n")
    monkeypatch.setenv("ALPHAGRAD_CONF", str(tmp_path))
    found = listing.options_of("optimizer")
    assert found["mine"][0] == "of my own"
    assert "adam" in found
    assert "bad" not in found
    assert f"{folder}/bad.yaml: is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("# a line\nname: x\n", "a line"),
        ("# @package _global_\n# A sentence that goes\n# on. And more.\nname: x\n", "A sentence that goes on"),
        ("# LAMB (You et al. 2020)\nname: x # not this\n", "LAMB (You et al. 2020)"),
        ("# conf/optimizer/mine.yaml\n# tanh(1.5·ĝ) alone. Fast.\n", "tanh(1.5·ĝ) alone"),
        ("name: x\n\n# first\n\n# second\n", "first"),
        ("# conf/optimizer/mine.yaml; `alphagrad ls` shows this line: the sign of g\n", "the sign of g"),
        ("# @package _global_\n# `alphagrad ls` shows this line: x³ − x, learnt\n", "x³ − x, learnt"),
        ("name: x\n", ""),
    ],
)
def test_a_description_is_the_first_comment_to_its_full_stop(text, told):
    assert listing.description(text) == told


def test_a_lock_that_is_no_text_is_held_all_the_same(tmp_path, monkeypatch):
    """And what it holds reaches no terminal as it is."""
    monkeypatch.setattr("alphagrad.lab.records.folder.LOCK_SECONDS", 0.1)
    path = tmp_path / "lock"
    with claimed(path):
        path.write_bytes(b"\xff\x1b[31m")
        with pytest.raises(ConfigError, match="is in use by") as caught, claimed(path):
            raise AssertionError("two hold it")
    assert "\x1b" not in str(caught.value)


class NoArtifacts:
    def list_artifacts(self, parent: str) -> list[object]:
        return []


@pytest.mark.parametrize("damage", [b"\xff", b"{", b"[1]", b"", b"[" * 100_000])
def test_a_list_of_jobs_that_is_damaged_is_named(tmp_path: Path, damage: bytes):
    file = tmp_path / JOBS
    file.write_bytes(damage)
    with pytest.raises(ConfigError, match=f"{JOBS}: is damaged"):
        titles_of(NoArtifacts(), "parent", str(tmp_path))
    file.write_text(json.dumps({"key": "seed=1"}))
    assert titles_of(NoArtifacts(), "parent", str(tmp_path)) == {"key": "seed=1"}
