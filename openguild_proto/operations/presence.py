"""Presence: which users are online (PROTOCOL 7.13)."""

from __future__ import annotations

from openguild_proto.effects.base import Operation
from openguild_proto.effects.guilds import ListMembers
from openguild_proto.effects.process import Announce, FindPresence
from openguild_proto.errors import ErrorCode
from openguild_proto.hints import PresenceChoice
from openguild_proto.http.message import Response
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Settings
from openguild_proto.operations.route import in_guild, route
from openguild_proto.policy.permissions import Permission
from openguild_proto.records import GuildAccess
from openguild_proto.schemas.presence import ChosenPresence, GuildPresence, MemberPresence


def _switched_off(settings: Settings) -> ErrorCode | None:
    return None if settings.presence.enabled else ErrorCode.PRESENCE_OFF


@route(
    "PUT", "/users/@me/presence", "Choose your presence", {204: None},
    body=ChosenPresence, refused_by=_switched_off, errors=(ErrorCode.PRESENCE_OFF,),
)  # fmt: skip
def choose_presence(call: Call[ChosenPresence, None]) -> Operation[Response]:
    """Set the caller's presence for as long as this session has a stream."""
    claims = call.claims
    yield from Announce(PresenceChoice(claims.user_id, claims.session_id, call.body.status))
    return Response.empty()


@route(
    "GET", "/guilds/{guild_id}/presence", "List the members who are not offline", {200: GuildPresence},
    rights=in_guild(Permission.READ), refused_by=_switched_off, for_remote=False, errors=(ErrorCode.PRESENCE_OFF,),
)  # fmt: skip
def guild_presence(call: Call[None, GuildAccess], guild_id: str) -> Operation[Response]:
    """List the members who are not offline; a large guild shows none."""
    most = call.ctx.service.settings.presence.max_guild_members
    members = yield from ListMembers(guild_id=guild_id, limit=most + 1, reader_id=call.claims.user_id)
    if len(members) > most:
        return Response.json(GuildPresence(shown=False, members=()))
    found = yield from FindPresence(tuple(member.user_id for member in members), call.claims.user_id)
    return Response.json(
        GuildPresence(shown=True, members=tuple(MemberPresence(user_id, status) for user_id, status in found.items()))
    )
