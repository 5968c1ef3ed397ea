"""One request on its way through its operation: what dispatch has found out about it before the operation runs."""

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
from openguild_proto.sessions.tokens import Claims

Body = TypeVar("Body")
Access = TypeVar("Access")

NO_QUERY: Mapping[str, Any] = {}


class Call(Generic[Body, Access]):
    """`Body`: the route's Struct. `Access`: GuildAccess or ChannelAccess as its rights say; None where it has no such thing.

    A member that the route does not provide for (`claims` without authentication) is not there.
    """

    ctx: Context
    request: Request
    claims: Claims
    access: Access
    role: str  # the caller's effective one in the guild or channel that decides
    query: Mapping[str, Any] = NO_QUERY  # decoded; a parameter that was not sent is not in it
    body: Body
    subprotocol: str | None  # to echo, where the token came by one
    decided = False  # by the route's rights

    def __init__(self, ctx: Context, request: Request, rights: Rights, params: Mapping[str, str]) -> None:
        self.ctx = ctx
        self.request = request
        self.rights = rights
        self.params = params

    def permit(self) -> Operation[None]:
        """Decide by the route's rights. Raises Refusal 404 or 403. Dispatch has done it unless the route says `late`."""
        scope, permission, _, _ = self.rights
        if permission is not None and scope == "channel":
            question = FindChannelAccess(channel_id=self.params["channel_id"], user_id=self.claims.user_id)
            channel = yield from question
            self.role = require_channel(channel, permission)
            self.access = cast("Access", channel)
        elif permission is not None:
            guild = yield from FindGuildAccess(guild_id=self.params["guild_id"], user_id=self.claims.user_id)
            self.role = require_guild(guild, permission)
            self.access = cast("Access", guild)
        self.decided = True
