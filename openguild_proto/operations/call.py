"""The argument of an operation: the request, and the results of dispatch's decoding and checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar, cast

from openguild_proto.effects.base import Operation
from openguild_proto.effects.channels import FindChannelAccess, PageBounds
from openguild_proto.effects.guilds import FindGuildAccess
from openguild_proto.errors import LocalProtocolError
from openguild_proto.http.message import Request
from openguild_proto.operations.context import Context
from openguild_proto.operations.route import Route
from openguild_proto.operations.servers import PeerCaller
from openguild_proto.policy.permissions import require_channel, require_guild
from openguild_proto.records import ChannelAccess, GuildAccess
from openguild_proto.sessions.tokens import Claims

Body = TypeVar("Body")
Access = TypeVar("Access")

NO_QUERY: Mapping[str, Any] = {}


class Call(Generic[Body, Access]):
    """The argument of an operation.

    `Body`: the route's Struct. `Access`: GuildAccess or ChannelAccess by the route's rights, None without either.
    An attribute that the route does not provide (`claims` without authentication) is not set.
    """

    ctx: Context
    request: Request
    route: Route
    claims: Claims
    peer: PeerCaller | None = None  # the server that asks, where a server does
    access: Access
    role: str  # the caller's effective role in that guild or channel
    query: Mapping[str, Any] = NO_QUERY  # decoded; without absent parameters
    body: Body
    page: PageBounds | None = None  # of the channel's log, to be read with the rights
    subprotocol: str | None  # to echo, if the token came in one
    decided = False  # whether the rights were checked
    home: PeerCaller | None = None  # the server of the caller, where they are a user of another one

    def __init__(self, ctx: Context, request: Request, route: Route, params: Mapping[str, str]) -> None:
        self.ctx = ctx
        self.request = request
        self.route = route
        self.rights = route.rights
        self.params = params

    @property
    def server(self) -> PeerCaller:
        """The calling server, on routes for servers."""
        if self.peer is None:
            raise LocalProtocolError("this route is not for servers")
        return self.peer

    @property
    def is_remote(self) -> bool:
        """Whether the caller is a user of another server."""
        return self.home is not None

    @property
    def owner(self) -> str | None:
        """The server that owns the guild or channel in the path, or None for this one."""
        access: Any = getattr(self, "access", None)
        match access:
            case ChannelAccess():
                return access.channel.origin
            case GuildAccess():
                return access.guild.origin
        return None

    @property
    def guild_id(self) -> str | None:
        """The guild in the path, or of the channel in it, or None."""
        access: Any = getattr(self, "access", None)
        match access:
            case ChannelAccess():
                return access.channel.guild_id
            case GuildAccess():
                return access.guild.guild_id
        return None

    def permit(self) -> Operation[None]:
        """Check the route's rights. Raises Refusal 404 or 403. Dispatch calls it unless the route is `late`."""
        scope, permission, _, _ = self.rights
        if permission is not None and scope == "channel":
            channel = yield from FindChannelAccess(
                channel_id=self.params["channel_id"], user_id=self.claims.user_id, page=self.page
            )
            self.role = require_channel(channel, permission)
            self.access = cast("Access", channel)
        elif permission is not None:
            guild = yield from FindGuildAccess(guild_id=self.params["guild_id"], user_id=self.claims.user_id)
            self.role = require_guild(guild, permission)
            self.access = cast("Access", guild)
        self.decided = True
