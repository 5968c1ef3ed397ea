"""The argument of an operation: the request and what dispatch has decoded and decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar, cast

from openguild_proto.effects.base import Operation
from openguild_proto.effects.channels import FindChannelAccess
from openguild_proto.effects.guilds import FindGuildAccess
from openguild_proto.http.message import Request
from openguild_proto.operations.context import Context
from openguild_proto.operations.route import Rights
from openguild_proto.policy.permissions import require_channel, require_guild
from openguild_proto.records import Change
from openguild_proto.sessions.tokens import Claims

Body = TypeVar("Body")
Access = TypeVar("Access")

NO_QUERY: Mapping[str, Any] = {}


class Call(Generic[Body, Access]):
    """`Body`: the route's Struct. `Access`: GuildAccess or ChannelAccess by the route's rights; None without either.

    An attribute that the route does not provide (`claims` without authentication) is not set.
    """

    ctx: Context
    request: Request
    claims: Claims
    access: Access
    role: str  # the caller's effective role in that guild or channel
    query: Mapping[str, Any] = NO_QUERY  # decoded; without absent parameters
    body: Body
    subprotocol: str | None  # to echo, if the token came in one
    decided = False  # whether the rights were checked

    def __init__(self, ctx: Context, request: Request, rights: Rights, params: Mapping[str, str]) -> None:
        self.ctx = ctx
        self.request = request
        self.rights = rights
        self.params = params

    def permit(self, change: Change | None = None) -> Operation[None]:
        """Check the route's rights. Raises Refusal 404 or 403. Dispatch calls it, unless the route is `late`.

        `change`: what is to be done to a message of the channel (`FindChannelAccess`).
        """
        scope, permission, _, _ = self.rights
        if permission is not None and scope == "channel":
            question = FindChannelAccess(
                channel_id=self.params["channel_id"], user_id=self.claims.user_id, change=change
            )
            channel = yield from question
            self.role = require_channel(channel, permission)
            self.access = cast("Access", channel)
        elif permission is not None:
            guild = yield from FindGuildAccess(guild_id=self.params["guild_id"], user_id=self.claims.user_id)
            self.role = require_guild(guild, permission)
            self.access = cast("Access", guild)
        self.decided = True
