"""The message that a message replies to (PROTOCOL 6.4.3)."""

from __future__ import annotations

import msgspec


class _Content(msgspec.Struct):
    reply_to: str | None = None


class _Message(msgspec.Struct):
    content: _Content


_decoder = msgspec.json.Decoder(_Message)


def replied_to(wire: bytes) -> str | None:
    """Return the event id of the message that the event `wire` replies to, or None if it is no reply or malformed."""
    if b'"reply_to"' not in wire:  # fast path for most events
        return None
    try:
        return _decoder.decode(wire).content.reply_to
    except msgspec.DecodeError:
        return None
