"""Verifies an event that a client received: its id must be the hash of its content, and its server must have signed it.

Source: PROTOCOL 6.3 and 6.7.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from enum import Enum
from typing import Any

import msgspec

from openguild_proto.canonical.encode import CanonicalError
from openguild_proto.canonical.event import CanonicalEvent, base58_decode, canonical_bytes, event_hash, event_id
from openguild_proto.canonical.redaction import is_redacted
from openguild_proto.canonical.signing import verify
from openguild_proto.errors import LocalProtocolError

ServerKeys = Mapping[str, Mapping[str, bytes]]
"""Public keys by server name and key name, such as `{"example.org": {"ed25519:main": key}}`."""


class Verified(Enum):
    """The result of `verify_event`."""

    WHOLE = "whole"  # the event is what its server signed
    REDACTED = "redacted"  # the server signed an event with this id; its content was redacted and cannot be verified


class UnverifiedEvent(Exception):
    """The event is not authentic. The message gives the reason."""


def unsigned_by(server: str) -> str:
    """Return the error message for an event without a valid signature by a known key of the server."""
    return f"no known key of {server} has signed it"


class _SentEvent(CanonicalEvent, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An event with all members and no others, because the hash covers no others (PROTOCOL 6.1.1)."""

    schema_version: int
    prev_events: tuple[str, ...]
    auth_events: tuple[str, ...]
    signatures: dict[str, dict[str, str]]


_decoder = msgspec.json.Decoder(_SentEvent)


def verify_event(wire: bytes | str, keys: ServerKeys, signed_by: str | None = None) -> Verified:
    """Verify an event with the keys of the server `signed_by`, or of its origin if None.

    `wire`: the JSON of the event, from a stream or a page. `keys`: public keys of 32 bytes by server and key name, such as
    `{"chat.example": {"ed25519:2026": key}}`; `openguild_proto.canonical.keys.parse_public` parses one from text.
    Raises UnverifiedEvent, and LocalProtocolError for keys that are text.
    """
    try:
        event = _decoder.decode(wire)
        canonical = canonical_bytes(event, strict=False)
        _refuse_repeated_members(wire)
        if not event.event_id.startswith("$"):
            raise ValueError("its id does not begin with $")
        digest = base58_decode(event.event_id[1:], 32)
    except (msgspec.DecodeError, CanonicalError, ValueError, RecursionError) as malformed:
        raise UnverifiedEvent(f"this is not an event: {malformed}") from None
    redacted = is_redacted(event.content)
    if not redacted and event_id(event_hash(canonical)) != event.event_id:
        raise UnverifiedEvent("its id is not the hash of its content")
    server = event.origin_server if signed_by is None else signed_by
    signatures, known = event.signatures.get(server, {}), keys.get(server, {})
    for name, text in signatures.items():
        public = known.get(name)
        if public is not None and not isinstance(public, bytes):
            raise LocalProtocolError(
                "a public key is 32 bytes: openguild_proto.canonical.keys.parse_public reads its text"
            )
        if public is not None and verify(public, digest, _signature(text)):
            return Verified.REDACTED if redacted else Verified.WHOLE
    raise UnverifiedEvent(unsigned_by(server))


def _refuse_repeated_members(wire: bytes | str) -> None:
    """Raise ValueError if an object repeats a member: parsers differ in which one they use."""
    json.loads(wire, object_pairs_hook=_members_once)


def _members_once(members: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in members}) < len(members):
        raise ValueError("a member is repeated")


def _signature(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""
