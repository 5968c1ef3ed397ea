"""Redacted events: the content is removed; id, signatures and other members stay (PROTOCOL 6.7)."""

from __future__ import annotations

import msgspec

from openguild_proto.canonical.encode import canonical_json


class _Wire(msgspec.Struct):
    content: msgspec.Raw


_decoder = msgspec.json.Decoder(_Wire)
_KEPT = ("target", "reply_to")  # the target of an edit, and the message that a reply answers


def redacted_wire(wire: bytes, redacted_by: str) -> bytes:
    """Return the event without its content, which names the redaction instead. `wire` is canonical except for id and signatures.

    Redacting it again changes nothing. Raises ValueError for bytes that are not such an event.
    """
    content = bytes(_decoder.decode(wire).content)
    members = msgspec.json.decode(content)
    if is_redacted(members):
        return wire
    kept = {name: members[name] for name in _KEPT if name in members}
    left = canonical_json({**kept, "content": "", "redacted_by": redacted_by})
    former = _member(content)
    if former not in wire:
        raise ValueError("an event without a canonical form cannot be redacted")
    return wire.replace(former, _member(left), 1)


def has_canonical_content(wire: bytes, content: object) -> bool:
    """Return whether `content`, the event's, is in canonical form in `wire`, so that it can be redacted.

    Then its numbers are also encoded the same everywhere. Raises CanonicalError.
    """
    return _member(canonical_json(content, strict=False)) in wire


def _member(content: bytes) -> bytes:
    return b',"content":' + content + b',"prev_events":'


def is_redacted(content: object) -> bool:
    """Return whether an event's content is exactly that of a redacted event."""
    return (
        isinstance(content, dict)
        and content.get("content") == ""
        and str(content.get("redacted_by", "")).startswith("$")
        and content.keys() <= {"content", "redacted_by", *_KEPT}
    )
