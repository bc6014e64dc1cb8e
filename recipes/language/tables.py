"""Columns of text in tables: CSV, JSON, JSON lines and Parquet; the same rows give the same texts in each."""

from __future__ import annotations

import datetime
import decimal
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from csv import Error as CsvError
from csv import reader as csv_rows
from pathlib import Path
from typing import Any

import numpy as np

from .files import kind_of, read_text

BLOCK = 1 << 28
"""Bytes that pyarrow reads at a time; a row must fit."""
LONGEST_JSON = 1 << 26
"""Characters that are parsed at once: what comes of them takes up to twenty times as much memory."""
PLAIN = (int, float, decimal.Decimal, datetime.date, datetime.time, np.floating)
"""What a value of Parquet may be besides text; it is written as Python writes it."""


def columns_of(asked: str, file: Path, names: list[tuple[str, str]]) -> list[list[str]]:
    """Columns of a table as text, given as (setting, column); ``asked`` is the setting that named the file.

    Raises:
        ValueError: it cannot be read, lacks a column, has two of one name, or a value is missing or no text.
    """
    wanted = [name for _, name in names]
    text = "" if kind_of(file) == ".parquet" else read_text(asked, file)
    try:
        present, values = READERS[kind_of(file)](file, text, wanted)
    # pyarrow's own are ValueErrors, and a KeyError where two columns have one name
    except (CsvError, OSError, ValueError, TypeError, KeyError, NotImplementedError, RecursionError) as error:
        told = " ".join(str(error).split())[:200]
        raise ValueError(f"{asked}: {file} cannot be read as {file.suffix[1:]} ({told})") from error
    columns = []
    for setting, name in names:
        if (count := present.count(name)) != 1:
            has = "has no such column" if count == 0 else f"has {count} such columns"
            told = " ".join(", ".join(present[:20])[:500].split())  # a quote left open takes in lines
            told += f", … ({len(present):,} columns)" if len(present) > 20 else ""
            raise ValueError(f"{setting}={name}: {file} {has}; it has {told}")
        columns.append(as_texts(f"{setting}={name}: {file}", values[name], setting == "data.label"))
    return columns


def names_of(asked: str, file: Path) -> list[str]:
    """The columns of a table, in order; ``asked`` is the setting that named the file.

    Raises:
        ValueError: it cannot be read.
    """
    text = "" if kind_of(file) == ".parquet" else read_text(asked, file)
    try:
        return list(dict.fromkeys(READERS[kind_of(file)](file, text, [])[0]))
    except (CsvError, OSError, ValueError, TypeError, KeyError, NotImplementedError, RecursionError) as error:
        told = " ".join(str(error).split())[:200]
        raise ValueError(f"{asked}: {file} cannot be read as {file.suffix[1:]} ({told})") from error


def as_texts(where: str, values: Iterable[Any], nonempty: bool = False) -> list[str]:
    """Values as they stand in their file; bytes are decoded as UTF-8.

    Args:
        where: setting and file, for messages.
        values: of one column.
        nonempty: whether a value must have a character, as a class must.

    Raises:
        ValueError: a value is missing or no text; names its row.
    """
    texts = []
    for row, value in enumerate(values, start=1):
        if (
            value is None
            or (isinstance(value, (float, np.floating)) and math.isnan(value))
            or (nonempty and value in ("", b""))
        ):
            raise ValueError(f"{where} has no value in row {row}")
        if isinstance(value, bool):
            value = str(value).lower()  # as JSON has it
        elif isinstance(value, PLAIN):
            value = str(value)
        try:
            if isinstance(value, bytes):
                value = value.decode("utf-8")
            elif isinstance(value, str):
                value.encode("utf-8")  # JSON can hold half of a character
            else:
                raise ValueError(f"{where} has a {type(value).__name__} in row {row}, no text")
        except UnicodeError as error:
            raise ValueError(
                f"{where} has a value in row {row} that is no UTF-8 text ({getattr(error, 'reason', error)})"
            ) from error
        texts.append(value)
    return texts


Read = tuple[list[str], dict[str, list[Any]]]
"""A table's columns, and the values of those that are asked for and there once."""


def _csv(file: Path, text: str, wanted: list[str]) -> Read:
    import pyarrow as pa
    from pyarrow import csv

    present = next(csv_rows(io.StringIO(text, newline="")), [])
    once = [name for name in dict.fromkeys(wanted) if present.count(name) == 1]
    if not once:
        return present, {}
    table = csv.read_csv(
        io.BytesIO(text.encode()),
        read_options=csv.ReadOptions(block_size=BLOCK),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(column_types=dict.fromkeys(once, pa.string()), include_columns=once),
    )
    return present, _once(table, once)


def _parquet(file: Path, text: str, wanted: list[str]) -> Read:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(file) as opened:
        present = opened.schema_arrow.names
        table = opened.read([name for name in wanted if present.count(name) == 1])
    return present, _once(table, wanted)


def _once(table: Any, wanted: list[str]) -> dict[str, list[Any]]:
    import pyarrow as pa

    values = {}
    for name in wanted:
        if table.column_names.count(name) == 1:
            column = table.column(name)
            short = {pa.float16(): np.float16, pa.float32(): np.float32}.get(column.type)
            # 0.1, not the 0.10000000149011612 that it is as a float of 64 bits
            values[name] = [v if v is None or short is None else short(v) for v in column.to_pylist()]
    return values


def _json(file: Path, text: str, wanted: list[str]) -> Read:
    """An array of objects, or an object a line."""
    whole = re.match(r"\s*\[", text) is not None
    rows = _parsed(text, "an array") if whole else (_parsed(line, "a row") for line in _lines(text) if line.strip())
    present: dict[str, None] = {}
    values: dict[str, list[Any]] = {name: [] for name in wanted}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise ValueError(f"row {number} is no object; it must be an array of objects, or an object a line")
        present.update(dict.fromkeys(row))
        for name, column in values.items():
            column.append(row.get(name))
    return list(present), {name: column for name, column in values.items() if name in present}


def _lines(text: str) -> Iterator[str]:
    """Not splitlines, which ends lines where JSON does not."""
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end + 1


def _parsed(text: str, what: str) -> Any:
    """JSON, its numbers as the text that they are."""
    if len(text) > LONGEST_JSON:
        raise ValueError(
            f"{what} of {len(text):,} characters, which takes many times as much memory: at most {LONGEST_JSON:,} are "
            "read at once; an object a line, or Parquet, has no such limit"
        )
    return json.loads(text, parse_int=str, parse_float=str, parse_constant=_constant, object_pairs_hook=_object)


def _constant(name: str) -> str | float:
    return math.nan if name == "NaN" else name


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    held = dict(pairs)
    if len(held) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"a row has two values of {twice}")
    return held


READERS: dict[str, Callable[[Path, str, list[str]], Read]] = {
    ".csv": _csv,
    ".json": _json,
    ".jsonl": _json,
    ".parquet": _parquet,
}
