"""Text that comes with Python: docstrings of the standard library, and its documentation's topics."""

from __future__ import annotations

import ast
import sysconfig
import zlib
from collections.abc import Iterator
from pathlib import Path

PACKAGES = (
    "asyncio",
    "email",
    "encodings",
    "http",
    "importlib",
    "inspect",
    "ipaddress",
    "logging",
    "mailbox",
    "multiprocessing",
    "pathlib",
    "tarfile",
    "threading",
    "unittest",
    "urllib",
    "xml",
)
"""The classes of :func:`pydocs`: what every Python from 3.11 on has and documents most."""
TEST_EVERY, WORDS = 5, 5
"""A fifth of the docstrings is for testing, and those of fewer than five words are left out."""
VALIDATION_EVERY = 10
"""A tenth of the topics is for validation."""


def held_out(text: str, every: int) -> bool:
    """Whether a text is in the held-out part: decided by its CRC-32, so by the text alone."""
    return zlib.crc32(text.encode()) % every == 0


def pydocs() -> dict[str, list[tuple[str, str]]]:
    """Docstrings of :data:`PACKAGES`, read from their sources: split → (text, package).

    Tests are left out, and so is a docstring that several packages have. Which split a docstring is in
    depends on its text alone, so that equal ones are together; another Python has other docstrings.

    Raises:
        ValueError: this Python has no sources of its library.
    """
    library = Path(sysconfig.get_paths()["stdlib"])
    owners: dict[str, set[str]] = {}
    for package in PACKAGES:
        texts = [text for file in _sources(library, package) for text in _docstrings(file)]
        if not texts:
            raise ValueError(f"data.name=pydocs: {library} has no source of {package}")
        for text in texts:
            owners.setdefault(text, set()).add(package)
    splits: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
    for text, packages in owners.items():
        if len(packages) == 1:
            (package,) = packages
            splits["test" if held_out(text, TEST_EVERY) else "train"].append((text, package))
    return splits


def _sources(library: Path, package: str) -> list[Path]:
    if (library / f"{package}.py").exists():
        return [library / f"{package}.py"]
    return sorted(f for f in (library / package).rglob("*.py") if not {"test", "tests"} & set(f.parts))


def _docstrings(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text and len(text.split()) >= WORDS:
                yield text


def topics() -> dict[str, list[str]]:
    """Python's documentation of its language, ``pydoc_data.topics``: split → documents in alphabetical order."""
    from pydoc_data.topics import topics as documents

    splits: dict[str, list[str]] = {"train": [], "test": []}
    for _, text in sorted(documents.items()):
        splits["test" if held_out(text, VALIDATION_EVERY) else "train"].append(text)
    return splits
