"""Names the server that may take over a guild when this server is permanently lost (PROTOCOL 16.10.6)."""

from __future__ import annotations

from openguild_proto.effects.base import Operation
from openguild_proto.effects.deliveries import FindMirrored
from openguild_proto.effects.handovers import FindOwnership, FindSuccession, SetSuccessor
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.federation.handovers import SUCCESSION, SUCCESSION_MS, signed_handover
from openguild_proto.federation.policy import Mode
from openguild_proto.http.message import Response
from openguild_proto.mirror_records import Handover, Ownership
from openguild_proto.operations.call import Call
from openguild_proto.operations.route import in_guild, route
from openguild_proto.policy.members import OWNER
from openguild_proto.policy.permissions import Permission
from openguild_proto.records import GuildAccess
from openguild_proto.schemas.guilds import Succession, Successor
from openguild_proto.timestamps import from_millis


def _require_owner(call: Call[Successor, GuildAccess] | Call[None, GuildAccess]) -> None:
    """Raise Refusal 403 unless the caller is an owner of the guild; server roles do not count."""
    if call.access.role != OWNER:
        raise Refusal(ErrorCode.FORBIDDEN, "only an owner of the guild may name its successor")


@route(
    "GET", "/guilds/{guild_id}/succession", "Read the statement that lets another server take over the guild",
    {200: Succession}, rights=in_guild(Permission.READ), at_owner=True,
)  # fmt: skip
def show_succession(call: Call[None, GuildAccess], guild_id: str) -> Operation[Response]:
    """Show the statement to an owner of the guild; 404 if no server is named, or the statement has expired."""
    _require_owner(call)
    handover = yield from FindSuccession(guild_id=guild_id, reader_id=call.claims.user_id)
    if handover is None or handover.expires_at_ms <= call.ctx.wall_ms:
        raise Refusal(ErrorCode.NOT_FOUND)
    return Response.json(_shown(handover))


@route(
    "PUT", "/guilds/{guild_id}/succession", "Name the server that may take over the guild", {200: Succession},
    rights=in_guild(Permission.READ), body=Successor,
)  # fmt: skip
def name_successor(call: Call[Successor, GuildAccess], guild_id: str) -> Operation[Response]:
    """Sign a statement for a server that mirrors the guild; earlier statements become invalid."""
    _require_owner(call)
    ctx, server = call.ctx, call.body.server
    service = ctx.service
    if service.settings.federation.mode is Mode.OFF or service.signer is None:
        raise Refusal(ErrorCode.NOT_FOUND, "this server does not federate")
    if (yield from FindMirrored(peer=server, log_id=guild_id)) is None:
        raise Refusal(ErrorCode.NOT_FOUND, "no user of that server is a member of the guild")
    ownership, serial = yield from _next_serial(call, guild_id)
    here, now_ms = service.settings.federation.server_name, ctx.wall_ms
    handover = signed_handover(
        Handover(SUCCESSION, guild_id, here, server, ownership.term + 1, now_ms, now_ms + SUCCESSION_MS, serial),
        service.signers,
    )
    yield from _set(call, guild_id, handover, serial)
    return Response.json(_shown(handover))


@route(
    "DELETE", "/guilds/{guild_id}/succession", "Revoke the statement that names a successor", {204: None},
    rights=in_guild(Permission.READ),
)  # fmt: skip
def revoke_succession(call: Call[None, GuildAccess], guild_id: str) -> Operation[Response]:
    """Allow no server to take over the guild, and tell every server that mirrors it."""
    _require_owner(call)
    _, serial = yield from _next_serial(call, guild_id)
    yield from _set(call, guild_id, None, serial)
    return Response.empty()


def _next_serial(
    call: Call[Successor, GuildAccess] | Call[None, GuildAccess], guild_id: str
) -> Operation[tuple[Ownership, int]]:
    ownership = yield from FindOwnership(guild_id=guild_id)
    if ownership is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    return ownership, max(call.ctx.wall_ms, ownership.serial + 1)


def _set(
    call: Call[Successor, GuildAccess] | Call[None, GuildAccess], guild_id: str, handover: Handover | None, serial: int
) -> Operation[None]:
    done = yield from SetSuccessor(
        author=call.claims.author, guild_id=guild_id, handover=handover, serial=serial, now_ms=call.ctx.wall_ms
    )
    if not done:
        raise Refusal(
            ErrorCode.OVERLOADED, "another owner named a successor at the same time: try again", wait_secs=1.0
        )


def _shown(handover: Handover) -> Succession:
    return Succession(handover.to, from_millis(handover.expires_at_ms), handover)
