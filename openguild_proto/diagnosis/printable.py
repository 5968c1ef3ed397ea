"""Texts of peers as a terminal may get them: it takes some characters for commands, and others turn lines around."""

from __future__ import annotations

import json


def printable(text: str, *, kept: str = "") -> str:
    """Return the text with each character that does not print as JSON escapes it, but for those in `kept`.

    So a document of JSON with `kept="\\n"`, whose own line breaks are kept, has the same meaning.
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign in kept else json.dumps(sign)[1:-1] for sign in text)
