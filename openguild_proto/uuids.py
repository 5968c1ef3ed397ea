"""UUIDs from entropy that the caller supplies: of users, guilds, channels, sessions and requests."""

from __future__ import annotations

from collections.abc import Callable


def new_uuid(random_bytes: Callable[[int], bytes]) -> str:
    """Return a UUIDv4 as text (RFC 9562 5.4), from 16 bytes of `random_bytes`."""
    raw = bytearray(random_bytes(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
