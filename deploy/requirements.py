"""Prints the requirements of extras of this project, a line each, so that they are installed without building it again.

Usage: python deploy/requirements.py EXTRA...
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

OWN = re.compile(r"openguild\[([\w,]+)\]")


def requirements(extras: list[str]) -> list[str]:
    """Return those of the extras and of the extras that these name, without the project itself."""
    declared = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
    found: dict[str, None] = {}
    for extra in extras:
        for line in declared[extra]:
            own = OWN.fullmatch(line)
            found |= dict.fromkeys(requirements(own[1].split(",")) if own else [line])
    return list(found)


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1:])))
