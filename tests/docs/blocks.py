"""The fenced blocks of code in README.md and docs/."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One block. `document` is relative to the repository."""

    document: str
    line: int
    language: str
    code: str

    @property
    def name(self) -> str:
        """Where it is."""
        return f"{self.document}:{self.line}"


def blocks_of(path: Path) -> list[Block]:
    """The blocks of one document."""
    text = path.read_text()
    document = path.relative_to(ROOT).as_posix()
    return [
        Block(document, text.count("\n", 0, found.start()) + 1, found[2], textwrap.dedent(found[3]))
        for found in BLOCK.finditer(text)
    ]


BLOCKS = [block for path in DOCUMENTS for block in blocks_of(path)]


def of_language(*languages: str) -> list[Block]:
    """All blocks in one of the languages."""
    return [block for block in BLOCKS if block.language in languages]
