"""Which values of a parameter are tested by default, and which only by `make test-long`."""

from __future__ import annotations

from typing import Any

import pytest


def long(*values: Any) -> list[Any]:
    """The values, with which a test is marked ``long``."""
    return [pytest.param(value, marks=pytest.mark.long) for value in values]
