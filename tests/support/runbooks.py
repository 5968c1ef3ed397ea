"""docs/runbooks.md as data: sections with their alerts and commands, so that tests run the documented commands."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).resolve().parents[2] / "docs/runbooks.md"
PARTS = ("You see", "Run", "It means", "Fix", "Resolved")


class Runbook(NamedTuple):
    """A section of the page."""

    title: str
    parts: dict[str, str]  # name of the part -> text

    @property
    def anchor(self) -> str:
        """The fragment of links to this section."""
        return anchor_of(self.title)

    @property
    def alerts(self) -> list[str]:
        """The alerts that link to this section."""
        return re.findall(r"`(OpenGuild\w+)`", self.parts["You see"])

    @property
    def ask(self) -> str:
        """The one command of the section."""
        (command,) = commands_of(self.parts["Run"])
        return command

    @property
    def mends(self) -> list[str]:
        """The commands of the fix, in the order of the page."""
        return commands_of(self.parts.get("Fix", ""))

    @property
    def inline(self) -> list[str]:
        """The inline code in tables and sentences."""
        return inline_code("\n".join(self.parts.values()))

    @property
    def rows(self) -> list[list[str]]:
        """The cells of the table that explains the output."""
        lines = [line for line in self.parts["It means"].splitlines() if line.startswith("|")][2:]
        return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def anchor_of(title: str) -> str:
    """Return the fragment that GitHub and the site give a heading."""
    return re.sub(r"[^a-z0-9_ -]", "", title.lower()).replace(" ", "-")


def commands_of(text: str) -> list[str]:
    """Return the commands in the bash blocks, without their comments."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [re.sub(r"\s+# .*$", "", block, flags=re.MULTILINE).strip() for block in blocks]


def inline_code(text: str) -> list[str]:
    """Return the text between backticks, without code blocks."""
    without_blocks = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [found.replace("\\|", "|") for found in re.findall(r"`([^`]+)`", without_blocks)]


@cache
def runbooks() -> dict[str, Runbook]:
    """Return anchor -> section."""
    found = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        title, _, body = section.partition("\n")
        pieces = re.split(rf"^\*\*({'|'.join(PARTS)})\*\*", body, flags=re.MULTILINE)
        parts: dict[str, str] = {}
        for name, text in zip(pieces[1::2], pieces[2::2], strict=True):  # a fix for each cause
            parts[name] = parts.get(name, "") + text
        runbook = Runbook(title, parts)
        found[runbook.anchor] = runbook
    return found
