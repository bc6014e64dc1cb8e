"""Labelled texts and plain corpora, by name, and their settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from alphagrad.harness.splits import Splits

from ..notes import note
from ..supervised.held_out import divided
from ..supervised.own import OwnSettings, own_splits
from ..supervised.roots import root_of
from .embedded import pydocs, topics
from .files import files_of, kind_of, read_text
from .hub import load_split
from .tables import READERS, as_texts, columns_of

USES = {"pydocs": (), "topics": (), "files": ("train", "test"), "hub": ("repo", "train", "test")}
"""Source → the settings it needs."""


class DataSettings(OwnSettings):
    """Which text; see conf/data/."""

    name: str
    root: str | None = None
    """files: where relative paths begin; null for $ALPHAGRAD_DATA, else ./data."""
    download: bool = False
    """hub: whether what is not on this machine is fetched."""
    repo: str | None = Field(default=None, min_length=1)
    """hub: the data set, owner/name."""
    config: str | None = None
    """hub: which of the data set's configurations."""
    train: str | None = Field(default=None, min_length=1)
    """files: path or pattern. hub: split."""
    test: str | None = Field(default=None, min_length=1)
    """As ``train``, of what a model is evaluated on."""
    text: str | None = Field(default=None, min_length=1)
    """Tables and hub: the column with the text."""
    label: str | None = Field(default=None, min_length=1)
    """Tables and hub: the column with the class."""
    validation: float = Field(default=0.0, ge=0, lt=1)
    """Of labelled texts: the share of the training split that is evaluated on in place of the test split."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str, info: ValidationInfo) -> str:
        if info.data.get("target") is None and name not in USES:
            names = ", ".join(map(repr, USES))
            raise PydanticCustomError("source", "input should be one of {names}", {"names": names})
        return name

    def of(self, split: str) -> str:
        """A split, as messages call it."""
        return f"data.{split}={getattr(self, split)}" if self.target is None else f"data.{self.told}: its {split}"

    def check(self, wanted: Sequence[str] = ()) -> None:
        """Raises ``ValueError`` where the source needs a setting that is not given, or has none that is."""
        uses = () if self.target is not None else USES[self.name]
        needed = (*uses, *(wanted if uses else ()))
        for setting in needed:
            if getattr(self, setting) is None:
                raise ValueError(f"data.{setting}=null: data.name={self.name} needs it")
        for setting in ("repo", "config", "train", "test"):
            if getattr(self, setting) is not None and setting not in (*needed, *(("config",) if self.repo else ())):
                raise ValueError(f"data.{setting}={getattr(self, setting)}: data.name={self.name} has no such setting")


@dataclass(frozen=True)
class Labelled:
    """One split: texts and the number of each one's class."""

    texts: list[str]
    labels: list[int]


@dataclass(frozen=True)
class Dataset:
    """Texts to be told apart."""

    train: Labelled
    test: Labelled
    classes: list[str]


@lru_cache(maxsize=2)
def labelled(s: DataSettings) -> Dataset:
    """The data set of the settings; read once a process.

    Raises:
        ValueError: it cannot be had, or is not what it should be.
    """
    s.check(("text", "label"))
    if s.target is not None:
        splits: dict[str, list[tuple[str, str]]] = {name: _pairs(s, name) for name in ("train", "test")}
    elif s.name == "topics":
        raise ValueError("data.name=topics: has no classes; recipe text has pydocs, files, hub, custom_text")
    elif s.name == "pydocs":
        splits = pydocs()
    else:
        splits = {split: _rows(s, split) for split in ("train", "test")}
    for split, rows in splits.items():
        if not any(text.strip() for text, _ in rows):
            raise ValueError(f"{s.of(split)}: has no text")
    classes = sorted({label for _, label in splits["train"]})  # with those that are held out entirely
    if len(classes) < 2:
        told = f"data.label={s.label}" if s.target is None else s.of("train")
        raise ValueError(f"{told}: has the one class {classes[0]}; there is nothing to tell apart")
    number = {name: k for k, name in enumerate(classes)}
    _tell_blanks(classes)
    for _, label in splits["test"]:
        if label not in number:
            near = "".join(f"; it has {name!r}" for name in classes if name.strip() == label.strip())
            raise ValueError(f"{s.of('test')}: has the class {label}, which the training split has not{near}")
    if s.validation:
        train = splits["train"]
        kept, held = divided(len(train), s.validation, "texts")
        splits = {"train": [train[k] for k in kept], "test": [train[k] for k in held]}
    parts = [
        Labelled([text for text, _ in splits[split]], [number[label] for _, label in splits[split]])
        for split in ("train", "test")
    ]
    return Dataset(parts[0], parts[1], classes)


@lru_cache(maxsize=2)
def longest(s: DataSettings) -> int:
    """Words of the longest text."""
    both = labelled(s)
    return max(len(text.split()) for split in (both.train, both.test) for text in split.texts)


