"""Text in files: tables in CSV, JSON and Parquet, and plain text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..supervised.roots import root_of

TABLES = (".csv", ".json", ".jsonl", ".parquet")
BLOCK = 1 << 28
"""Bytes that pyarrow reads at a time; a row must fit."""


def files_of(setting: str, pattern: str, root: str | None) -> list[Path]:
    """The files that a path or pattern names, sorted; relative ones lie below the root.

    Raises:
        ValueError: there is none.
    """
    path = Path(pattern).expanduser()
    base, relative = (Path(path.anchor), path.relative_to(path.anchor)) if path.is_absolute() else (root_of(root), path)
    found = sorted(f for f in base.glob(str(relative)) if f.is_file())
    if not found:
        where = "" if path.is_absolute() else f" below {base} (data.root, else $ALPHAGRAD_DATA, else ./data)"
        raise ValueError(f"{setting}={pattern}: no such file{where}")
    return found


def columns_of(file: Path, names: list[tuple[str, str]]) -> list[list[Any]]:
    """Columns of a table, given as (setting, column).

    Raises:
        ValueError: it cannot be read, lacks a column, or a value is missing.
    """
    table = _read(file, [name for _, name in names])
    columns = []
    for setting, name in names:
        if name not in table.column_names:
            raise ValueError(f"{setting}={name}: {file} has no such column; it has {', '.join(table.column_names)}")
        values = table.column(name).to_pylist()
        if None in values:
            raise ValueError(f"{setting}={name}: {file} has no value in row {values.index(None) + 1}")
        columns.append(values)
    return columns


def _read(file: Path, columns: list[str]) -> Any:
    import pyarrow as pa
    from pyarrow import csv, parquet
    from pyarrow import json as lines

    try:
        if file.suffix == ".csv":
            return csv.read_csv(
                file,
                read_options=csv.ReadOptions(block_size=BLOCK),
                parse_options=csv.ParseOptions(newlines_in_values=True),
                convert_options=csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string())),
            )
        if file.suffix == ".parquet":
            return parquet.read_table(file)
        with file.open(encoding="utf-8") as text:
            array = text.read(1) == "["
        if array:
            return pa.Table.from_pylist(json.loads(file.read_text(encoding="utf-8")))
        return lines.read_json(file, read_options=lines.ReadOptions(block_size=BLOCK))
    except (OSError, ValueError, TypeError, AttributeError) as error:  # pyarrow's own are ValueErrors
        raise ValueError(
            f"{file}: cannot be read as {file.suffix[1:]} ({' '.join(str(error).split())[:200]})"
        ) from error


def text_of(file: Path) -> str:
    """A text file whole; ``ValueError`` if it is not UTF-8."""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: is not UTF-8 text ({error})") from error
