"""The commands `admin federation ...` of the admin socket: lists of other servers and guilds, and decisions about servers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import structlog

from openguild_proto.canonical.keys import encode_unpadded
from openguild_proto.effects.base import StorageUnavailable
from openguild_proto.effects.federation import (
    AskPeer,
    ListFederatedGuilds,
    ListOwnKeys,
    ListPeers,
    Peer,
    PeerUnavailable,
    PublishedKey,
    RevokeOwnKey,
    RuleServer,
    Standing,
)
from openguild_proto.federation.keys import revocation_ms
from openguild_proto.federation.policy import judge
from openguild_proto.federation.server_names import NameFault, parse_server_name
from openguild_proto.limits import MAX_REASON_CHARS
from openguild_proto.schemas.decode import parse_uuid
from openguild_proto.timestamps import from_millis
from openguild_runtime.admin.scope import AdminScope, Refused, Request, Response, limit_of

PING = "/federation/v1/ping"
KEYS_CHANGED = "/federation/v1/keys/changed"
ASK_SECS = 4.0  # below the time limit of a command
TELL_SECS = 10.0  # to inform one server about a revoked key
TOLD_AT_ONCE = 8
PAGE = 200

log = structlog.get_logger("openguild.federation")


def _now_ms(scope: AdminScope) -> int:
    return int(scope.sources.wall() * 1_000)


def _server(request: Request) -> str:
    try:
        return parse_server_name(str(request.get("server")))
    except NameFault as fault:
        raise Refused(f"server: {fault}") from None


def _moment(millis: int | None) -> str | None:
    return from_millis(millis) if millis else None


def _key_line(key: PublishedKey) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "public_key": encode_unpadded(key.public_key),
        "not_before": _moment(key.not_before),
        "not_after": _moment(key.not_after),
        "revoked_at": _moment(key.revoked_at),
    }


async def list_peers(scope: AdminScope, request: Request) -> Response:
    """List the known servers with their standing, or one `server` with its keys."""
    policy = scope.servers.policy
    if request.get("server") is not None:
        peer = await scope.servers.find(_server(request))
        return _line(scope, peer) | {"keys": [_key_line(key) for key in peer.keys]}
    peers = await scope.storage.perform(ListPeers(after="", limit=limit_of(request)))
    known = {peer.server for peer in peers}
    named = sorted({*policy.pinned, *policy.configured} - known)
    return {
        "mode": policy.mode.value,
        "name": policy.server_name,
        "peers": [_line(scope, peer) for peer in (*peers, *map(Peer, named))],
    }


def _line(scope: AdminScope, peer: Peer) -> dict[str, Any]:
    policy = scope.servers.policy
    verdict = judge(policy, peer.server, peer)
    line: dict[str, Any] = {
        "server": peer.server,
        "standing": verdict.standing.value,
        "base_url": policy.addresses.get(peer.server, peer.base_url),
        "keys_read": _moment(peer.checked_ms),
        "last_contact": _moment(peer.contacted_ms),
    }
    if verdict.reason:
        line["reason"] = verdict.reason
    delivery = scope.deliveries.delivery_to(peer.server)
    if delivery is not None:  # this process delivers to it
        line["delivery"] = {
            "phase": delivery.phase.value,
            "behind": delivery.counters.behind,
            "retry_secs": round(delivery.counters.backoff_secs, 1),
            "failure": delivery.reason or None,
        }
    guilds = [ruling for ruling in peer.rulings if ruling.guild_id is not None]
    if guilds:
        line["guilds"] = [
            {"guild_id": ruling.guild_id, "standing": ruling.standing.value, "reason": ruling.reason}
            for ruling in guilds
        ]
    return line


async def list_guilds(scope: AdminScope, request: Request) -> Response:
    """List guilds with members on several servers."""
    found = await scope.storage.perform(ListFederatedGuilds(limit=limit_of(request)))
    return {"guilds": [{name: getattr(guild, name) for name in guild.__struct_fields__} for guild in found]}


async def rule(scope: AdminScope, request: Request) -> Response:
    """Set the standing of a server, in one guild or in all: `allow`, `deny`, `quarantine`, or `clear` to remove it."""
    server, action, guild = _server(request), request["action"], request.get("guild")
    guild_id = parse_uuid(str(guild)) if guild is not None else None
    if guild is not None and guild_id is None:
        raise Refused("guild: expected the id of a guild")
    reason = str(request.get("reason") or "").strip()
    if len(reason) > MAX_REASON_CHARS or not reason.isprintable():
        raise Refused(f"reason: expected one line of at most {MAX_REASON_CHARS} characters")
    standing = Standing(action) if action != "clear" else None
    await scope.storage.perform(
        RuleServer(server=server, guild_id=guild_id, standing=standing, reason=reason, now_ms=_now_ms(scope))
    )
    scope.servers.forget(server)
    return _line(scope, await scope.servers.find(server))


async def retry(scope: AdminScope, request: Request) -> Response:
    """Send a request to a server now, without backoff. Its address and keys are fetched again if they are not valid."""
    server = _server(request)
    scope.servers.retry(server)
    try:
        answer = await scope.servers.ask(AskPeer(server=server, method="GET", target=PING, timeout_secs=ASK_SECS))
    except PeerUnavailable as failure:
        raise Refused(f"{server}: {failure.reason}" + (f": {failure.detail}" if failure.detail else "")) from None
    scope.deliveries.contacted(server)
    return {"server": server, "status": answer.status, "answer": answer.body.decode(errors="replace")}


async def keys(scope: AdminScope, request: Request) -> Response:
    """List the keys of this server. `revoke` first revokes one and informs the known servers."""
    key_id = request.get("revoke")
    if key_id is not None:
        if key_id == scope.servers.current_key_id:
            raise Refused(
                f"{key_id} is the current key: set another federation.signing_key and key_id first, and restart"
            )
        key = next((key for key in await scope.storage.perform(ListOwnKeys()) if key.key_id == key_id), None)
        if key is None:
            raise Refused(f"{key_id}: there is no such key")
        revoke = RevokeOwnKey(key_id=key.key_id, revoked_at=revocation_ms(key, _now_ms(scope)))
        if await scope.storage.perform(revoke):
            scope.servers.in_background(_tell_of_keys, scope)
    found = await scope.storage.perform(ListOwnKeys())
    return {"keys": [_key_line(key) for key in found]}


async def _tell_of_keys(scope: AdminScope) -> None:
    """Inform every server that has been in contact and is not denied. Servers that do not answer read the keys within an hour."""
    limiter, told = anyio.CapacityLimiter(TOLD_AT_ONCE), [0, 0]

    async def tell(server: str) -> None:
        async with limiter:
            try:
                await scope.servers.ask(
                    AskPeer(server=server, method="POST", target=KEYS_CHANGED, timeout_secs=TELL_SECS)
                )
            except (PeerUnavailable, StorageUnavailable):
                told[1] += 1
            else:
                told[0] += 1

    after = ""
    while peers := await scope.storage.perform(ListPeers(after=after, limit=PAGE)):
        after = peers[-1].server
        async with anyio.create_task_group() as tasks:
            for peer in peers:
                if judge(scope.servers.policy, peer.server, peer).standing is not Standing.DENY and peer.contacted_ms:
                    tasks.start_soon(tell, peer.server)
    log.warning("servers were told that a key is revoked", told=told[0], not_reached=told[1])


ACTIONS: dict[str, Callable[[AdminScope, Request], Awaitable[Response]]] = {
    "peers": list_peers, "guilds": list_guilds, "allow": rule, "deny": rule, "quarantine": rule, "clear": rule, "retry": retry,
    "keys": keys,
}  # fmt: skip
LOOKS = frozenset({"peers", "guilds"})


async def federation(scope: AdminScope, request: Request) -> Response:
    """Perform one of ACTIONS."""
    action = ACTIONS.get(str(request.get("action")))
    if action is None:
        raise Refused(f"expected one of: {', '.join(ACTIONS)}")
    try:
        return await action(scope, request)
    except StorageUnavailable:
        raise Refused("the database does not respond") from None
