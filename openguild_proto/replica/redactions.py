"""Removes redacted texts (PROTOCOL 6.7) and the channels that a user has lost (8.8.6) from queued frames."""

from __future__ import annotations

from collections.abc import Set

import msgspec

from openguild_proto.canonical.redaction import redacted_wire
from openguild_proto.ws.frames import frame_payload, pong_frame, text_frame

_MARK = b'"event_type":"message.redacted"'


class Redaction(msgspec.Struct, frozen=True, gc=False):
    """The event `event_id` redacts the message `target`."""

    event_id: str
    target: str


class _Content(msgspec.Struct):
    target: str | None = None


class _Event(msgspec.Struct):
    event_id: str
    event_type: str
    content: _Content


class _Frame(msgspec.Struct):
    event: msgspec.Raw


class _OfChannel(msgspec.Struct):
    channel_id: str | None = None


_NOTHING = pong_frame()  # an unsolicited pong, which clients ignore (RFC 6455 5.5.3); a frame is never empty
_frames = msgspec.json.Decoder(_Frame)
_of_channels = msgspec.json.Decoder(_OfChannel)
_events = msgspec.json.Decoder(_Event)


def redaction_in(payload: bytes) -> Redaction | None:
    """Return the redaction in an event's frame payload, or None if it is another event."""
    if _MARK not in payload:  # fast path; a text that quotes the mark has its quotes escaped
        return None
    try:
        event = _events.decode(_frames.decode(payload).event)
    except msgspec.DecodeError:
        return None
    if event.event_type != "message.redacted" or event.content.target is None:
        return None
    return Redaction(event.event_id, event.content.target)


def redacted_frame(frame: bytes, redaction: Redaction) -> bytes | None:
    """Return the frame without its text if it is the redacted message or an edit of it, else None."""
    payload = redacted_payload(frame_payload(frame), redaction)
    return None if payload is None else text_frame(payload)


def blanked_frame(frame: bytes, channel_ids: Set[str]) -> bytes | None:
    """Return a frame without content if this one is about one of these channels, else None."""
    try:
        channel_id = _of_channels.decode(frame_payload(frame)).channel_id
    except msgspec.DecodeError:  # not about a channel: several frames in one, or no JSON
        return None
    return _NOTHING if channel_id in channel_ids else None


def redacted_payload(payload: bytes, redaction: Redaction) -> bytes | None:
    """Return a frame's payload without its text, or None, as `redacted_frame` does."""
    if redaction.target.encode() not in payload:
        return None
    try:
        wire = event_in(payload)
    except msgspec.DecodeError:
        return None
    redacted = redacted_event(wire, redaction)
    return payload.replace(wire, redacted, 1) if redacted is not None else None


def redacted_event(wire: bytes, redaction: Redaction) -> bytes | None:
    """Return an event without its text, or None, as `redacted_frame` does."""
    return redacted_wire(wire, redaction.event_id) if redacts(wire, redaction) else None


def redacts(wire: bytes, redaction: Redaction) -> bool:
    """Return whether the event is the redacted message or an edit of it."""
    if redaction.target.encode() not in wire:
        return False
    try:
        event = _events.decode(wire)
    except msgspec.DecodeError:
        return False
    is_edit = event.event_type == "message.edited" and event.content.target == redaction.target
    return is_edit or event.event_id == redaction.target


def event_in(payload: bytes) -> bytes:
    """Return the event in a frame's payload. Raises msgspec.DecodeError."""
    return bytes(_frames.decode(payload).event)
