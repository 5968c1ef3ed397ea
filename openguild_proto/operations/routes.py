"""All routes, collected from the modules of their operations (PROTOCOL 3.1)."""

from __future__ import annotations

from openguild_proto.limits import MAX_SMALL_BODY_BYTES
from openguild_proto.operations import (
    account_deletion,
    bans,
    capabilities,
    changes,
    channels,
    deliveries,
    federation,
    gateway,
    giving_up,
    guilds,
    handing_over,
    health,
    inbox,
    invites,
    keys,
    logs,
    members,
    messages,
    owner_changes,
    peer_guilds,
    peer_logs,
    presence,
    proofs,
    proposals,
    reads,
    search,
    sessions,
    streams,
    succession,
    taking_over,
    timeline,
    timeouts,
    transactions,
    typing,
    users,
)
from openguild_proto.operations.description import describing
from openguild_proto.operations.route import Route, collect_routes
from openguild_proto.operations.router import Matched, Router

ROUTES: tuple[Route, ...] = (
    *collect_routes(health, keys, capabilities, federation, transactions),
    *describing(lambda: ROUTES),
    *collect_routes(
        users,
        account_deletion,
        sessions,
        guilds,
        succession,
        channels,
        members,
        timeouts,
        bans,
        invites,
        messages,
        logs,
        changes,
        timeline,
        typing,
        presence,
        reads,
        inbox,
        search,
        streams,
        gateway,
        peer_guilds,
        peer_logs,
        proposals,
        deliveries,
        proofs,
        owner_changes,
        giving_up,
        handing_over,
        taking_over,
    ),
)

_ROUTER = Router(ROUTES)


match = _ROUTER.match


def max_body_bytes(method: str, path: str) -> int:
    """Return the body limit of the route for `method` and the raw `path`; the small limit if there is no route."""
    matched = match(method, path)
    return matched.route.max_body_bytes if isinstance(matched, Matched) else MAX_SMALL_BODY_BYTES
