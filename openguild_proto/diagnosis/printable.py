"""Makes peers' texts safe for a terminal, which takes some characters for commands and displays others in reverse order."""

from __future__ import annotations

import json


def printable(text: str, *, kept: str = "") -> str:
    r"""Return the text with unprintable characters escaped as in JSON, except those in `kept`.

    With `kept="\n"`, which keeps its own line breaks, a JSON document has the same meaning.
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign in kept else json.dumps(sign)[1:-1] for sign in text)
