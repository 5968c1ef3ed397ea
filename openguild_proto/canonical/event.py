"""The canonical event: the hashed and signed form of an event in a log (PROTOCOL 6.1)."""

from __future__ import annotations

from json.encoder import encode_basestring as encode_text
from typing import Any

import msgspec
from blake3 import blake3

from openguild_proto.canonical.encode import joined, write_canonical
from openguild_proto.canonical.keys import EventSigner

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_PAIRS = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_ID_SLOT = b',"event_id":"'


class CanonicalEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The 11 members in the order of the encoding. `origin_ts`: UTC milliseconds, informational; it does not define the order."""

    schema_version: int = 1
    event_id: str
    origin_server: str
    room_id: str
    event_type: str
    sender: str
    origin_ts: int
    content: Any
    prev_events: tuple[str, ...] = ()
    auth_events: tuple[str, ...] = ()
    signatures: dict[str, dict[str, str]] = {}


class BuiltEvent(msgspec.Struct, frozen=True, gc=False):
    """An event ready to store.

    `event_id`: `$` and the hash in base58. `canonical`: the hashed bytes. `wire`: the JSON for clients and `verify_event`.
    """

    event_id: str
    canonical: bytes
    wire: bytes


def canonical_bytes(event: CanonicalEvent, *, strict: bool = True) -> bytes:
    """Return the bytes to hash, with empty event_id and signatures. Raises ValueError or its subclass CanonicalError."""
    text = encode_text
    parts = [
        f'{{"schema_version":{event.schema_version:d},"event_id":"","origin_server":{text(event.origin_server)}'
        f',"room_id":{text(event.room_id)},"event_type":{text(event.event_type)},"sender":{text(event.sender)}'
        f',"origin_ts":{event.origin_ts:d},"content":'
    ]
    write_canonical(event.content, parts, strict=strict)
    if event.prev_events or event.auth_events:
        for name, events in (("prev_events", event.prev_events), ("auth_events", event.auth_events)):
            parts.append(f',"{name}":')
            write_canonical(events, parts)
    else:
        parts.append(',"prev_events":[],"auth_events":[]')
    parts.append(',"signatures":{}}')
    return joined(parts)


def event_hash(canonical: bytes) -> bytes:
    """Return the BLAKE3-256 hash of the canonical bytes."""
    return blake3(canonical).digest()


def event_id(hash_bytes: bytes) -> str:
    """Return the event id: `$` and the hash in base58."""
    return "$" + base58(hash_bytes)


def base58(raw: bytes) -> str:
    """Encode in base58 with Bitcoin's alphabet. A leading zero byte becomes a leading `1`."""
    number = int.from_bytes(raw, "big")
    pairs: list[str] = []
    while number:
        number, pair = divmod(number, 58 * 58)
        pairs.append(_PAIRS[pair])
    digits = "".join(reversed(pairs)).lstrip("1")  # the first pair may start with a zero digit
    return "1" * (len(raw) - len(raw.lstrip(b"\0"))) + digits


def base58_decode(text: str, size: int) -> bytes:
    """Decode `size` bytes. Raises ValueError for any text but their canonical one."""
    number = 0
    for character in text:
        number = number * 58 + _ALPHABET.index(character)
        if number >> (8 * size):
            raise ValueError("too long for base58 of this size")
    raw = number.to_bytes(size, "big")
    if base58(raw) != text:
        raise ValueError("not base58 of this size")
    return raw


def wire_bytes(canonical: bytes, identifier: str, signatures: dict[str, dict[str, str]]) -> bytes:
    """Return the event for clients: the canonical bytes with the id and the signatures inserted."""
    slot = canonical.index(_ID_SLOT) + len(_ID_SLOT)
    wire = canonical[:slot] + identifier.encode("ascii") + canonical[slot:]
    if not signatures:
        return wire
    return wire[: -len(b"{}}")] + msgspec.json.encode(signatures) + b"}"


def build_event(
    *,
    server_name: str,
    room_id: str,
    event_type: str,
    sender: str,
    content: dict[str, Any],
    origin_ts_ms: int,
    signer: EventSigner | None,
) -> BuiltEvent:
    """Build and sign a local event.

    - `server_name`: the origin, also the name of `signer`, because `verify_event` uses the origin's keys.
    - `room_id`: the id of the channel, guild or user whose log the event is in; `sender`: the id of its user.
    - `content`: JSON without floats, as its type requires (`openguild_proto.schemas.events`). This is not checked here.
    - `origin_ts_ms`: UTC milliseconds.
    - `signer`: None leaves the event unsigned.

    Raises CanonicalError (a ValueError) for content without a canonical form, such as a float, and ValueError for a time that
    is not an integer.
    """
    canonical = canonical_bytes(
        CanonicalEvent(
            event_id="",
            origin_server=server_name,
            room_id=room_id,
            event_type=event_type,
            sender=sender,
            origin_ts=origin_ts_ms,
            content=content,
        )
    )
    digest = event_hash(canonical)
    identifier = event_id(digest)
    return BuiltEvent(identifier, canonical, wire_bytes(canonical, identifier, signer.sign(digest) if signer else {}))
