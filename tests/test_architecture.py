"""Imports go one way, and nothing does what DESIGN forbids."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    if parts[0] in ("recipes", "conf"):
        parts = ("alphagrad", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {
    module_name(f): f
    for f in sorted(
        [
            *ROOT.glob("alphagrad/**/*.py"),
            *ROOT.glob("recipes/**/*.py"),
            *ROOT.glob("conf/*.py"),
            ROOT / "alphagrad_cli.py",
        ]
    )
}
FLOORS = {
    "optimizer": (),
    "common": (),
    "landscape": (),
    "exporting": (),
    "harness": ("landscape", "exporting", "common", "optimizer"),
    "recipes": ("harness", "landscape", "exporting", "optimizer"),
    "conf": (),
    "store": ("common",),
    "config": ("conf", "harness", "common", "optimizer"),
    "records": ("store", "harness", "common"),
    "training": ("records", "store", "config", "harness", "common"),
    "launching": ("training", "records", "store", "config", "harness", "common"),
    "tuning": ("launching", "training", "records", "store", "config", "harness", "common"),
    "evidence": ("records", "store", "harness", "common"),
    "plugins": ("launching", "training", "config", "common"),
    "commands": (
        *("plugins", "tuning", "evidence", "launching", "training", "records", "store", "config"),
        *("harness", "landscape", "exporting", "common", "optimizer"),
    ),
    "command line": ("commands", "config", "store", "common", "optimizer"),
}
"""Wing → the wings that it may import, at any time and for any purpose; within itself it may import everything."""
MOST_FILES = 10


def wing(module: str) -> str:
    """Where a module lives."""
    if module == "alphagrad_cli":
        return "command line"
    if module.startswith("hydra_plugins."):
        return "plugins"
    parts = module.split(".")
    if parts[1:2] == ["lab"]:
        return parts[2] if len(parts) > 2 else "lab"
    return parts[1] if parts[1:2] and parts[1] in FLOORS else "optimizer"


LIBRARY = [n for n in FILES if wing(n) == "optimizer"]
RECIPES = [n for n in FILES if wing(n) == "recipes"]


def imports(name: str, at_import_time: bool = False) -> set[str]:
    """The modules a module imports, absolute; ``from package import submodule`` counts the submodule."""
    found: set[str] = set()
    package = name if FILES[name].stem == "__init__" else name.rpartition(".")[0]

    def visit(node: ast.AST) -> None:
        if at_import_time and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            return
        if at_import_time and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")
                base = ".".join([*above[: len(above) - node.level + 1], *([base] if base else [])])
            submodules = {f"{base}.{alias.name}" for alias in node.names} & set(FILES)
            # `from package import submodule, name`: the package itself counts for names that are no modules
            found.update(submodules if len(submodules) == len(node.names) else submodules | {base})
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(FILES[name].read_text(encoding="utf-8")))
    return found - {"__future__"}


def test_every_package_is_installed():
    """A wheel holds the packages that pyproject names, and no others."""
    named = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    plugins = {"alphagrad.lab.plugins": "hydra_plugins.alphagrad"}
    ours = {name for name, file in FILES.items() if file.name == "__init__.py"}
    assert {plugins.get(name, name) for name in ours} == set(named)


def roots(modules: set[str]) -> set[str]:
    return {m.partition(".")[0] for m in modules}


def reachable(name: str) -> set[str]:
    """Everything that importing a module of ours loads, followed through our own modules."""
    seen: set[str] = set()
    todo = [name]
    while todo:
        for module in imports(todo.pop(), at_import_time=True) - seen:
            seen.add(module)
            if module in FILES:
                todo.append(module)
    return seen


def test_the_scan_sees_the_project():
    assert {"alphagrad", "alphagrad.optimizer", "alphagrad.variants.sign", "alphagrad.lab.training.runner"} <= set(
        FILES
    )
    assert {"alphagrad.recipes.dqn", "alphagrad.conf", "alphagrad_cli"} <= set(FILES)
    assert "alphagrad.recipes.envs" in imports("alphagrad.recipes.dqn")  # a relative import
    assert "mlflow" in roots(imports("alphagrad.lab.store.connection"))  # one inside a function
    assert "mlflow" not in roots(imports("alphagrad.lab.store.connection", at_import_time=True))


@pytest.mark.parametrize("name", LIBRARY)
def test_library_imports_torch_alone(name):
    found = imports(name)
    outside = roots(found) - set(sys.stdlib_module_names) - {"alphagrad", "torch"}
    assert outside <= ({"llvmlite", "numba", "numpy", "triton"} if name.startswith("alphagrad.kernels.") else set())
    ours = {m for m in found if m.startswith("alphagrad")}
    assert ours <= {*LIBRARY, "alphagrad"}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_know_nothing_of_hydra_and_mlflow(name):
    assert not roots(imports(name)) & {"hydra", "omegaconf", "mlflow", "hydra_plugins"}


@pytest.mark.parametrize("name", FILES)
def test_imports_go_down(name):
    """Those inside functions and for type checkers, too."""
    if name in ("alphagrad.lab", "alphagrad.recipes"):
        assert not imports(name)
        return
    own = wing(name)
    ours = {module for module in imports(name) if module.partition(".")[0] in ("alphagrad", "hydra_plugins")}
    up = {module for module in ours if wing(module) not in (own, "lab", *FLOORS[own])}
    assert not up, f"{name} ({own}) imports {', '.join(sorted(up))}"


def test_floors_have_an_order():
    """A wing is above all that it imports."""
    seen: list[str] = []
    for own, below in FLOORS.items():
        assert set(below) <= set(seen), own
        seen.append(own)


def test_wings_are_small():
    files: dict[str, int] = {}
    for name, file in FILES.items():
        if name.startswith("alphagrad.lab.") and file.stem != "__init__":
            house = name.rpartition(".")[0]
            files[house] = files.get(house, 0) + 1
    assert set(files) >= {f"alphagrad.lab.{own}" for own in ("config", "records", "training", "evidence")}
    assert not {house: n for house, n in files.items() if n > MOST_FILES and house != "alphagrad.lab.commands"}


EVIDENCE = [n for n in FILES if wing(n) in ("evidence", "store", "records") and n != "alphagrad.lab.records.checkpoint"]


@pytest.mark.parametrize("name", EVIDENCE)
def test_reports_do_without_torch(name):
    assert "torch" not in roots(reachable(name))
    assert "torch" not in roots(imports(name))
    below = imports(name) & set(FILES)
    assert not [m for m in below if "torch" in roots(imports(m))]


def test_nothing_imports_the_command_line():
    assert not [n for n in FILES if "alphagrad_cli" in roots(imports(n))]


def test_only_tracking_store_and_ui_touch_mlflow():
    users = {n for n in FILES if "mlflow" in roots(imports(n))}
    store = {f"alphagrad.lab.store.{room}" for room in ("bulk", "connection", "curves", "datasets", "machine")}
    assert users == store | {"alphagrad.lab.records.run", "alphagrad.lab.records.search"}


def test_no_import_cycles():
    """Counting imports inside functions and for type checkers."""
    graph = {n: imports(n) & set(FILES) for n in FILES}
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        assert name not in path, " → ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in graph[name]:
                visit(other, [*path, name])
            done.add(name)

    for name in graph:
        visit(name, [])
    assert done == set(FILES)


def test_a_cycle_would_be_found(tmp_path, monkeypatch):
    (tmp_path / "one.py").write_text("import two\n")
    (tmp_path / "two.py").write_text("from one import x\n")
    monkeypatch.setattr(sys.modules[__name__], "FILES", {"one": tmp_path / "one.py", "two": tmp_path / "two.py"})
    with pytest.raises(AssertionError, match="→"):
        test_no_import_cycles()


@pytest.mark.parametrize("name", FILES)
def test_files_stay_short(name):
    assert len(FILES[name].read_text(encoding="utf-8").splitlines()) <= 300


@pytest.mark.parametrize("name", FILES)
def test_functions_stay_short(name):
    """But for an algorithm's ``train``, which reads from top to bottom."""
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name != "train":
            assert node.end_lineno - node.lineno < 60, f"{node.name} has {node.end_lineno - node.lineno + 1} lines"


