"""Tables of numbers with a target: embedded, simulated, or read from files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from alphagrad.harness.recipe import Settings
from alphagrad.harness.stack import RunStack

from ..language.files import files_of
from ..language.tables import columns_of, names_of
from ..supervised.held_out import divided
from ..supervised.orders import Orders


class TableSettings(Settings):
    """Which table; see conf/data/."""

    name: Literal["diabetes", "friedman", "numbers"]
    root: str | None = None
    """numbers: where relative paths begin; null for $ALPHAGRAD_DATA, else ./data."""
    file: str | None = Field(default=None, min_length=1)
    """numbers: CSV, JSON, JSON lines or Parquet."""
    target: str | None = Field(default=None, min_length=1)
    """numbers: the column that is predicted."""
    features: list[str] | None = None
    """numbers: the columns that it is predicted from; null for all others."""
    rows: PositiveInt | None = None
    """friedman: how many."""
    noise: float | None = Field(default=None, ge=0)
    """friedman: standard deviation of what is added to the target."""
    test: float = Field(gt=0, lt=1)
    """Share of the rows that is evaluated on."""


USES: dict[str, tuple[str, ...]] = {
    "diabetes": (),
    "friedman": ("rows", "noise"),
    "numbers": ("file", "target", "features", "root"),
}
NEEDED = ("rows", "noise", "file", "target")


@dataclass(frozen=True)
class Table:
    """Features [N, F] and targets [N], float32, standardised by what is trained on."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    @property
    def features(self) -> int:
        """F."""
        return self.train[0].shape[1]


def table_of(s: TableSettings) -> Table:
    """The table of these settings, divided and standardised; a target of the training mean has squared error 1.

    Raises:
        ValueError: a setting is missing or of another table, or a file cannot be read as one of numbers.
    """
    for name in ("root", "file", "target", "features", "rows", "noise"):
        value = getattr(s, name)
        if value is not None and name not in USES[s.name]:
            uses = f"; it has {', '.join(USES[s.name])}" if USES[s.name] else ""
            raise ValueError(f"data.{name}={value}: {s.name} has no such setting{uses}")
        if value is None and name in USES[s.name] and name in NEEDED:
            raise ValueError(f"data.{name}=null: {s.name} needs it")
    return _table(s.model_dump_json())


@lru_cache(maxsize=4)
def _table(settings: str) -> Table:
    s = TableSettings.model_validate_json(settings)
    x, y = _rows(s)
    kept, held = divided_as_test(len(x), s.test)
    center, spread = x[kept].mean(0), x[kept].std(0)
    x = (x - center) / np.where(spread > 0, spread, 1.0)
    if not y[kept].std() > 0:
        raise ValueError("data.target: has one value alone; there is nothing to learn")
    y = (y - y[kept].mean()) / y[kept].std()
    part = [(torch.from_numpy(x[rows]).float(), torch.from_numpy(y[rows]).float()) for rows in (kept, held)]
    return Table(part[0], part[1])


def divided_as_test(count: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices that are trained on, and those that are not: the same for every run."""
    try:
        return divided(count, share, "rows")
    except ValueError as error:
        raise ValueError(str(error).replace("data.validation", "data.test")) from None


def _rows(s: TableSettings) -> tuple[np.ndarray, np.ndarray]:
    """Features [N, F] and targets [N] as they are."""
    if s.name == "diabetes":
        from sklearn.datasets import load_diabetes

        x, y = load_diabetes(return_X_y=True)
        return np.asarray(x), np.asarray(y)
    if s.name == "friedman":
        from sklearn.datasets import make_friedman1

        x, y = make_friedman1(n_samples=s.rows, noise=s.noise, random_state=0)
        return np.asarray(x), np.asarray(y)
    assert s.file is not None
    assert s.target is not None
    (file, *more) = files_of("data.file", s.file, s.root)
    if more:
        raise ValueError(f"data.file={s.file}: names {1 + len(more)} files; give one")
    names = s.features
    if names is None:
        names = [name for name in names_of("data.file", file) if name != s.target]
    if not names or s.target in names:
        raise ValueError(f"data.features: must be columns other than data.target={s.target}, one at least")
    wanted = [*(("data.features", name) for name in names), ("data.target", s.target)]
    columns = [
        as_numbers(f"{setting}={name}: {file}", texts)
        for (setting, name), texts in zip(wanted, columns_of("data.file", file, wanted), strict=True)
    ]
    return np.stack(columns[:-1], axis=1), columns[-1]


def as_numbers(where: str, texts: Sequence[str]) -> np.ndarray:
    """A column as numbers [N]; ``ValueError`` names the row that is none."""
    try:
        numbers = np.array(texts, dtype=np.float64)
        bad = np.flatnonzero(~np.isfinite(numbers))
    except ValueError:
        bad = np.array([row for row, text in enumerate(texts) if not _is_number(text)])
    if len(bad):
        raise ValueError(f"{where} has no number in row {bad[0] + 1}, but {texts[bad[0]][:50]!r}")
    return numbers


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


class Rows:
    """The minibatches of R runs; see :class:`alphagrad.recipes.supervised.loop.Batches`."""

    def __init__(self, table: Table, stack: RunStack, batch_size: int) -> None:
        self.x, self.y = (t.to(stack.device) for t in table.train)
        self.orders = Orders(stack.generators("minibatch"), len(self.x), batch_size, (0, 1))

    def at(self, step: int) -> tuple[Any, Any]:
        """Features [R, B, F] and targets [R, B] of a step."""
        index = torch.from_numpy(self.orders.at(step)).to(self.x.device)
        return self.x[index], self.y[index]
