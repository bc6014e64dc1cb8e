"""Every command line in the documentation runs, made short, page by page; those that cannot are listed here."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shortened import shortened
from test_docs_code import desk, lay_out  # noqa: F401
from written import CHECKOUT, PAGES, joined, shell_lines, title

MAKEFILE = "Makefile"
ELSEWHERE = {
    r"make (demo|test|docs)\b": MAKEFILE,
    r"make \.venv/installed": MAKEFILE,
    r"python3 -m venv |source \.venv/bin/activate": ".ci/wheel",
    r"pip install ": ".ci/wheel",
    r"alphagrad ui$": "tests/lab/test_lab_ui.py",
    r"apt-get install munge": ".ci/services",
    r"\.ci/slurm start": "tests/lab/test_lab_launchers.py",
    r"alphagrad run -m hydra/launcher=submitit_slurm": "tests/lab/test_lab_launchers.py",
    r"createdb|mlflow server|alphagrad run -m tracking\.uri=(postgresql|http)": "tests/lab/test_lab_postgresql.py",
    r"alphagrad run recipe=text data=ag_news": "tests/recipes/test_text_files.py",
    r"torchrun .*run recipe=(image|lm)": "tests/recipes/test_recipe_parallel.py",
    r"torchrun .*resume": "tests/lab/test_lab_torchrun.py",
    r"alphagrad claims (--run|C8 --output-root)": "tests/lab/test_lab_claims.py",
    r"python benchmarks/rl_(fidelity|throughput)\.py": "benchmarks/rl_throughput.py",
}
"""What cannot run in a test's folder (it makes an environment, or needs a network, a cluster, a database, CleanRL's
scripts) → the file that runs it, or its like."""
FAILS = "the run fails"
"""How the comment ends of a command that fails."""
QUICK = {"README.md", MAKEFILE}
"""Those whose commands are run by `make test-long`; all others' are slow. What is a user's own is in
tests/lab/test_lab_own.py as well, in short."""
WITH_LINES = [page for page in [*PAGES, CHECKOUT / MAKEFILE] if "alphagrad" in page.read_text(encoding="utf-8")]


def lines(page: Path) -> list[str]:
    """A page's command lines; of the Makefile those of `make demo`."""
    if page.name != MAKEFILE:
        return shell_lines(page)
    demo = page.read_text(encoding="utf-8").partition("demo: ")[2].partition("\n\n")[0]
    return [line.strip().replace("$(BIN)/", "") for line in joined(demo) if line.strip().startswith("$(BIN)")]


def elsewhere(line: str) -> bool:
    """Whether something else runs a command line."""
    return any(re.match(pattern, line.partition(" #")[0].strip()) for pattern in ELSEWHERE)


WITH_LINES = [page for page in WITH_LINES if any(not elsewhere(line) for line in lines(page))]


def arrays(folder: Path, shape: tuple[int, int, int], classes: int = 10) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        images = rng.integers(256, size=(4 * classes, *shape), dtype=np.uint8)
        np.savez(folder / f"{split}.npz", images=images, labels=np.arange(4 * classes) % classes)


def pictures(folder: Path, classes: tuple[str, ...]) -> None:
    for split in ("train", "val"):
        for name in classes:
            (folder / split / name).mkdir(parents=True)
            for number in range(8):
                Image.new("RGB", (40, 40), (20 * number, 0, 0)).save(folder / split / name / f"{number}.png")


@pytest.fixture(autouse=True)
def undrawn(lab):
    """Confusion matrices and mistakes, which take longer than a short run, are tested where they belong."""
    for module in ("image", "text"):
        lab.setattr(f"alphagrad.recipes.{module}.draw_confusion", lambda file, *_, **__: file.touch())
    lab.setattr("alphagrad.recipes.image.draw_mistakes", lambda file, *_: file.touch())


