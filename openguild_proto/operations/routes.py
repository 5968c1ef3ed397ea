"""All routes, collected from the modules of their operations (PROTOCOL 3.1)."""

from __future__ import annotations

from openguild_proto.limits import MAX_SMALL_BODY_BYTES
from openguild_proto.operations import (
    changes,
    channels,
    guilds,
    health,
    invites,
    keys,
    members,
    messages,
    reads,
    sessions,
    streams,
    timeline,
    users,
)
from openguild_proto.operations.description import describing
from openguild_proto.operations.route import Route, collect_routes
from openguild_proto.operations.router import BadParameter, Matched, Router, WrongMethod

ROUTES: tuple[Route, ...] = (
    *collect_routes(health, keys),
    describing(lambda: ROUTES),
    *collect_routes(users, sessions, guilds, channels, members, invites, messages, changes, timeline, reads, streams),
)

_ROUTER = Router(ROUTES)


def match(method: str, path: str) -> Matched | BadParameter | WrongMethod | None:
    """What answers `method` at the raw `path`; None: nothing does. HEAD is answered where GET is."""
    return _ROUTER.match(method, path)


def max_body_bytes(method: str, path: str) -> int:
    """What the route that answers `method` at the raw `path` takes; a path without one takes a small body."""
    matched = match(method, path)
    return matched.route.max_body_bytes if isinstance(matched, Matched) else MAX_SMALL_BODY_BYTES
