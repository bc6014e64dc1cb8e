"""Imports go one way, as CONTRIBUTING says."""

from __future__ import annotations

import re
import sys

import pytest
from sources import FILES, ROOT, imported, roots

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
    "inspection": (
        "evidence",
        "launching",
        "training",
        "records",
        "store",
        "config",
        "harness",
        "landscape",
        "common",
        "optimizer",
    ),
    "plugins": ("launching", "training", "config", "common"),
    "commands": (
        *("inspection", "plugins", "tuning", "evidence", "launching", "training", "records", "store", "config"),
        *("harness", "exporting", "common"),
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
EVIDENCE = [n for n in FILES if wing(n) in ("evidence", "store", "records") and n != "alphagrad.lab.records.checkpoint"]


def imports(name: str, at_import_time: bool = False) -> set[str]:
    """The modules a module imports."""
    file = FILES[name]
    package = name if file.stem == "__init__" else name.rpartition(".")[0]
    return set(imported(file, package, at_import_time))


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


def test_library_imports_torch_alone():
    kernels = {"llvmlite", "numba", "numpy", "triton"}
    for name in LIBRARY:
        found = imports(name)
        outside = roots(found) - set(sys.stdlib_module_names) - {"alphagrad", "torch"}
        assert outside <= (kernels if name.startswith("alphagrad.kernels.") else set()), name
        assert {m for m in found if m.startswith("alphagrad")} <= {*LIBRARY, "alphagrad"}, name


def test_recipes_know_nothing_of_hydra_and_mlflow():
    others = {"hydra", "omegaconf", "mlflow", "hydra_plugins"}
    assert len(RECIPES) > 60
    assert not [name for name in RECIPES if roots(imports(name)) & others]


def test_imports_go_down():
    """Those inside functions and for type checkers, too."""
    empty = {"alphagrad.lab", "alphagrad.recipes"}
    assert not [imports(name) for name in empty if imports(name)]
    for name in FILES.keys() - empty:
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


def rows() -> list[str]:
    """The wings in the order of CONTRIBUTING's table, from the top."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    places = re.findall(r"^\| `((?:alphagrad|conf|recipes)[^`]*)` \|", text, re.MULTILINE)
    found = []
    for place in places:
        module = place.removesuffix(".py").removesuffix("*").strip("/").replace("/", ".")
        found.append(wing(module if module.startswith("alphagrad") else f"alphagrad.{module}"))
    return found


def test_the_table_of_the_house_has_this_order():
    """A wing's row is above the rows of all that it may import; the optimizer's rows are next to each other."""
    found = rows()
    assert set(found) == set(FLOORS)
    assert [own for own in found if own != "optimizer"] + ["optimizer"] == list(dict.fromkeys(found))
    for own, below in FLOORS.items():
        assert not [other for other in below if found.index(other) < found.index(own)], own


def test_wings_are_small():
    files: dict[str, int] = {}
    for name, file in FILES.items():
        if name.startswith("alphagrad.lab.") and file.stem != "__init__":
            house = name.rpartition(".")[0]
            files[house] = files.get(house, 0) + 1
    assert set(files) >= {f"alphagrad.lab.{own}" for own in ("config", "records", "training", "evidence")}
    assert not {house: n for house, n in files.items() if n > MOST_FILES and house != "alphagrad.lab.commands"}


def test_reports_do_without_torch():
    assert len(EVIDENCE) > 40
    for name in EVIDENCE:
        assert "torch" not in roots(reachable(name)), name
        assert "torch" not in roots(imports(name)), name
        below = imports(name) & set(FILES)
        assert not [m for m in below if "torch" in roots(imports(m))], name


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
