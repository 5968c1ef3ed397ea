"""Time-outs of members (PROTOCOL 5.9)."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from openguild_proto.effects.base import Operation, StorageUnavailable
from openguild_proto.effects.channels import FindChannelAccess
from openguild_proto.effects.guilds import FindMember
from openguild_proto.effects.timeouts import EndTimeout, TimeOutMember
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import Response
from openguild_proto.operations.call import Call
from openguild_proto.operations.members import require_done
from openguild_proto.operations.parameters import REASON
from openguild_proto.operations.route import in_guild, route
from openguild_proto.policy.permissions import Permission
from openguild_proto.policy.timeouts import MAX_TIMEOUT_SECS, decide_timeout
from openguild_proto.records import GuildAccess
from openguild_proto.schemas.guilds import Member, TimeOut
from openguild_proto.timestamps import from_millis


@route(
    "PUT", "/guilds/{guild_id}/members/{user_id}/timeout", "Time a member out", {200: Member},
    rights=in_guild(Permission.MANAGE_MEMBERS), body=TimeOut, query=(REASON,),
)  # fmt: skip
def time_out(call: Call[TimeOut, GuildAccess], guild_id: str, user_id: str) -> Operation[Response]:
    """Restrict a member of a lower rank to reading for some time. Replaces an existing time-out."""
    if not 1 <= call.body.secs <= MAX_TIMEOUT_SECS:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("secs", f"must be 1 to {MAX_TIMEOUT_SECS}"),))
    member = yield from FindMember(guild_id=guild_id, user_id=user_id)
    if member is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    decide_timeout(author_role=call.role, held=member.role)
    now_ms = call.ctx.wall_ms
    ends_ms = now_ms + call.body.secs * 1_000
    change = TimeOutMember(
        author=call.claims.author,
        guild_id=guild_id,
        user_id=user_id,
        ends_ms=ends_ms,
        now_ms=now_ms,
        reason=call.query.get("reason"),
    )
    require_done((yield from change))
    return Response.json(Member.of(replace(member, timed_out_until_ms=ends_ms)))


@route(
    "DELETE", "/guilds/{guild_id}/members/{user_id}/timeout", "Remove a member's time-out", {204: None},
    rights=in_guild(Permission.MANAGE_MEMBERS), query=(REASON,),
)  # fmt: skip
def end_timeout(call: Call[None, GuildAccess], guild_id: str, user_id: str) -> Operation[Response]:
    """End a time-out early, whoever set it."""
    ended = yield from EndTimeout(
        author=call.claims.author,
        guild_id=guild_id,
        user_id=user_id,
        now_ms=call.ctx.wall_ms,
        reason=call.query.get("reason"),
    )
    if not ended:
        raise Refusal(ErrorCode.NOT_FOUND, "this user is not timed out here")
    return Response.empty()


def with_end_of_timeout(call: Call[Any, Any], refusal: Refusal) -> Operation[Refusal]:
    """Return `refusal`, or a refusal with the time of the end if the caller is timed out (PROTOCOL 5.9.6)."""
    if refusal.code is not ErrorCode.FORBIDDEN or not call.route.needs_token:
        return refusal
    try:
        guild_id = yield from _guild_of(call)
        member = None
        if guild_id is not None:
            member = yield from FindMember(guild_id=guild_id, user_id=call.claims.user_id)
    except StorageUnavailable:
        return refusal  # correct, but without the reason
    if member is None or member.timed_out_until_ms is None:
        return refusal
    ends_ms = member.timed_out_until_ms
    wait_secs = max(1, ends_ms - call.ctx.wall_ms) / 1_000
    return Refusal(ErrorCode.TIMED_OUT, f"you are timed out until {from_millis(ends_ms)}", wait_secs=wait_secs)


def _guild_of(call: Call[Any, Any]) -> Operation[str | None]:
    """Return the guild of the path or of its channel, read again because a call with refused rights does not know it."""
    channel_id = call.params.get("channel_id")
    if channel_id is None:
        return call.params.get("guild_id")
    access = yield from FindChannelAccess(channel_id=channel_id, user_id=call.claims.user_id)
    return access.channel.guild_id if access is not None else None
