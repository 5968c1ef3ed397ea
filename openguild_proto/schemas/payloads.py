"""Socket messages and what replicas tell each other: built and read without I/O (PROTOCOL 8.4, 8.10, 10.4).

An event's frame payload is made once, where the event is committed; other replicas and the notification streams
splice those bytes instead of encoding again (PROTOCOL 8.4.3).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from openguild_proto.records import ChannelRecord, ControlRecord, ReadState, StoredEvent
from openguild_proto.schemas.guilds import Channel
from openguild_proto.schemas.messages import ReadPosition

_MESSAGE = b'{"kind":"channel_message",'
_CHANGE = b'{"kind":"channel_event",'
_MESSAGE_TYPE = b'"event_type":"message",'


def event_frame_payload(event: StoredEvent) -> bytes:
    """`{"sequence":..,"channel_id":..,"event":{..}}`"""
    return b'{"sequence":%d,"channel_id":"%b","event":%b}' % (
        event.sequence,
        event.channel_id.encode("ascii"),
        event.wire,
    )


class _Sequenced(msgspec.Struct):
    sequence: int


_sequenced = msgspec.json.Decoder(_Sequenced)


def payload_sequence(payload: bytes | str) -> int:
    """The sequence of a frame payload. Raises msgspec.DecodeError for anything else."""
    return _sequenced.decode(payload).sequence


def channel_message_payload(payload: bytes) -> bytes:
    """The notification for an event's frame payload: the same members behind a `kind`, which tells messages from changes."""
    return (_MESSAGE if _MESSAGE_TYPE in payload else _CHANGE) + payload[1:]


def channel_created_payload(record: ControlRecord) -> bytes:
    """The notification `channel_created`; the record carries the channel's JSON."""
    members = {"kind": "channel_created", "channel_id": record.channel_id, "guild_id": record.guild_id}
    return msgspec.json.encode({**members, "event": msgspec.Raw((record.body or "null").encode())})


def channels_deleted(record: ControlRecord) -> list[str]:
    """The channels that went with their guild; none in a record of a release that did not write them."""
    return msgspec.json.decode(record.body, type=list[str]) if record.body is not None else []


def channel_ids_body(channel_ids: Sequence[str]) -> str:
    """The body of a `guild_deleted` record."""
    return msgspec.json.encode(list(channel_ids)).decode()


def channel_body(channel: ChannelRecord) -> str:
    """The `event` member of a `channel_created` notification as JSON (PROTOCOL 8.10.3)."""
    return msgspec.json.encode(Channel.of(channel)).decode()


def channel_read_payload(state: ReadState) -> bytes:
    """The notification `channel_read`: the reader's position moved on another device (PROTOCOL 8.10.4)."""
    return msgspec.json.encode(
        {"kind": "channel_read", "channel_id": state.channel_id, "event": ReadPosition.of(state)}
    )


class ReadHint(msgspec.Struct, frozen=True, gc=False, tag="read", tag_field="type"):
    """Best effort between replicas: not in the control log."""

    user_id: str
    state: ReadState


class _Control(msgspec.Struct, frozen=True, gc=False, tag="control", tag_field="type"):
    record: ControlRecord


_messages = msgspec.json.Decoder(_Control | ReadHint)


def encode_control(record: ControlRecord) -> bytes:
    """A control record as replicas send it to each other: JSON."""
    return msgspec.json.encode(_Control(record))


def encode_read_hint(hint: ReadHint) -> bytes:
    """A moved read position as replicas send it to each other: JSON."""
    return msgspec.json.encode(hint)


CONTROL_PROBE = encode_read_hint(ReadHint(user_id="", state=ReadState("", 0, 0, 0)))
"""A message that changes nothing at any replica, of any release: nobody has this id."""


def decode_control(payload: bytes) -> ControlRecord | ReadHint:
    """Raises msgspec.DecodeError for bytes that are neither."""
    message = _messages.decode(payload)
    return message.record if isinstance(message, _Control) else message
