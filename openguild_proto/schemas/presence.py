"""Bodies of presence (PROTOCOL 7.13)."""

from __future__ import annotations

from openguild_proto.hints import PresenceStatus
from openguild_proto.schemas.accounts import Body
from openguild_proto.schemas.fields import Uuid


class ChosenPresence(Body, frozen=True):
    """The caller's chosen status. OFFLINE hides them while they are connected."""

    status: PresenceStatus


class MemberPresence(Body, frozen=True):
    """The presence of a user: not offline, except in a notification."""

    user_id: Uuid
    status: PresenceStatus


class GuildPresence(Body, frozen=True):
    """The members who are not offline. `shown`: whether the guild is small enough to show presence."""

    shown: bool
    members: tuple[MemberPresence, ...]
