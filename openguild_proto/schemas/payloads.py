"""Builds and parses the payloads of socket frames and of messages between replicas (PROTOCOL 8.4, 8.10, 10.4).

An event's payload is encoded once, by the replica that commits it. Other replicas and notification streams reuse those bytes
(PROTOCOL 8.4.3).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from openguild_proto.hints import PresenceStatus
from openguild_proto.records import ChannelRecord, ControlKind, ControlRecord, ReadState, StoredEvent
from openguild_proto.schemas.guilds import Channel
from openguild_proto.schemas.messages import ReadPosition

_MESSAGE = b'{"kind":"channel_message",'
_CHANGE = b'{"kind":"channel_event",'
_MESSAGE_TYPE = b'"event_type":"message",'


def event_frame_payload(event: StoredEvent) -> bytes:
    """Return `{"sequence":..,"channel_id":..,"event":{..}}`."""
    return b'{"sequence":%d,"channel_id":"%b","event":%b}' % (
        event.sequence,
        event.log_id.encode("ascii"),
        event.wire,
    )


class _Sequenced(msgspec.Struct):
    sequence: int


_sequenced = msgspec.json.Decoder(_Sequenced)


def payload_sequence(payload: bytes | str) -> int:
    """Return the sequence of a frame payload. Raises msgspec.DecodeError."""
    return _sequenced.decode(payload).sequence


def channel_message_payload(payload: bytes) -> bytes:
    """Return the notification for an event's frame payload: `kind`, a message or another event, then the same members."""
    return (_MESSAGE if _MESSAGE_TYPE in payload else _CHANGE) + payload[1:]


def channel_created_payload(record: ControlRecord) -> bytes:
    """Return the notification `channel_created`. The record contains the channel's JSON."""
    members = {"kind": "channel_created", "channel_id": record.channel_id, "guild_id": record.guild_id}
    return msgspec.json.encode({**members, "event": msgspec.Raw((record.body or "null").encode())})


def channels_deleted(record: ControlRecord) -> list[str]:
    """Return the channels that were deleted with their guild; empty for a record of an old release."""
    return msgspec.json.decode(record.body, type=list[str]) if record.body is not None else []


def channel_ids_body(channel_ids: Sequence[str]) -> str:
    """Return the body of a `guild_deleted` record."""
    return msgspec.json.encode(list(channel_ids)).decode()


def channel_body(channel: ChannelRecord) -> str:
    """Return the `event` member of a `channel_created` notification as JSON (PROTOCOL 8.10.3)."""
    return msgspec.json.encode(Channel.of(channel)).decode()


def channel_read_payload(state: ReadState) -> bytes:
    """Return the notification `channel_read`: a read position was moved on another device (PROTOCOL 8.10.4)."""
    return msgspec.json.encode(
        {"kind": "channel_read", "channel_id": state.channel_id, "event": ReadPosition.of(state)}
    )


def typing_payload(channel_id: str, user_id: str, preview: str | None) -> bytes:
    """Return the notification `typing` (PROTOCOL 8.10.6)."""
    return b'{"kind":"typing","channel_id":"%b","event":%b}' % (channel_id.encode(), typing_data(user_id, preview))


def typing_data(user_id: str, preview: str | None) -> bytes:
    """Return the JSON of a typing user, with the preview if there is one."""
    return msgspec.json.encode({"user_id": user_id} if preview is None else {"user_id": user_id, "preview": preview})


def presence_payload(data: bytes) -> bytes:
    """Return the notification `presence` (PROTOCOL 8.10.7)."""
    return b'{"kind":"presence","event":%b}' % data


def presence_data(user_id: str, status: PresenceStatus) -> bytes:
    """Return the JSON of a user's presence."""
    return msgspec.json.encode({"user_id": user_id, "status": status})


class _Control(msgspec.Struct, frozen=True, gc=False, tag="control", tag_field="type"):
    record: ControlRecord


_controls = msgspec.json.Decoder(_Control)


def encode_control(record: ControlRecord) -> bytes:
    """Return a control record as JSON for other replicas."""
    return msgspec.json.encode(_Control(record))


def decode_control(payload: bytes) -> ControlRecord:
    """Parse a control record from another replica. Raises msgspec.DecodeError."""
    return _controls.decode(payload).record


CONTROL_PROBE = encode_control(ControlRecord(sequence=0, kind=ControlKind.MEMBER_CHANGED))
"""A record without effect, because its sequence 0 is before the first one."""
