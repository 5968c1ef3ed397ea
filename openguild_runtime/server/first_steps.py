"""The lines that a newly started embedded server prints: what to try next."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

USUAL_PORT = 8080
PAGE = Path("docs/web/serve.py")  # in a checkout


def first_steps(port: int, data_dir: Path) -> list[str]:
    """Return `serving on <URL>`, followed by one line for each thing to try."""
    program = shlex.quote(_program())
    url = f"http://127.0.0.1:{port}"
    is_usual = port == USUAL_PORT
    steps = [("chat here", f"{program} chat{'' if is_usual else ' ' + url}", "in another terminal, one per person")]
    if PAGE.exists():
        steps.append(
            ("in a browser", f"make web{'' if is_usual else ' API=' + url}", "and open the address that it prints")
        )
    steps += [
        ("look inside", f"{program} --embedded --data-dir {shlex.quote(str(data_dir))} admin top", ""),
        ("the API", f"{url}/openapi.json", ""),
        ("stop", "Ctrl-C", f"messages are stored in {data_dir}"),
    ]
    lines = [f"  {what + ':':<14}{command}{f'  ({note})' if note else ''}" for what, command, note in steps]
    return [f"serving on {url}", *lines]


def _program() -> str:
    """Return the shortest way to call this program from the current directory."""
    path = Path(sys.argv[0])
    if path.name != "openguild-server":
        return "openguild-server"
    if not path.is_absolute():
        return str(path)
    relative = os.path.relpath(path)
    return min(str(path), relative, key=len)
