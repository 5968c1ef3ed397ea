"""What an operator may ask of a running server, over a unix socket that only its user may open (`admin_socket`).

One JSON line each way. Whatever changes something is written to the audit log (`openguild.audit`) with the uid that asked.
Changes live until the next start or SIGHUP, and a replaced worker has them too: what is to stay belongs in the
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

ANSWER_SECS = 5.0
MAX_REQUEST_BYTES = 4_096
MAX_LINES = 1_000

Request = dict[str, Any]
Answer = dict[str, Any]

log = structlog.get_logger("openguild.server")
audit = structlog.get_logger(logs.AUDIT)


class Refused(Exception):
    """The request cannot be done; the text is for the operator."""


class AdminScope(NamedTuple):
    """The parts of one replica that an operator may see and change."""

    live: LiveConfig
    replica: ReplicaRunner
    drain: Callable[[], None]  # begins the end of the whole server; to repeat it does nothing


def _behind(hub: Hub, transport: Transport) -> int:
    """Events that the peer has not got. One that was overrun is listed until it has gone, perhaps after its ring."""
    subscriber = transport.subscriber
    if subscriber is None or not hub.is_open(subscriber.ring):
        return 0
    return hub.head(subscriber.ring) - subscriber.position


def list_channels(scope: AdminScope, request: Request) -> Answer:
    """Channels with a backlog, the deepest first, and who is slowest in each."""
    hub, lines = scope.replica.hub, []
    for channel_id, depth in scope.replica.depths().channels[: _limit(request)]:
        behind = [
            (_behind(hub, transport), transport.stream.user_id, transport.address)
            for transport in scope.replica.transports()
            if transport.stream is not None and transport.stream.channel_id == channel_id
        ]
        line: Answer = {
            "channel_id": channel_id,
            "depth": depth,
            "subscribers": hub.subscriber_count(channel_id),
            "head": hub.head(channel_id),
        }
        if behind:
            line["behind"], line["slowest_user"], line["slowest_address"] = max(behind)
        lines.append(line)
    return {"channels": lines}


def list_sessions(scope: AdminScope, request: Request) -> Answer:
    """Open streams, those furthest behind first; `user` narrows it."""
    user, limit = _user(request), _limit(request)
    lines: list[Answer] = [
        {"user_id": transport.stream.user_id, "session_id": transport.stream.session_id, "address": transport.address,
         "channel_id": transport.stream.channel_id, "behind": _behind(scope.replica.hub, transport)}
        for transport in scope.replica.transports()
        if transport.stream is not None and user in (None, transport.stream.user_id)
    ]  # fmt: skip
    lines.sort(key=lambda line: -line["behind"])
    return {"sessions": lines[:limit], "total": len(lines)}


def show(scope: AdminScope, request: Request) -> Answer:
    """What may be changed while it serves, and what it is."""
    del request
    settings = {key: value_of(scope.live.config, key) for key in sorted(SETTABLE)}
    return {"settings": settings, "log": logs.current_filter()}


def change(scope: AdminScope, request: Request) -> Answer:
    """Another value for one live key."""
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


def change_log(scope: AdminScope, request: Request) -> Answer:
    """Another log filter, such as `info,openguild=debug`."""
    del scope
    wanted = str(request.get("filter"))
    try:
        logs.set_filter(logs.parse_filter(wanted))
    except ValueError as problem:
        raise Refused(str(problem)) from None
    return {"log": wanted}


def close_sessions(scope: AdminScope, request: Request) -> Answer:
    """Close a user's streams; the clients are told to come back, to whichever replica takes them."""
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


def begin_drain(scope: AdminScope, request: Request) -> Answer:
    """As SIGTERM does, for the whole server: a worker's supervisor ends all of them. Asking again changes nothing."""
    del request
    scope.drain()
    return {"draining": True}


COMMANDS: dict[str, Callable[[AdminScope, Request], Answer]] = {
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


def answer_to(scope: AdminScope, line: bytes, uid: int) -> Answer:
    """The answer to one request; `error` says why there is none."""
    try:
        request = json.loads(line)
        command = COMMANDS[request["command"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {"error": f"expected a command: {', '.join(COMMANDS)}"}
    try:
        answer = command(scope, request)
    except Refused as problem:
        answer = {"error": str(problem)}
    except Exception:  # a defect of ours must not end the server
        log.exception("admin request failed", command=request["command"])
        answer = {"error": "internal error"}
    if request["command"] in CHANGES:
        audit.warning("admin action", uid=uid, request=request, answer=answer)
    return answer


async def serve_admin(scope: AdminScope, path: Path) -> None:
    """Answer at `path` until cancelled. Whoever may open the socket may ask: the server's user, and root."""

    async def answer(stream: SocketStream) -> None:
        with anyio.move_on_after(ANSWER_SECS):
            line = b""
            while not line.endswith(b"\n") and len(line) < MAX_REQUEST_BYTES:
                line += await stream.receive(MAX_REQUEST_BYTES)
            await stream.send(json.dumps(answer_to(scope, line, _uid_of(stream))).encode() + b"\n")

    await serve_unix_socket(path, answer)


def _uid_of(stream: SocketStream) -> int:
    """Linux tells who has connected; elsewhere -1."""
    if not hasattr(socket, "SO_PEERCRED"):
        return -1
    raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)  # noqa: S610 - not Django
    credentials = raw.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])
