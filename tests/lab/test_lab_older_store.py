"""What an older alphagrad has left, ``tests/data/store_of_*``, is read, shown and gone on with; by the command line.

A store is unpacked into a folder of the test's own. Beside it, ``told/`` holds what the alphagrad that made it said.
On the kind of machine that it was made on, what goes on must end with the same bits as what was never stopped. On
another kind, its first part was rounded in another way; there the points and the shapes must be right, and a warning
says that no more was compared.
"""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from machine import differences
from older import COUNTS, REASONS, Numbers, Older, unpacked
from tiers import long

STORES = sorted((Path(__file__).parents[1] / "data").glob("store_of_*/store.tar.xz"))
assert STORES, "there is no older store to read"
SINGLE = ("finished", "diverged", "failed", "terminated", "killed", "interrupted")
STUDIES = ("half", "stacked", "stopped")
EXPERIMENTS = (*SINGLE, *STUDIES, "tuned")
WORD = re.compile(r"[\w./%–:+-]+")


@pytest.fixture(params=STORES, ids=lambda archive: archive.parent.name)
def older(request, tmp_path, lab) -> Older:
    """Each older store in turn, in a terminal wide enough for its tables."""
    lab.setenv("COLUMNS", "200")
    return unpacked(request.param, tmp_path / "place")


def same(a: Any, b: Any) -> bool:
    """Equal bit for bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def assert_ends_as(older: Older, run: Any, had: Numbers, numbers: Numbers, model: dict[str, Any]) -> None:
    """A run that went on has all the points that it ``had``, no step twice, and ends as one that was not stopped."""
    assert run.info.status == "FINISHED"
    assert "alphagrad.reason" not in run.data.tags
    found, ended = older.numbers(run), older.model(run)
    for name, points in had.items():
        assert set(points) <= set(found[name]), name
    assert all(len({step for step, _ in points}) == len(points) for points in found.values())
    assert found.keys() == numbers.keys()
    assert ended.keys() == model.keys()
    if told := differences(json.loads(older.archive.with_name("machine.json").read_text())):
        warnings.warn(f"{run.info.run_name}: not compared to the bit, this machine has {told}", stacklevel=1)
    else:
        assert found == numbers
        assert same(ended, model)


def rows(text: str) -> list[list[str]]:
    """The words of a table's rows; frames and captions have no words."""
    table = text.partition("mean over seeds")[0]
    return [words for line in table.splitlines() if (words := WORD.findall(line))]


def numbers(text: str) -> list[str]:
    """The numbers and ids of a heading and a table."""
    return sorted(word.strip(":") for words in rows(text) for word in words if re.search(r"\d", word))


def test_every_run_and_study_stands_as_it_did(cli, older):
    for name, counts in COUNTS.items():
        said = cli("status", "--output-root", str(older.root), "--experiment", name)
        assert said.status == 0, said.err
        assert counts in said.out.splitlines()
        assert REASONS.get(name, "") in " ".join(said.out.split())
        expected = older.told(name, "status").replace("\n", " ")
        # how far each job is, and where
        for pattern in (r"\b\d+/\d+\b", r"[\w-]+-seed\d-\w+"):
            assert sorted(re.findall(pattern, said.out)) == sorted(re.findall(pattern, expected)), name
    (killed,) = older.runs("killed")["adam 1"]
    assert killed.info.status == "KILLED"  # which SIGKILL could not say


def test_trials_of_a_tuning_stand_as_they_did(cli, older):
    said = cli("status", "--output-root", str(older.root), "--experiment", "tuned")
    assert said.status == 0, said.err
    pruned = re.findall(r"pruned at step \d+: \S+", older.told("tuned", "status"))
    assert pruned
    assert re.findall(r"pruned at step \d+: \S+", said.out) == pruned
    assert f"9 jobs: {9 - len(pruned)} finished, {len(pruned)} killed" in said.out.splitlines()


def test_tables_have_the_same_numbers(cli, older):
    for name in EXPERIMENTS:
        said = cli("report", "--output-root", str(older.root), "--experiment", name)
        assert said.status == 0, said.err
        known = older.told(name, "report")
        assert numbers(said.out) == numbers(known), name


def test_runs_without_the_tags_that_came_later(cli, older):
    """Of an alphagrad that did not number its runs, nor note what tells jobs apart: they are shown all the same."""

    def said(command: str, experiment: str) -> list[list[str]]:
        told = cli(command, "--output-root", str(older.root), "--experiment", experiment)
        assert told.status == 0, told.err
        return sorted(rows(told.out))

    asked = [("report", "stacked"), ("report", "half"), ("status", "terminated")]
    before = [said(*words) for words in asked]
    older.sql("DELETE FROM tags WHERE key IN ('alphagrad.number', 'alphagrad.job', 'config_hash')")
    assert [said(*words) for words in asked] == before


def test_a_list_of_jobs_that_only_the_folder_has(cli, older):
    files = list((older.root / "artifacts/half").rglob("jobs.json"))
    assert len(files) == 1
    files[0].unlink()
    said = cli("status", "--output-root", str(older.root), "--experiment", "half")
    assert COUNTS["half"] in said.out.splitlines()


def settings_of(older: Older, study: str) -> list[str]:
    """What a study was started with."""
    return json.loads((older.root / study / "arguments.json").read_text())["arguments"]


@pytest.fixture(scope="module")
def trained() -> dict[Path, tuple[Numbers, dict[str, Any]]]:
    """Archive → numbers and model of :func:`unbroken`, which is trained once."""
    return {}


