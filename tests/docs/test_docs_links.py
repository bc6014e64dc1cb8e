"""Links between the pages, as whoever reads them in a checkout follows them; the build of the site checks its own."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from written import CHECKOUT, PAGES, title

ALL = [*PAGES, CHECKOUT / "CHANGELOG.md"]
TOCTREE = re.compile(r"```\{toctree\}\n(.*?)```", re.DOTALL)


def links(page: Path) -> list[str]:
    """Where the links and pictures of a page lead."""
    parsed = MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8"))
    spans = [span for token in parsed for span in token.children or ()]
    # tables are no part of CommonMark, but their cells come as text with links in it
    return [str(span.attrs.get("href") or span.attrs.get("src")) for span in spans if {"href", "src"} & set(span.attrs)]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ALL, ids=title)
def test_links_lead_somewhere(page):
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            assert link.startswith("https://"), link
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(CHECKOUT), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_contents():
    listed = set()
    for page in (CHECKOUT / "docs").rglob("*.md"):
        for entries in TOCTREE.findall(page.read_text(encoding="utf-8")):
            names = [line for line in entries.splitlines() if line and not line.startswith(":")]
            listed |= {(page.parent / f"{name}.md").resolve() for name in names}
    pages = {page for page in PAGES if "docs" in page.parts[len(CHECKOUT.parts) :]}
    assert pages - listed == {CHECKOUT / "docs/index.md"}


def test_a_broken_link_would_be_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n[there](page.md#a-page), [not there](other.md)\n\n| a |\n|---|\n| [nor](third.md) |\n")
    assert links(page) == ["page.md#a-page", "other.md", "third.md"]
    assert anchors(page) == {"a-page"}
    with pytest.raises(AssertionError):
        test_links_lead_somewhere(page)
