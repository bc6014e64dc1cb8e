"""How the project's files are kept: short, each in its room, each doing its own thing."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

from sources import FILES, ROOT, parsed

from alphagrad.lab import commands

LONGEST_FILE, LONGEST_FUNCTION = 300, 60
"""Lines."""
CHANGED = {
    "alphagrad.common.interrupts": {"_received", "_since", "_in_iteration", "_deferring", "_parent"},
    "alphagrad.common.warned": {"_here"},
    "alphagrad.lab.records.writer": {"_writers"},
    "alphagrad.lab.store.address": {"_secrets"},
    "alphagrad.lab.store.connection": {"_opened"},
}
"""Containers of modules that functions change, each for what a process has once: its signals, the warnings it has
shown, its writers, the secrets that it must not print, the database files that it has opened."""
HANDED_OVER = {"alphagrad.lab.launching.jobs"}
"""Files with a ``ContextVar``: what Hydra builds cannot be given an argument of ours."""
CHANGING = {"add", "append", "clear", "discard", "extend", "insert", "pop", "popitem", "remove", "setdefault", "update"}


def words_of(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


def test_every_package_is_installed():
    """A wheel holds the packages that pyproject names, and no others."""
    named = tomllib.loads(words_of("pyproject.toml"))["tool"]["setuptools"]["packages"]
    plugins = {"alphagrad.lab.plugins": "hydra_plugins.alphagrad"}
    ours = {name for name, file in FILES.items() if file.name == "__init__.py"}
    assert {plugins.get(name, name) for name in ours} == set(named)


def test_every_room_is_in_the_list():
    """CONTRIBUTING says of every package what lives there."""
    table = [line for line in words_of("CONTRIBUTING.md").splitlines() if line.startswith("| `")]
    rooms = {f"{file.parent.name}/" for file in FILES.values() if file.name == "__init__.py"} - {"alphagrad/", "lab/"}
    assert not {room for room in rooms if not any(f"{room}`" in line for line in table)}


def test_commands_are_files():
    """A file for each subcommand, with its ``main``, and the one that they share."""
    own = {name.rpartition(".")[2]: file for name, file in FILES.items() if name.startswith("alphagrad.lab.commands.")}
    del own["arguments"]
    assert set(own) == {name.replace("-", "_") for name in (*commands.NAMES, *commands.HIDDEN)}
    for file in own.values():
        assert "main" in [node.name for node in parsed(file) if isinstance(node, ast.FunctionDef)], file


def test_files_stay_short():
    lengths = {name: len(file.read_text(encoding="utf-8").splitlines()) for name, file in FILES.items()}
    assert not {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE}


def test_tests_and_benchmarks_stay_short():
    files = [file for folder in ("tests", "benchmarks") for file in ROOT.glob(f"{folder}/**/*.py")]
    lengths = {str(file): len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    assert len(lengths) > 100
    assert not {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE}


def functions(file: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All of a file's."""
    return [node for node in parsed(file) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def test_functions_stay_short():
    """But for an algorithm's ``train``, which reads from top to bottom."""
    lengths = {
        f"{name}.{node.name}": node.end_lineno - node.lineno + 1
        for name, file in FILES.items()
        for node in functions(file)
    }
    assert len(lengths) > 1000
    own = {name: lines for name, lines in lengths.items() if not name.endswith(".train")}
    assert not {name: lines for name, lines in own.items() if lines > LONGEST_FUNCTION}


def test_forbidden_calls():
    for name, file in FILES.items():
        for node in parsed(file):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "pickle.load", "pickle.loads"), f"{name}: {ast.unparse(node)}"
                if called == "torch.load":
                    assert "weights_only=True" in ast.unparse(node), f"{name}: {ast.unparse(node)}"


def test_how_a_run_stands_is_known_in_one_place():
    """No other file compares or writes the store's words for it."""
    words = {"FINISHED", "FAILED", "KILLED", "RUNNING", "MISSING"}
    telling = {
        name
        for name, file in FILES.items()
        for node in parsed(file)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in words
    }
    assert telling == {"alphagrad.lab.records.lifecycle"}


def names_of(nodes: list[ast.expr]) -> set[str]:
    """Those of variables among expressions."""
    return {node.id for node in nodes if isinstance(node, ast.Name)}


def changed_in(file: Path) -> set[str]:
    """The variables of a module that its functions change in place or set."""
    module = parsed(file)[0]
    assert isinstance(module, ast.Module)
    held: set[str] = set()
    for node in module.body:
        held |= names_of(node.targets if isinstance(node, ast.Assign) else [])
        held |= names_of([node.target] if isinstance(node, ast.AnnAssign) else [])
    changed: set[str] = set()
    for function in functions(file):
        for node in ast.walk(function):
            if isinstance(node, ast.Global):
                changed |= {*node.names}
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGING:
                changed |= names_of([node.func.value])
            if isinstance(node, (ast.Subscript, ast.Attribute)) and not isinstance(node.ctx, ast.Load):
                changed |= names_of([node.value])
    return changed & held


def test_nothing_is_handed_over_in_a_modules_variable():
    changed = {name: found for name, file in FILES.items() if (found := changed_in(file))}
    assert changed == CHANGED
    using = {name for name, file in FILES.items() if "ContextVar" in file.read_text(encoding="utf-8")}
    assert using == HANDED_OVER