@pytest.fixture
def unbroken(cli, older, trained) -> tuple[Numbers, dict[str, Any]]:
    """Numbers and model of the job that was stopped in several ways, trained by today's alphagrad at one go."""
    if older.archive not in trained:
        words = [w for w in settings_of(older, "half") if not w.startswith(("-", "seed=", "hydra.", "tracking.exp"))]
        words = [w for w in words if not w.startswith("output_root=")]
        said = cli("run", *words, "seed=1", "tracking.experiment=unbroken", f"output_root={older.root}")
        assert said.status == 0, said.err
        (run,) = older.runs("unbroken")["adam 1"]
        trained[older.archive] = older.numbers(run), older.model(run)
    return trained[older.archive]


def as_version_1(older: Older, experiment: str) -> None:
    """States as an earlier alphagrad wrote them: without digest, and without what it did not know."""
    for file in (older.root / experiment).rglob("state-*.pt"):
        state = torch.load(file, weights_only=True)
        assert state["version"] == 2
        runs = [{k: v for k, v in run.items() if k not in ("at", "made", "files")} for run in state["runs"]]
        torch.save({**state, "version": 1, "runs": runs}, file)


@pytest.mark.long
def test_stopped_runs_end_as_if_nothing_had_happened(cli, older, unbroken):
    """By SIGTERM, SIGKILL, and by Ctrl-C before there was a state; and from a state of an earlier version."""
    as_version_1(older, "killed")
    for name in ("terminated", "killed", "interrupted"):
        (before,) = older.runs(name)["adam 1"]
        had = older.numbers(before)
        assert len(list((older.root / name).glob("state-*.pt"))) == (0 if name == "interrupted" else 1), name
        said = cli("resume", str(older.root / name))
        assert said.status == 0, said.err
        (run,) = older.runs(name)["adam 1"]
        assert run.info.run_id == before.info.run_id
        assert_ends_as(older, run, had, *unbroken)
        assert not list((older.root / name).glob("state-*.pt"))


@pytest.mark.long
def test_a_stack_that_was_stopped_goes_on_from_any_of_its_runs(cli, older, tmp_path):
    """To the end that it has when the same stack starts from its beginning."""
    anew = unpacked(older.archive, tmp_path / "other")
    for file in (anew.root / "stopped").rglob("state-*.pt"):
        file.unlink()
    had = {name: older.numbers(run) for name, (run,) in older.runs("stopped").items()}
    for store in (older, anew):
        said = cli("resume", str(next((store.root / "stopped").glob("alphagrad-seed1-*"))))
        assert said.status == 0, said.err
    assert len(older.runs("stopped")) == 4
    for name, (run,) in older.runs("stopped").items():
        (reference,) = anew.runs("stopped")[name]
        assert run.info.run_id == reference.info.run_id
        assert_ends_as(older, run, had[name], anew.numbers(reference), anew.model(reference))
    assert not list((older.root / "stopped").glob("stack-*"))


@pytest.mark.parametrize("command", [*long("run"), pytest.param("resume", marks=pytest.mark.slow)])
def test_half_a_study_trains_what_is_missing_and_nothing_twice(cli, lab, older, unbroken, command):
    lab.chdir(older.place)
    (done,), (stopped,) = older.runs("half")["adam 0"], older.runs("half")["adam 1"]
    known, had = older.numbers(done), older.numbers(stopped)
    words = ["run", *settings_of(older, "half")] if command == "run" else ["resume", str(older.root / "half")]
    said = cli(*words)
    assert said.status == 0, said.err
    assert "the study goes on; 1 of 3 jobs are finished" in said.err
    runs = older.runs("half")
    assert {name: len(found) for name, found in runs.items()} == {"adam 0": 1, "adam 1": 1, "adam 2": 1}
    assert {run.info.status for found in runs.values() for run in found} == {"FINISHED"}
    assert (runs["adam 0"][0].info.end_time, older.numbers(runs["adam 0"][0])) == (done.info.end_time, known)
    assert runs["adam 1"][0].info.run_id == stopped.info.run_id
    assert_ends_as(older, runs["adam 1"][0], had, *unbroken)  # of one job with those that were stopped alone
    again = cli("status", "--output-root", str(older.root), "--experiment", "half")
    assert "3 jobs: 3 finished" in again.out.splitlines()


@pytest.mark.long
def test_what_is_over_is_not_trained_again(cli, lab, older):
    lab.chdir(older.place)
    (pruned, *_) = [r for found in older.runs("tuned").values() for r in found if r.info.status == "KILLED"]
    over = {
        older.root / "finished": "is finished, nothing is left to do",
        older.root / "stacked": "is finished, nothing is left to do",
        next((older.root / "stacked").glob("alphagrad-seed1-*")): "is finished, nothing is left to do",
        Path(pruned.data.tags["output_folder"]): "was pruned at step",
    }
    before = {name: older.runs(name) for name in EXPERIMENTS}
    for folder, told in over.items():
        said = cli("resume", str(folder))
        assert (said.status, told in said.out) == (0, True), said
    for name, runs in before.items():
        now = older.runs(name)
        assert {n: [r.info.end_time for r in found] for n, found in now.items()} == {
            n: [r.info.end_time for r in found] for n, found in runs.items()
        }


def test_a_run_that_diverged_is_trained_anew_in_a_run_of_its_own(cli, older):
    ((before,),) = older.runs("diverged").values()
    said = cli("resume", str(older.root / "diverged"))
    assert said.status == 1
    ((first, second),) = older.runs("diverged").values()
    assert (first.info.run_id, first.info.end_time) == (before.info.run_id, before.info.end_time)
    assert second.data.tags["alphagrad.reason"] == first.data.tags["alphagrad.reason"]
    assert older.numbers(second).keys() == older.numbers(first).keys()
