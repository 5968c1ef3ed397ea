"""The text of a posted message, and the properties that a search can filter by."""

from __future__ import annotations

from typing import Any

import msgspec

from openguild_proto.canonical.replies import replied_to
from openguild_proto.policy.search import Has


class _Content(msgspec.Struct):
    content: str = ""
    mentions: dict[str, Any] = {}


class _Message(msgspec.Struct):
    content: _Content


_decoder = msgspec.json.Decoder(_Message)


def posted_with(wire: bytes) -> frozenset[Has]:
    """Return whether the message is a reply, and whether it has mentions. Edits change neither."""
    marks = {Has.REPLY} if replied_to(wire) is not None else set()
    if b'"mentions"' in wire and _mentions(wire):  # fast path for most messages
        marks.add(Has.MENTION)
    return frozenset(marks)


def _mentions(wire: bytes) -> bool:
    try:
        return bool(_decoder.decode(wire).content.mentions)
    except msgspec.DecodeError:
        return False


def posted_text(wire: bytes) -> str:
    """Return the text, or "" if there is none or the message is malformed."""
    try:
        return _decoder.decode(wire).content.content
    except msgspec.DecodeError:
        return ""
