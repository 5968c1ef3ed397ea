"""The types of messages on the notification stream (PROTOCOL 8.10)."""

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
    """A notification of a kind that this client does not know, from a newer server, with all its members."""

    kind: str
    members: dict[str, Any]


Notification: TypeAlias = (
    ChannelMessage | ChannelEvent | ChannelCreated | ChannelRead | TypingFrame | PresenceFrame | UnknownNotification
)

_notifications = msgspec.json.Decoder[Any](NotificationFrame)


def notification_of(payload: str) -> Notification:
    """Decode a notification. Raises StreamEnded if it is not a JSON object."""
    try:
        notification: Notification = _notifications.decode(payload)
    except msgspec.ValidationError:
        members = decode_message(payload, dict[str, Any])
        return UnknownNotification(str(members.get("kind", "")), members)
    except (msgspec.DecodeError, RecursionError):
        decode_message(payload, dict[str, Any])
        raise
    return notification
