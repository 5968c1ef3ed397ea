"""Bodies of presence (PROTOCOL 7.13)."""

from __future__ import annotations

from openguild_proto.hints import PresenceStatus
from openguild_proto.schemas.accounts import Body
from openguild_proto.schemas.fields import Uuid


class ChosenPresence(Body, frozen=True):
    """The status that the caller shows: online, idle, or offline although connected."""

    status: PresenceStatus


class MemberPresence(Body, frozen=True):
    """A user who is online or idle; in a notification, also a user who is offline."""

    user_id: Uuid
    status: PresenceStatus


class GuildPresence(Body, frozen=True):
    """Members who are not offline. `shown`: whether the guild is small enough for presence."""

    shown: bool
    members: tuple[MemberPresence, ...]
