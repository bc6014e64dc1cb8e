"""Which values of a parameter are tested by default, and which only by `make test-long`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

import pytest


def long(*values: Any) -> list[Any]:
    """The values, with which a test is marked ``long``."""
    return [pytest.param(value, marks=pytest.mark.long) for value in values]


def long_rows(*rows: tuple[Any, ...]) -> list[Any]:
    """As :func:`long`, of values for several parameters."""
    return [pytest.param(*row, marks=pytest.mark.long) for row in rows]


def quick_where(values: Iterable[Any], quick: Callable[[Any], bool]) -> list[Any]:
    """The values in their order, marked ``long`` but for those that are quick."""
    return [value if quick(value) else pytest.param(value, marks=pytest.mark.long) for value in values]


def one_in(count: int, values: Iterable[Any]) -> list[Any]:
    """The values in their order, marked ``long`` but for the first of each ``count``."""
    return [value if k % count == 0 else pytest.param(value, marks=pytest.mark.long) for k, value in enumerate(values)]


def rows_one_in(count: int, rows: Iterable[tuple[Any, ...]]) -> list[Any]:
    """As :func:`one_in`, of values for several parameters."""
    return [row if k % count == 0 else pytest.param(*row, marks=pytest.mark.long) for k, row in enumerate(rows)]


def each_once(firsts: list[Any], seconds: list[Any]) -> list[Any]:
    """All pairs, marked ``long`` but for as many as it takes to have each value in one."""
    size = max(len(firsts), len(seconds))
    quick = {(firsts[k % len(firsts)], seconds[k % len(seconds)]) for k in range(size)}
    return [pair if pair in quick else pytest.param(*pair, marks=pytest.mark.long) for pair in product(firsts, seconds)]
