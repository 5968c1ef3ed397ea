"""The commands of the admin socket, a unix socket that only the server's user may open (`admin_socket`).

A request and a response are one JSON line each. Changes are written to the audit log (`openguild.audit`) with the uid of
the caller. They last until the next start or SIGHUP, also for replaced workers; permanent changes belong in the
configuration.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import structlog
from anyio.abc import SocketStream
from pydantic import ValidationError

from openguild_proto.fanout.hub import Hub
from openguild_proto.ws import reasons
from openguild_proto.ws.close_codes import CloseCode
from openguild_runtime.admin.reload import SETTABLE, LiveConfig, value_of, with_value
from openguild_runtime.config.faults import in_words
from openguild_runtime.config.layers import ConfigError
from openguild_runtime.net.transport import Transport
from openguild_runtime.observability import logs
from openguild_runtime.replica.runner import ReplicaRunner
from openguild_runtime.system.unix_socket import serve_unix_socket

REQUEST_TIMEOUT_SECS = 5.0
MAX_REQUEST_BYTES = 4_096
MAX_LINES = 1_000

Request = dict[str, Any]
Response = dict[str, Any]

log = structlog.get_logger("openguild.server")
audit = structlog.get_logger(logs.AUDIT)


class Refused(Exception):
    """The request is refused; the text is for the operator."""


class AdminScope(NamedTuple):
    """The parts of one replica that an operator may see and change."""

    live: LiveConfig
    replica: ReplicaRunner
    drain: Callable[[], None]  # drains the whole server; idempotent


def _behind(hub: Hub, transport: Transport) -> int:
    """Return how many events the peer is behind. A peer that lagged out stays listed until it is closed, perhaps after its ring."""
    subscriber = transport.subscriber
    if subscriber is None or not hub.is_open(subscriber.ring):
        return 0
    return hub.head(subscriber.ring) - subscriber.position


def list_channels(scope: AdminScope, request: Request) -> Response:
    """List channels with a backlog, the deepest first, with the slowest reader of each."""
    hub, lines = scope.replica.replica.hub, []
    for channel_id, depth in scope.replica.replica.depths()[0][: _limit(request)]:
        behind = [
            (_behind(hub, transport), transport.stream.user_id, transport.address)
            for transport in scope.replica.transports()
            if transport.stream is not None and transport.stream.channel_id == channel_id
        ]
        line: Response = {
            "channel_id": channel_id,
            "depth": depth,
            "subscribers": hub.subscriber_count(channel_id),
            "head": hub.head(channel_id),
        }
        if behind:
            line["behind"], line["slowest_user"], line["slowest_address"] = max(behind)
        lines.append(line)
    return {"channels": lines}


def list_sessions(scope: AdminScope, request: Request) -> Response:
    """List open streams, the furthest behind first; `user` filters."""
    user, limit = _user(request), _limit(request)
    lines: list[Response] = [
        {"user_id": transport.stream.user_id, "session_id": transport.stream.session_id, "address": transport.address,
         "channel_id": transport.stream.channel_id, "behind": _behind(scope.replica.replica.hub, transport)}
        for transport in scope.replica.transports()
        if transport.stream is not None and user in (None, transport.stream.user_id)
    ]  # fmt: skip
    lines.sort(key=lambda line: -line["behind"])
    return {"sessions": lines[:limit], "total": len(lines)}


def show(scope: AdminScope, request: Request) -> Response:
    """Show the settings that can change at run time, and the log filter."""
    del request
    settings = {key: value_of(scope.live.config, key) for key in sorted(SETTABLE)}
    return {"settings": settings, "log": logs.current_filter()}


def change(scope: AdminScope, request: Request) -> Response:
    """Set one live key."""
    key, value = str(request.get("key")), request.get("value")
    if key not in SETTABLE:
        raise Refused(f"{key} cannot be changed while serving; what can: {', '.join(sorted(SETTABLE))}")
    try:
        scope.live.apply(with_value(scope.live.config, key, value))
    except ValidationError as problem:
        section = type(getattr(scope.live.config, key.partition(".")[0]))
        raise Refused(f"{key}: {in_words(problem, section)}") from None
    except ConfigError as problem:
        raise Refused(str(problem)) from None
    return {"changed": key, "value": value_of(scope.live.config, key)}


def change_log(scope: AdminScope, request: Request) -> Response:
    """Set the log filter, such as `info,openguild=debug`."""
    del scope
    wanted = str(request.get("filter"))
    try:
        logs.set_filter(logs.parse_filter(wanted))
    except ValueError as problem:
        raise Refused(str(problem)) from None
    return {"log": wanted}


def close_sessions(scope: AdminScope, request: Request) -> Response:
    """Close a user's streams with a reconnect code; clients may reconnect to any replica."""
    user = _user(request)
    if not user:
        raise Refused("name the user")
    found = [
        transport
        for transport in scope.replica.transports()
        if transport.stream is not None and transport.stream.user_id == user
    ]
    for transport in found:
        transport.close(CloseCode.SERVICE_RESTART, reasons.reconnect_after(reasons.CLOSED_BY_OPERATOR, 1_000))
    return {"closed": len(found)}


def begin_drain(scope: AdminScope, request: Request) -> Response:
    """Drain the whole server, all its workers, as SIGTERM does. Idempotent."""
    del request
    scope.drain()
    return {"draining": True}


COMMANDS: dict[str, Callable[[AdminScope, Request], Response]] = {
    "channels": list_channels, "sessions": list_sessions, "show": show, "set": change, "log": change_log,
    "close": close_sessions, "drain": begin_drain,
}  # fmt: skip
CHANGES = frozenset({"set", "log", "close", "drain"})


def _limit(request: Request) -> int:
    limit = request.get("limit", 20)
    if not isinstance(limit, int) or not 0 < limit <= MAX_LINES:
        raise Refused(f"limit: expected 1 to {MAX_LINES}")
    return limit


def _user(request: Request) -> str | None:
    user = request.get("user")
    if user is not None and not isinstance(user, str):
        raise Refused("user: expected a user id")
    return user


def respond(scope: AdminScope, line: bytes, uid: int) -> Response:
    """Run one request and return its response, which has `error` if it failed."""
    try:
        request = json.loads(line)
        command = COMMANDS[request["command"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {"error": f"expected a command: {', '.join(COMMANDS)}"}
    try:
        response = command(scope, request)
    except Refused as problem:
        response = {"error": str(problem)}
    except Exception:  # a bug must not end the server
        log.exception("admin request failed", command=request["command"])
        response = {"error": "internal error"}
    if request["command"] in CHANGES:
        audit.warning("admin action", uid=uid, request=request, answer=response)
    return response


async def serve_admin(scope: AdminScope, path: Path) -> None:
    """Serve the socket at `path` until cancelled. The server's user and root may connect."""

    async def serve(stream: SocketStream) -> None:
        with anyio.move_on_after(REQUEST_TIMEOUT_SECS):
            line = b""
            while not line.endswith(b"\n") and len(line) < MAX_REQUEST_BYTES:
                line += await stream.receive(MAX_REQUEST_BYTES)
            await stream.send(json.dumps(respond(scope, line, _uid_of(stream))).encode() + b"\n")

    await serve_unix_socket(path, serve)


def _uid_of(stream: SocketStream) -> int:
    """Return the uid of the peer on Linux; elsewhere -1."""
    if not hasattr(socket, "SO_PEERCRED"):
        return -1
    raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)  # noqa: S610 - not Django
    credentials = raw.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])
