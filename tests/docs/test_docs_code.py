"""The code in the documentation: Python runs, and every `alphagrad` command is one that there is."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from shortened import first
from written import CHECKOUT, PAGES, Block, blocks, commands, file_name, title, words_of

import alphagrad_cli
from alphagrad.common.errors import ConfigError
from alphagrad.common.own import importable
from alphagrad.lab.config import compose, sweep

WITH_PYTHON = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]
WITH_COMMANDS = [page for page in PAGES if commands(page)]
QUICK = ("README.md", "docs/tutorial.md", "docs/howto/studies.md")
"""Pages whose commands are checked by default."""
DEAR = ("docs/howto/export.md", "docs/howto/text.md")
"""Pages whose programs take seconds."""


def some_long(pages: list[Path], quick: Callable[[str], bool]) -> list[Any]:
    """The pages as values of a parameter, with those that are not quick marked ``long``."""
    return [pytest.param(page, id=title(page), marks=[] if quick(title(page)) else pytest.mark.long) for page in pages]


@pytest.fixture
def desk(lab, tmp_path) -> Iterator[Path]:
    """A reader's folder, where Python finds modules and alphagrad the configuration in conf/."""
    lab.chdir(tmp_path)
    lab.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if any((tmp_path / folder / f"{name.partition('.')[0]}.py").exists() for folder in ("", "conf")):
            del sys.modules[name]


def lay_out(page: Path, desk: Path, lab: pytest.MonkeyPatch) -> list[Block]:
    """Writes the blocks that are files; returns the others."""
    rest = []
    for block in blocks(page):
        name = file_name(block)
        if name is None:
            rest.append(block)
            continue
        (desk / name).parent.mkdir(parents=True, exist_ok=True)
        text = block.text
        if "@package" in text:  # Hydra wants it in the first line
            text = text.partition("\n")[2]
        (desk / name).write_text(text, encoding="utf-8")
    if (desk / "conf").exists():
        lab.setenv("ALPHAGRAD_CONF", str(desk / "conf"))
        importable(desk / "conf")
    importlib.invalidate_caches()
    return rest


@pytest.mark.parametrize("page", some_long(WITH_PYTHON, lambda name: name not in DEAR))
def test_python_runs(page, desk, lab):
    loose = [block for block in lay_out(page, desk, lab) if block.language == "python"]
    for file in [*desk.glob("*.py"), *desk.glob("conf/*.py")]:
        importlib.import_module(file.stem)
    namespace: dict[str, object] = {"__name__": "__docs__"}
    for block in loose:
        # as many empty lines before it as in the page, so that an error names the line
        code = compile("\n" * block.line + textwrap.dedent(block.text), str(page), "exec")
        exec(code, namespace)


class Parsed(BaseException):
    """What a command has made of its words."""

    def __init__(self, namespace: argparse.Namespace) -> None:
        self.namespace = namespace


def check_settings(overrides: list[str], multirun: bool) -> None:
    """Composes jobs, as `alphagrad run` does before it begins: of a sweep each optimizer, with the first of its values.

    What a study's own file sweeps over is looked at where all of `conf/` is.
    """
    for job in sweep.jobs_of(list(map(first, overrides))) if multirun else [overrides]:
        compose.compose(job)


@pytest.fixture
def parses(lab) -> None:
    """A command's words are read, and then it stops."""
    for method in ("parse_args", "parse_intermixed_args"):
        read = getattr(argparse.ArgumentParser, method)

        def then_stop(self, args=None, namespace=None, read=read):
            raise Parsed(read(self, args, namespace))

        lab.setattr(argparse.ArgumentParser, method, then_stop)


def check(words: list[str]) -> None:
    """Fails if alphagrad would refuse the words of a command."""
    if words[0] == "run" and not {"--help", "-h"} & set(words):
        flags = [word for word in words[1:] if word.startswith("-") or word == "job"]
        assert set(flags) <= {"-m", "--multirun", "--cfg", "job"}, words
        check_settings([word for word in words[1:] if word not in flags], bool({"-m", "--multirun"} & set(flags)))
        return
    try:
        status = alphagrad_cli.main(words)
    except Parsed as seen:
        if overrides := getattr(seen.namespace, "overrides", None):
            check_settings(overrides, words[0] == "tune")
        return
    except SystemExit as left:
        status = left.code
    assert not status, words


@pytest.mark.parametrize("page", some_long(WITH_COMMANDS, lambda name: name in QUICK))
def test_commands_are_ones_that_there_are(page, desk, lab, parses):
    lay_out(page, desk, lab)
    before = sorted(os.walk(desk))
    with compose.hydra_initialized():
        for words in commands(page):
            if "NAME" not in " ".join(words):  # a placeholder, where a setting's value must be real
                check(words)
    assert sorted(os.walk(desk)) == before


@pytest.mark.parametrize(
    "line",
    [
        "alphagrad run recipe=image optimizer=adma",
        "alphagrad run -m recipe=dqn_cartpole optimizer=adam,alphagrad alpha.valeu=1,2",
        "alphagrad run recipe.gamma.x=1",
        "alphagrad tune recipe=nope --trials 10",
        "alphagrad report --plots curves.png",
        "alphagrad reprot",
        "alphagrad resume",
    ],
)
def test_a_wrong_command_would_be_found(line, desk, parses):
    with pytest.raises((AssertionError, ConfigError)), compose.hydra_initialized():
        check(words_of(line))


def test_what_is_looked_at():
    """The pages that have code are among those that are looked at, with all they have."""
    assert {"README.md", "CONTRIBUTING.md", "docs/tutorial.md", "docs/howto/variant.md"} <= set(map(title, PAGES))
    assert [block.language for block in blocks(CHECKOUT / "README.md")].count("python") >= 2
    assert {"run", "ls", "resume", "report", "tune"} <= {words[0] for words in commands(CHECKOUT / "README.md")}
    assert words_of("FOO=1 .venv/bin/alphagrad run -m 'seed=range(5)'  # five") == ["run", "-m", "seed=range(5)"]
    assert words_of("torchrun --nproc-per-node 2 -m alphagrad_cli run recipe=lm") == ["run", "recipe=lm"]
    assert words_of("pip install alphagrad") == []
