"""The text of a message, from the event that posted it."""

from __future__ import annotations

import msgspec


class _Content(msgspec.Struct):
    content: str = ""


class _Message(msgspec.Struct):
    content: _Content


_decoder = msgspec.json.Decoder(_Message)


def posted_text(wire: bytes) -> str:
    """Return the text; empty where there is none, or none can be read."""
    try:
        return _decoder.decode(wire).content.content
    except msgspec.DecodeError:
        return ""
