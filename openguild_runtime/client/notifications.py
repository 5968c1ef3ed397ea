"""The messages of the notification stream as types (PROTOCOL 8.10)."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from openguild_proto.schemas.frames import (
    ChannelCreated,
    ChannelEvent,
    ChannelMessage,
    ChannelRead,
    NotificationFrame,
    PresenceFrame,
    TypingFrame,
)
from openguild_runtime.client.subscription import decode_message


class UnknownNotification(msgspec.Struct, frozen=True):
    """A notification of a newer server, with all its members."""

    kind: str
    members: dict[str, Any]


Notification: TypeAlias = (
    ChannelMessage | ChannelEvent | ChannelCreated | ChannelRead | TypingFrame | PresenceFrame | UnknownNotification
)

_notifications = msgspec.json.Decoder[Any](NotificationFrame)


def notification_of(payload: str) -> Notification:
    """Return a notification as its type. Raises StreamEnded if it is no JSON object."""
    try:
        notification: Notification = _notifications.decode(payload)
    except msgspec.ValidationError:
        members = decode_message(payload, dict[str, Any])
        return UnknownNotification(str(members.get("kind", "")), members)
    except (msgspec.DecodeError, RecursionError):
        decode_message(payload, dict[str, Any])
        raise
    return notification
