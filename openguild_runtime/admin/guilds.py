"""The commands `admin guild ...` of the admin socket: moves of guilds to and from other servers (PROTOCOL 16.10)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from openguild_proto.effects.base import StorageUnavailable
from openguild_proto.effects.handovers import BeginMove, EndMove, ListMoves, Move
from openguild_proto.federation.server_names import NameFault, parse_server_name
from openguild_proto.operations.taking_over import parse_handover
from openguild_proto.schemas.decode import parse_uuid
from openguild_proto.timestamps import from_millis
from openguild_runtime.admin.scope import AdminScope, Refused, Request, Response


def _guild(request: Request) -> str:
    guild_id = parse_uuid(str(request.get("guild")))
    if guild_id is None:
        raise Refused("guild: expected the id of a guild")
    return guild_id


def _server(request: Request) -> str:
    try:
        return parse_server_name(str(request.get("server")))
    except NameFault as fault:
        raise Refused(f"server: {fault}") from None


def _line(move: Move) -> dict[str, Any]:
    return {
        "guild_id": move.guild_id,
        "to": move.to,
        "since": from_millis(move.began_ms),
        "phase": "copying" if move.handover is None else "handed over",
        "note": move.note or None,
    }


async def begin(scope: AdminScope, request: Request) -> Response:
    """Start the move of a guild to another server. It continues in the background, and after a restart."""
    guild_id, server = _guild(request), _server(request)
    now_ms = int(scope.sources.wall() * 1_000)
    problem = await scope.storage.perform(BeginMove(guild_id=guild_id, to=server, now_ms=now_ms))
    if problem is not None:
        raise Refused(problem)
    scope.servers.moves.wake()
    return {"moving": guild_id, "to": server}


async def list_moves(scope: AdminScope, request: Request) -> Response:
    """List the running moves."""
    del request
    return {"moves": [_line(move) for move in await scope.storage.perform(ListMoves())]}


async def cancel(scope: AdminScope, request: Request) -> Response:
    """Cancel a move whose guild is not handed over yet."""
    guild_id = _guild(request)
    if not await scope.storage.perform(EndMove(guild_id=guild_id, done=False)):
        raise Refused("there is no such move, or the guild has already been handed over")
    return {"cancelled": guild_id}


async def succeed(scope: AdminScope, request: Request) -> Response:
    """Take over a guild whose owner is lost, by a statement that names this server as its successor."""
    try:
        statement = parse_handover(request.get("statement"))
    except msgspec.ValidationError as fault:
        raise Refused(f"statement: {fault}") from None
    problem = await scope.servers.succeed(statement)
    if problem is not None:
        raise Refused(problem)
    return {"guild_id": statement.guild_id, "owner": statement.to, "former": statement.owner}


async def give_up(scope: AdminScope, request: Request) -> Response:
    """Give up a guild of this server to another server that owns it too."""
    guild_id, server = _guild(request), _server(request)
    problem = await scope.servers.give_up(guild_id, server)
    if problem is not None:
        raise Refused(problem)
    return {"guild_id": guild_id, "owner": server}


ACTIONS: dict[str, Callable[[AdminScope, Request], Awaitable[Response]]] = {
    "move": begin, "moves": list_moves, "cancel": cancel, "succeed": succeed, "give-up": give_up,
}  # fmt: skip
LOOKS = frozenset({"moves"})


async def guild(scope: AdminScope, request: Request) -> Response:
    """Perform one of ACTIONS."""
    action = ACTIONS.get(str(request.get("action")))
    if action is None:
        raise Refused(f"expected one of: {', '.join(ACTIONS)}")
    if not scope.servers.policy.is_on:
        raise Refused("federation is off (federation.mode)")
    try:
        return await action(scope, request)
    except StorageUnavailable:
        raise Refused("the database does not respond") from None
