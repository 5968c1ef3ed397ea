"""All routes, collected from the modules of their operations (PROTOCOL 3.1)."""

from __future__ import annotations

from openguild_proto.limits import MAX_SMALL_BODY_BYTES
from openguild_proto.operations import (
    changes,
    channels,
    gateway,
    guilds,
    health,
    inbox,
    invites,
    keys,
    logs,
    members,
    messages,
    presence,
    reads,
    search,
    sessions,
    streams,
    timeline,
    typing,
    users,
)
from openguild_proto.operations.description import describing
from openguild_proto.operations.route import Route, collect_routes
from openguild_proto.operations.router import BadParameter, Matched, Router, WrongMethod

ROUTES: tuple[Route, ...] = (
    *collect_routes(health, keys),
    describing(lambda: ROUTES),
    *collect_routes(
        users,
        sessions,
        guilds,
        channels,
        members,
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
    ),
)

_ROUTER = Router(ROUTES)


def match(method: str, path: str) -> Matched | BadParameter | WrongMethod | None:
    """Return the route for `method` and the raw `path`; None: no such path. HEAD matches as GET."""
    return _ROUTER.match(method, path)


def max_body_bytes(method: str, path: str) -> int:
    """Return the body limit of the route for `method` and the raw `path`; without a route that of a small body."""
    matched = match(method, path)
    return matched.route.max_body_bytes if isinstance(matched, Matched) else MAX_SMALL_BODY_BYTES