@pytest.fixture
def data(desk, lab):  # noqa: F811
    """What the pages' commands read, in little."""
    lab.delenv("ALPHAGRAD_DATA", raising=False)
    folder = desk / "data"
    arrays(folder / "mnist", (28, 28, 1))
    arrays(folder / "fashion_mnist", (28, 28, 1))
    arrays(folder / "cifar10", (32, 32, 3))
    pictures(folder / "imagenet", ("cat", "dog"))
    pictures(folder / "birds", ("owl", "robin"))
    rows = "".join(f"{'good' if k % 2 else 'bad'} text number {k},{'good' if k % 2 else 'bad'}\n" for k in range(100))
    (folder / "20newsgroups").mkdir()
    (folder / "sotu").mkdir()
    (desk / "books").mkdir()
    (desk / "evidence").symlink_to(CHECKOUT / "evidence")
    for split in ("train", "test"):
        (folder / f"20newsgroups/{split}.csv").write_text("text,label\n" + rows)
        (folder / f"{split}.csv").write_text("body,topic\n" + rows)
    words = " ".join(f"and then number {k} came" for k in range(200))
    for place in ("data/sotu/train.txt", "data/sotu/validation.txt", "data/held_out.txt", "data/books/one.txt"):
        (desk / place).parent.mkdir(exist_ok=True)
        (desk / place).write_text(words)
    return folder


