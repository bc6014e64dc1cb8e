"""Labelled texts and plain corpora, by name, and their settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from pydantic import Field

from alphagrad.harness.recipe import Settings

from ..notes import note
from ..supervised.held_out import divided
from .embedded import pydocs, topics
from .files import files_of, kind_of, read_text
from .hub import load_split
from .tables import READERS, as_texts, columns_of

USES = {"pydocs": (), "topics": (), "files": ("train", "test"), "hub": ("repo", "train", "test")}
"""Source → the settings it needs."""


class DataSettings(Settings):
    """Which text; see conf/data/."""

    name: Literal["pydocs", "topics", "files", "hub"]
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

    def check(self, wanted: Sequence[str] = ()) -> None:
        """Raises ``ValueError`` where the source needs a setting that is not given, or has none that is."""
        needed = (*USES[self.name], *(wanted if USES[self.name] else ()))
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
    if s.name == "topics":
        raise ValueError("data.name=topics: has no classes; recipe text has pydocs, files, hub")
    if s.name == "pydocs":
        splits: dict[str, list[tuple[str, str]]] = pydocs()
    else:
        splits = {split: _rows(s, split) for split in ("train", "test")}
    for split, rows in splits.items():
        if not any(text.strip() for text, _ in rows):
            raise ValueError(f"data.{split}={getattr(s, split)}: has no text")
    classes = sorted({label for _, label in splits["train"]})  # with those that are held out entirely
    if len(classes) < 2:
        raise ValueError(f"data.label={s.label}: has the one class {classes[0]}; there is nothing to tell apart")
    number = {name: k for k, name in enumerate(classes)}
    _tell_blanks(classes)
    for _, label in splits["test"]:
        if label not in number:
            near = "".join(f"; it has {name!r}" for name in classes if name.strip() == label.strip())
            raise ValueError(f"data.test={s.test}: has the class {label}, which the training split has not{near}")
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
    if s.name == "pydocs":
        raise ValueError("data.name=pydocs: is for recipe text; recipe lm has topics, files, hub")
    if s.validation:
        raise ValueError(f"data.validation={s.validation}: is for recipe text; recipe lm is evaluated on data.test")
    splits = topics() if s.name == "topics" else {split: _documents(s, split) for split in ("train", "test")}
    for split, documents in splits.items():
        if not any(documents):
            raise ValueError(f"data.{split}={getattr(s, split)}: has no text")
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


def _hub(s: DataSettings, split: str, columns: list[str]) -> Any:
    assert s.repo is not None
    found = load_split(s.repo, s.config, getattr(s, split), s.download)
    for column in columns:
        if column not in found.column_names:
            raise ValueError(f"data.repo={s.repo}: has no column {column}; it has {', '.join(found.column_names)}")
    return found
