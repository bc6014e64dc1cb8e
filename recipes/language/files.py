"""Text in files: tables in CSV, JSON and Parquet, and plain text."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from csv import reader as csv_rows
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
    try:
        found = sorted(f for f in base.glob(str(relative)) if f.is_file())
    except (ValueError, IndexError, NotImplementedError) as error:  # what pathlib raises for ., / and a**
        raise ValueError(f"{setting}={pattern}: is neither a file nor a pattern of files ({error})") from error
    if not found:
        where = "" if path.is_absolute() else f" below {base} (data.root, else $ALPHAGRAD_DATA, else ./data)"
        raise ValueError(f"{setting}={pattern}: no such file{where}")
    return found


def columns_of(asked: str, file: Path, names: list[tuple[str, str]]) -> list[list[str]]:
    """Columns of a table as text, given as (setting, column); ``asked`` is the setting that named the file.

    Raises:
        ValueError: it cannot be read, lacks a column, has two of one name, or a value is missing or no text.
    """
    try:
        held = names_of(file)
        if held is not None:
            for setting, name in names:
                _check_column(setting, name, file, held)
        table = _read(file, [name for _, name in names])
    except Column as error:
        raise ValueError(str(error)) from error
    # pyarrow's own are ValueErrors, and a KeyError where two columns have one name
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        told = " ".join(str(error).split())[:200]
        raise ValueError(f"{asked}: {file} cannot be read as {file.suffix[1:]} ({told})") from error
    columns = []
    for setting, name in names:
        try:
            _check_column(setting, name, file, table.column_names)
        except Column as error:
            raise ValueError(str(error)) from error
        values = table.column(name).to_pylist()
        for row, value in enumerate(values, start=1):
            if (
                value is None
                or (isinstance(value, float) and math.isnan(value))
                or (setting == "data.label" and value == "")
            ):
                raise ValueError(f"{setting}={name}: {file} has no value in row {row}")
            if isinstance(value, (list, dict)):
                raise ValueError(f"{setting}={name}: {file} has a {type(value).__name__} in row {row}, no text")
        columns.append([str(value) for value in values])
    return columns


class Column(Exception):
    """A column is not there once."""


def _check_column(setting: str, name: str, file: Path, names: Sequence[str]) -> None:
    if (count := names.count(name)) != 1:
        has = "has no such column" if count == 0 else f"has {count} such columns"
        told = ", ".join(names[:20])[:500] + (f", … ({len(names):,} columns)" if len(names) > 20 else "")
        raise Column(f"{setting}={name}: {file} {has}; it has {told}")


def names_of(file: Path) -> list[str] | None:
    """The columns of a table without its rows; None where that takes reading it."""
    if kind_of(file) == ".parquet":
        from pyarrow import parquet

        return list(parquet.read_schema(file).names)
    if kind_of(file) != ".csv":
        return None
    with file.open(encoding="utf-8-sig", newline="") as text:
        return next(csv_rows(text), [])


def _read(file: Path, columns: list[str]) -> Any:
    import pyarrow as pa
    from pyarrow import csv, parquet
    from pyarrow import json as lines

    if kind_of(file) == ".csv":
        return csv.read_csv(
            file,
            read_options=csv.ReadOptions(block_size=BLOCK),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.string()), include_columns=list(dict.fromkeys(columns))
            ),
        )
    if kind_of(file) == ".parquet":
        return parquet.read_table(file, columns=list(dict.fromkeys(columns)))
    with file.open(encoding="utf-8-sig") as text:
        while (first := text.read(1)).isspace():
            pass
    if first == "[":
        rows = json.loads(file.read_text(encoding="utf-8-sig"))
        names = dict.fromkeys(name for row in rows for name in row)
        return pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])
    return lines.read_json(file, read_options=lines.ReadOptions(block_size=BLOCK))


def kind_of(file: Path) -> str:
    """A file's ending, in small letters."""
    return file.suffix.lower()


def text_of(asked: str, file: Path) -> str:
    """A text file whole; ``ValueError`` if it cannot be read or is not UTF-8."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{asked}: {file} cannot be read as UTF-8 text ({error})") from error