class Reader:
    """Whoever types the commands of a page, one after the other."""

    def __init__(self, desk: Path, lab, cli, at, store_runs) -> None:  # noqa: F811
        self.desk, self.lab, self.cli, self.at, self._runs = desk, lab, cli, at, store_runs

    def type(self, line: str) -> None:
        """A command line; fails if its command does, or if it does not and its comment says so."""
        if line.startswith("export "):
            for pair in shlex.split(line)[1:]:
                name, _, value = pair.partition("=")
                self.lab.setenv(name, value.replace("$PWD", str(self.desk)))
            return
        words = shlex.split(line, comments=True)
        if words[0] == "python":
            small = words[1:] if words[1] == "-m" else self.small(words[1:])
            self.lab.setenv("ALPHAGRAD_DATA", str(self.desk / "data"))
            place = self.desk if words[1] == "-m" else CHECKOUT
            done = subprocess.run([sys.executable, *small], cwd=place, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (line, done.stderr)
            return
        assert words[0].rpartition("/")[2] == "alphagrad", f"nothing runs this command: {line}"
        words = shortened([self.filled(word, words[1]) for word in words[1:]], self.desk / "conf")
        if words[0] == "export" and not (self.desk / "outputs/dqn_cartpole").exists():
            self.played()
        if "--new-store" in words:
            (self.desk / "outputs/mlflow.db").unlink()
        done = self.cli(*words)
        assert done.status == (1 if line.endswith(FAILS) else 0), (line, words, done.err)

    def filled(self, word: str, command: str) -> str:
        """A word with a run's id or folder where the page has a stand-in for one."""
        if word not in ("RUN_ID", "FOLDER", "RUN_ID|FOLDER", "3f2a", "81bc"):
            return word
        made = {"resume": self.stopped, "landscape": self.surveyed, "export-model": self.classified}
        run = made.get(command, self.played)()
        folder = next(f.parent for f in (self.desk / "outputs").rglob("run_id") if run in f.read_text())
        return str(folder) if word == "FOLDER" else run

    def stopped(self) -> str:
        """The id of a run that was interrupted."""

        def interrupt() -> None:
            raise KeyboardInterrupt

        self.at(50, interrupt)
        words = [*shortened(["run", "recipe=dqn_cartpole"], self.desk), "seed=77", "checkpoint.every_steps=20"]
        assert self.cli(*words).status == 130
        return self._newest(77)

    def surveyed(self) -> str:
        """The id of a finished run that learnt from examples, and kept its path."""
        words = ["recipe=regression", "recipe.total_steps=20", "checkpoint.trajectory_every=5", "seed=79"]
        assert self.cli("run", *words).status == 0
        return self._newest(79)

    def classified(self) -> str:
        """The id of a finished run that classifies images."""
        assert self.cli("run", *shortened(["run", "recipe=image"], self.desk)[1:], "seed=80").status == 0
        return self._newest(80)

    def played(self) -> str:
        """The id of a finished run that has a policy."""
        assert self.cli("run", *shortened(["run", "recipe=dqn_cartpole"], self.desk)[1:], "seed=78").status == 0
        return self._newest(78)

    def _newest(self, seed: int) -> str:
        found = [run.info.run_id for run in self._runs(self.desk / "outputs") if run.data.tags.get("seed") == str(seed)]
        return str(found[-1])

    @staticmethod
    def small(words: list[str]) -> list[str]:
        """The words of a benchmark, made short where it is long."""
        return [words[0], *BENCHMARKS.get(words[0], words[1:])]


BENCHMARKS = {
    "benchmarks/optimizer_step.py": ("--sizes", "11k", "--rounds", "1"),
    "benchmarks/ngram.py": ("data=sotu", "recipe.tokenizer=bpe", "recipe.vocabulary=300", "recipe.batch_size=2"),
    "benchmarks/text_throughput.py": ("--task", "text", "--turn", "2", "--steps", "4"),
    "benchmarks/vision_throughput.py": ("--task", "digits", "--runs", "2", "recipe.epochs=40"),
    "benchmarks/report_speed.py": ("--seeds", "1", "--points", "5", "--repeats", "1"),
    "benchmarks/fixed_point_size.py": ("--cc", "cc"),
    "benchmarks/regression_stability.py": ("judge", "docs/results/regression.csv.gz"),
    "benchmarks/paired_effects.py": ("momentum",),
    "benchmarks/memory_ledger.py": ("--optimizers", "adam", "--budgets"),
    "benchmarks/instruments_cost.py": ("--task", "dqn", "--optimizer", "adam", "--repeats", "1"),
}
"""Benchmark → the words by which it is short, in place of the page's."""


def marked(page: Path):
    return pytest.param(page, id=title(page), marks=pytest.mark.slow if title(page) not in QUICK else ())


@pytest.mark.long
@pytest.mark.parametrize("page", [marked(page) for page in WITH_LINES])
def test_commands_run(page, desk, data, root, lab, cli, at, store_runs):  # noqa: F811
    root.rename(desk / "outputs") if root != desk / "outputs" else None
    loose = lay_out(page, desk, lab) if page.suffix == ".md" else []
    for block in loose:
        if block.language == "python" and "data/" in block.text:  # what the commands read
            exec(compile(block.text, str(page), "exec"), {})
    reader = Reader(desk, lab, cli, at, store_runs)
    for line in lines(page):
        if not elsewhere(line):
            reader.type(line)


def test_what_runs_elsewhere_is_there_and_asked_for():
    """No exception without a command, and none whose file is gone."""
    all_lines = [line for page in PAGES for line in shell_lines(page)]
    for pattern, file in ELSEWHERE.items():
        assert any(re.match(pattern, line.partition(" #")[0].strip()) for line in all_lines), pattern
        assert (CHECKOUT / file).exists(), file
    assert {title(page) for page in WITH_LINES} >= QUICK


@pytest.mark.parametrize("group", ["recipe", "problem", "normalization", "alpha", "budget", "transform"])
def test_the_readme_names_every_option(group):
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `{group}`[^|]*\|(.*)\|$", text, re.MULTILINE)
    named = re.findall(r"`(\w+)`", row.partition(":")[0])
    assert sorted(named) == sorted(file.stem for file in (CHECKOUT / "conf" / group).glob("*.yaml"))


def test_what_the_readme_says_is_on_the_path():
    """One program; and extras that there are."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert list(project["scripts"]) == ["alphagrad"]
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    asked = re.findall(r"pip install '\.\[([\w,]+)\]'", text)
    assert asked
    assert {name for names in asked for name in names.split(",")} <= set(project["optional-dependencies"])
