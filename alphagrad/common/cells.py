"""Configurations in words, and what of these tells some from others: a study's cells."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def words_of(recipe: str, title: str) -> list[str]:
    """A configuration in words: its recipe, and the title that its job has."""
    return [recipe, *title.split()]


def in_common(configurations: Iterable[Iterable[str]]) -> set[str]:
    """The words that all have."""
    sets = [set(words) for words in configurations]
    return set.intersection(*sets) if sets else set()


def differing(words: Sequence[str], common: Collection[str], otherwise: str) -> str:
    """The words that others do not all have, in a line; ``otherwise`` where there are none."""
    return " ".join(word for word in words if word not in common) or otherwise


def cells(configurations: Sequence[tuple[str, str]]) -> list[str]:
    """Of each (recipe, title) what tells it from the others; its title where nothing does."""
    told = [words_of(recipe, title) for recipe, title in configurations]
    common = in_common(told)
    return [differing(words, common, title) for words, (_, title) in zip(told, configurations, strict=True)]