@pytest.mark.parametrize("name", FILES)
def test_forbidden_calls(name):
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("eval", "exec", "pickle.load", "pickle.loads"), ast.unparse(node)
            if called == "torch.load":
                assert "weights_only=True" in ast.unparse(node), ast.unparse(node)


@pytest.mark.parametrize("name", [n for n in FILES if n != "alphagrad.lab.records.lifecycle"])
def test_how_a_run_stands_is_known_in_one_place(name):
    """No other file compares or writes the store's words for it."""
    words = {"FINISHED", "FAILED", "KILLED", "RUNNING", "MISSING"}
    tree = ast.parse(FILES[name].read_text(encoding="utf-8"))
    assert not [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and n.value in words]


def loaded_after(statement: str, *heavy: str) -> str:
    """Which of the modules a fresh interpreter has loaded after a statement."""
    code = f"import sys\n{statement}\nprint(*[m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import alphagrad.lab.evidence.report, alphagrad.lab.evidence.results", ("torch", "hydra", "mlflow")),
        ("import alphagrad.lab.records.run", ("torch",)),
        (
            "from alphagrad import AlphaGrad, Rule, signals, variants",
            ("hydra", "omegaconf", "mlflow", "pydantic", "scipy"),
        ),
        ("import alphagrad.recipes.dqn", ("hydra", "omegaconf", "mlflow")),
        ("import alphagrad", ("torch", "numpy")),
        (
            "import os, alphagrad_cli; os.environ |= {'COMP_LINE': 'alphagrad run opt', 'COMP_POINT': '17'}; "
            "alphagrad_cli.main(['complete'])",
            ("torch", "numpy", "mlflow"),
        ),
        (
            "import alphagrad_cli; alphagrad_cli.main(['--help'])",
            ("torch", "numpy", "hydra", "omegaconf", "mlflow", "rich"),
        ),
    ],
)
def test_what_is_loaded(statement, absent):
    assert loaded_after(statement, *absent) == ""


def test_what_is_loaded_can_tell():
    assert loaded_after("import numpy", "torch", "numpy") == "numpy"
