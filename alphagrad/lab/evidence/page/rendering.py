"""A page as HTML or Markdown: everything in one file, and everything from outside as mere text."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alphagrad.common.errors import ConfigError
from alphagrad.common.files import atomic, check_target
from alphagrad.common.words import plain
from alphagrad.lab.evidence.page.blocks import Block, Code, Page, Picture, Table, Text

TEMPLATE = "page.html.jinja"
MARKED = re.compile(r"([\\`*_{}\[\]<>#|~!&$])")
"""What Markdown takes for more than text."""


def address(content: bytes, kind: str) -> str:
    """Content as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def html(page: Page) -> str:
    """The page in HTML: no script, nothing loaded from elsewhere."""
    from jinja2 import Environment, FileSystemLoader

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_shown)
    names: dict[type, str] = {Text: "text", Code: "code", Table: "table", Picture: "picture"}
    environment.filters["kind"] = lambda block: names[type(block)]
    environment.filters["breakable"] = _breakable
    environment.filters["picture"] = lambda picture: address(picture.svg, "image/svg+xml")
    environment.filters["data"] = lambda picture: address(picture.csv().encode(), "text/csv;charset=utf-8")
    return environment.get_template(TEMPLATE).render(page=page)


def _shown(value: Any) -> Any:
    """Control characters are written out; newlines, which stand in commands alone, stay."""
    return plain(value, lines=True) if type(value) is str else value


def _breakable(text: str) -> Any:
    """The text, escaped, which a narrow page may break after commas, where it has no blanks."""
    from markupsafe import Markup, escape

    return escape(_shown(text)).replace(",", Markup(",<wbr>"))


def markdown(page: Page) -> str:
    """The page in Markdown; its pictures and their data are addresses at the end."""
    lines = [f"# {marked(page.title)}", ""]
    held: list[str] = []
    for section in page.sections:
        lines += [f"## {marked(section.title)}", ""]
        for block in section.blocks:
            lines += [_written(block, held), ""]
    return "\n".join([*lines, *held]) + "\n"


def marked(text: str) -> str:
    """The text so that Markdown shows it as it is."""
    return MARKED.sub(r"\\\1", plain(text))


def _written(block: Block, held: list[str]) -> str:
    if isinstance(block, Text):
        return f"> **{marked(block.text)}**" if block.warns else marked(block.text)
    if isinstance(block, Code):
        return _fenced(block.text)
    if isinstance(block, Picture):
        place = len(held) // 2 + 1
        held += [f"[figure {place}]: {address(block.svg, 'image/svg+xml')}"]
        held += [f"[data {place}]: {address(block.csv().encode(), 'text/csv;charset=utf-8')}"]
        title = marked(block.title)
        return f"![{title}][figure {place}]\n\n{title} ([its data][data {place}]):\n\n{_fenced(block.command)}"
    rows = [[marked(cell) for cell in row] for row in block.rows]
    for row, column in block.best:
        rows[row][column] = f"**{rows[row][column]} ★**"
    rule = [*["---"] * block.words, *["---:"] * (len(block.headings) - block.words)]
    listed = [[marked(heading) for heading in block.headings], rule, *rows]
    told = f"{marked(block.folded)}:\n\n" if block.folded else ""
    return told + "\n".join(f"| {' | '.join(row)} |" for row in listed)


def _fenced(text: str) -> str:
    text = plain(text, lines=True)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{text}\n{fence}"


def write(page: Page, file: Path, option: str, written: Callable[[Page], str]) -> None:
    """Writes a page, whole or not at all.

    Raises:
        ConfigError: the file cannot be written.
    """
    check_target(option, file)
    text = written(page)
    try:
        with atomic(file) as unfinished:
            unfinished.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"{option}={file}: cannot be written ({error.strerror or error})") from error
