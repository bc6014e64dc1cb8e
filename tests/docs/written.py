"""What the documentation shows: its pages, their blocks of code, and the commands in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = [
    page
    for page in sorted([CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *(CHECKOUT / "docs").rglob("*.md")])
    if not {"generated", "_build"} & set(page.relative_to(CHECKOUT).parts)
]
SHELLS = ("sh", "bash", "console", "shell")
NAMED = re.compile(r"#\s*([\w./-]+\.(?:py|yaml|toml))\b.*\n")
"""A first line that says which file a block is."""
PREPARED = re.compile(r"<!--\s*python\n(.*?)-->", re.DOTALL)
"""What a reader has before the next block: run by the tests, and not shown."""


@dataclass(frozen=True)
class Block:
    """A block of code: its language, text, and the line it begins at."""

    language: str
    text: str
    line: int


def title(page: Path) -> str:
    """A page's name in the names of tests."""
    return str(page.relative_to(CHECKOUT))


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order; what is prepared before one has the language ``python`` too."""
    found = []
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        line = (token.map or [0])[0] + 1
        if token.type in ("fence", "code_block"):
            indented = token.type == "code_block"  # which is for commands
            language = "sh" if indented else (token.info.split() or ["text"])[0]
            found.append(Block(language, token.content, line))
        elif token.type == "html_block" and (prepared := PREPARED.search(token.content)):
            found.append(Block("python", prepared[1], line))
    return found


def file_name(block: Block) -> str | None:
    """The file that a block is, relative to the reader's folder."""
    named = NAMED.match(block.text)
    if named is None:
        return None
    inside = "conf/optimizer/" if named[1].endswith(".yaml") and "/" not in named[1] else ""
    return inside + named[1]


def commands(page: Path) -> list[list[str]]:
    """The words of every `alphagrad` command in a page's blocks, and of each in its text that is whole."""
    lines = shell_lines(page)
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    lines += [code.replace("\n", " ") for code in re.findall(r"`(alphagrad [a-z]+ [^`]+)`", text)]
    found = [words_of(line) for line in lines]
    return [words for words in found if words and not any("..." in word or "…" in word for word in words)]


def shell_lines(page: Path) -> list[str]:
    """The command lines in a page's blocks, without comments; empty ones left out."""
    lines = [line for block in blocks(page) if block.language in SHELLS for line in joined(block.text)]
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def joined(text: str) -> list[str]:
    """The lines of a block, those that end with a backslash with the next."""
    return text.replace("\\\n", " ").splitlines()


def words_of(line: str) -> list[str]:
    """The words after `alphagrad` of a command line; none where it is another command."""
    line = re.sub(r"^\$ ", "", line.strip())
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return []
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if words[:1] == ["torchrun"] and "alphagrad_cli" in words:
        return words[words.index("alphagrad_cli") + 1 :]
    return words[1:] if words and words[0].rpartition("/")[2] == "alphagrad" else []
