"""The page of one study or several, put together from the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alphagrad.common.words import squeezed
from alphagrad.lab.evidence.page.blocks import Page, Section
from alphagrad.lab.evidence.page.origin import endings, origin
from alphagrad.lab.evidence.page.pairs import pairs
from alphagrad.lab.evidence.page.scores import along, final, learning, profiles
from alphagrad.lab.evidence.page.sensitivity import sensitivity
from alphagrad.lab.evidence.page.signals import cost, signals
from alphagrad.lab.evidence.page.subject import Subject, subjects
from alphagrad.lab.evidence.results import Results

TITLE = 300
"""Characters of a page's title."""


def page_of(results: Results, parents: Sequence[Any], target: float | None = None) -> Page:
    """The report of these studies or runs; of none, of all runs there are.

    Args:
        results: the store.
        parents: their runs in the store.
        target: value of the objective whose first crossing is told; None for the median of the configurations.
    """
    studies = [(parent.info.run_id, results.comparison(parent)) for parent in parents]
    if not studies:
        studies = [("", results.comparison(None))]
    title = squeezed("; ".join(study.title for _, study in studies), TITLE)
    parts = subjects(results, studies)
    sections = [origin(parents, parts)]
    for part in parts:
        found = [section for section in _sections(part, target) if section is not None]
        if len(parts) > 1:
            found = [Section(f"{part.recipe}: {section.title}", section.blocks) for section in found]
        sections += found
    return Page(title, sections)


def _sections(subject: Subject, target: float | None) -> list[Section | None]:
    return [
        final(subject),
        learning(subject),
        pairs(subject),
        profiles(subject),
        along(subject, target),
        sensitivity(subject),
        signals(subject),
        endings(subject),
        cost(subject),
    ]
