"""The project's own files, as the tests of its architecture read them: each is parsed once."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def module_name(file: Path) -> str:
    """The module that a file is once it is installed."""
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


@cache
def parsed(file: Path) -> tuple[ast.AST, ...]:
    """All nodes of a file, the module first."""
    return tuple(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))


@cache
def imported(file: Path, package: str, at_import_time: bool = False) -> frozenset[str]:
    """The modules a file of a package imports, absolute; ``from package import submodule`` counts the submodule."""
    found: set[str] = set()

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

    visit(parsed(file)[0])
    return frozenset(found - {"__future__"})


def roots(modules: set[str]) -> set[str]:
    """The packages that modules are of."""
    return {m.partition(".")[0] for m in modules}