def _tell_blanks(classes: Sequence[str]) -> None:
    """Says which classes differ in surrounding blanks alone: hardly ever are two classes meant."""
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(name.strip(), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            told = " and ".join(map(repr, names))
            note(f"data.label: the classes {told} differ in blanks alone, and count as {len(names)}")


def _rows(s: DataSettings, split: str) -> list[tuple[str, str]]:
    assert s.text is not None
    assert s.label is not None
    if s.name == "hub":
        found = _hub(s, split, [s.text, s.label])
        where = f"data.repo={s.repo}: split {getattr(s, split)}: column"
        texts = as_texts(f"{where} {s.text}", found[s.text])
        named = getattr(found.features[s.label], "names", None)
        values = found[s.label]
        if named is not None:  # -1 stands for a class that is kept secret
            values = [None if y is None or y < 0 else named[y] for y in values]
        return list(zip(texts, as_texts(f"{where} {s.label}", values, nonempty=True), strict=True))
    if s.text == s.label:
        raise ValueError(f"data.label={s.label}: is the column of the text as well")
    rows: list[tuple[str, str]] = []
    for file in files_of(f"data.{split}", getattr(s, split), s.root):
        if kind_of(file) not in READERS:
            raise ValueError(f"data.{split}={file}: must be one of {', '.join(READERS)}")
        texts, labels = columns_of(f"data.{split}", file, [("data.text", s.text), ("data.label", s.label)])
        rows += zip(texts, labels, strict=True)
    return rows


@lru_cache(maxsize=2)
def corpus(s: DataSettings) -> tuple[list[str], list[str]]:
    """Training and validation documents; a row of a table and a text file are each one document.

    Raises:
        ValueError: they cannot be had, or there is no text.
    """
    s.check()
    if s.name == "pydocs" and s.target is None:
        raise ValueError("data.name=pydocs: is for recipe text; recipe lm has topics, files, hub, custom_text")
    if s.validation:
        raise ValueError(f"data.validation={s.validation}: is for recipe text; recipe lm is evaluated on data.test")
    if s.target is not None:
        splits = {split: _own_documents(s, split) for split in ("train", "test")}
    elif s.name == "topics":
        splits = topics()
    else:
        splits = {split: _documents(s, split) for split in ("train", "test")}
    for split, documents in splits.items():
        if not any(documents):
            raise ValueError(f"{s.of(split)}: has no text")
    return splits["train"], splits["test"]


def _documents(s: DataSettings, split: str) -> list[str]:
    if s.name == "hub":
        s.check(("text",))
        assert s.text is not None
        where = f"data.repo={s.repo}: split {getattr(s, split)}: column {s.text}"
        return as_texts(where, _hub(s, split, [s.text])[s.text])
    documents: list[str] = []
    for file in files_of(f"data.{split}", getattr(s, split), s.root):
        if kind_of(file) in READERS:
            if s.text is None:
                raise ValueError(f"data.text=null: {file} is a table; name the column with the text")
            documents += columns_of(f"data.{split}", file, [("data.text", s.text)])[0]
        else:
            documents.append(read_text(f"data.{split}", file))
    return documents


@lru_cache(maxsize=2)
def _own(s: DataSettings) -> Splits:
    """The user's own texts, made once a process."""
    return own_splits(s, root_of(s.root))


def _pairs(s: DataSettings, split: str) -> list[tuple[str, str]]:
    """Texts and labels of a split of the user's own."""
    given = getattr(_own(s), split)
    told = f"data.{s.told}: its {split} must be texts and labels, two lists of one length"
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise ValueError(told)
    texts, labels = (list(part) for part in given)
    if len(texts) != len(labels) or not texts:
        raise ValueError(f"{told}; got {len(texts)} texts and {len(labels)} labels")
    for text, label in zip(texts, labels, strict=True):
        if not isinstance(text, str) or not isinstance(label, (str, int, np.integer)):
            raise ValueError(f"{told}; got a {type(text).__name__} labelled by a {type(label).__name__}")
    return [(text, str(label)) for text, label in zip(texts, labels, strict=True)]


def _own_documents(s: DataSettings, split: str) -> list[str]:
    given = getattr(_own(s), split)
    if not isinstance(given, (tuple, list)) or not all(isinstance(document, str) for document in given):
        raise ValueError(f"data.{s.told}: its {split} must be a list of texts; recipe lm takes no labels")
    return list(given)


def _hub(s: DataSettings, split: str, columns: list[str]) -> Any:
    assert s.repo is not None
    found = load_split(s.repo, s.config, getattr(s, split), s.download)
    for column in columns:
        if column not in found.column_names:
            raise ValueError(f"data.repo={s.repo}: has no column {column}; it has {', '.join(found.column_names)}")
    return found
