"""The shell commands of the documentation, as it shows them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


@dataclass(frozen=True)
class Block:
    """A fenced block of shell commands and the comment before it: `<!-- run -->` or `<!-- needs: ... -->`."""

    page: str
    marker: str
    commands: tuple[str, ...]


def blocks_of(page: Path) -> list[Block]:
    """The shell blocks of a page; comments are no commands."""
    found = re.findall(r"(?:<!-- ([^\n]*?) -->\n)?```(?:sh|bash|shell|console)\n(.*?)```", page.read_text(), re.DOTALL)
    return [
        Block(page.name, marker, tuple(line.split(" #")[0].strip() for line in text.splitlines() if line.strip()))
        for marker, text in found
    ]


def blocks() -> list[Block]:
    """The shell blocks of every page."""
    return [block for page in PAGES for block in blocks_of(page)]
