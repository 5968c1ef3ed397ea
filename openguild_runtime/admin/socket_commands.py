"""The commands of the admin socket, a Unix socket that only the server's user may open (`admin_socket`).

A request and a response are one JSON line each. Changes are written to the audit log (`openguild.audit`) with the uid of the
caller before they are answered. Changed settings last until the next start or SIGHUP, also in replaced workers; permanent
changes belong in the configuration.
"""

from __future__ import annotations

import difflib
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import structlog
from anyio.abc import SocketStream
from pydantic import ValidationError

from openguild_proto.ws import reasons
from openguild_proto.ws.close_codes import CloseCode
from openguild_runtime.admin.accounts import delete_account
from openguild_runtime.admin.federation import LOOKS as FEDERATION_LOOKS
from openguild_runtime.admin.federation import federation
from openguild_runtime.admin.guilds import LOOKS as GUILD_LOOKS
from openguild_runtime.admin.guilds import guild
from openguild_runtime.admin.login_blocks import block, blocks, unblock
from openguild_runtime.admin.passwords import password
from openguild_runtime.admin.reload import KEYS, SETTABLE, live_settings, token_keys, value_of, with_value
from openguild_runtime.admin.scope import AdminScope, Refused, Request, Response, user_of
from openguild_runtime.admin.usernames import resolve_user
from openguild_runtime.admin.views import list_channels, list_sessions, remembered, snapshot
from openguild_runtime.config.faults import in_words
from openguild_runtime.config.layers import ConfigError
from openguild_runtime.observability import logs
from openguild_runtime.system.unix_socket import serve_unix_socket

REQUEST_TIMEOUT_SECS = 5.0  # to read a request
COMMAND_SECS = 7.0  # below the ten seconds for which `openguild-server admin` waits
ANSWER_SECS = 1.0
AUDIT_SECS = 1.0  # the longest wait for the audit record, because a blocked log must not stop administrators
MAX_REQUEST_BYTES = 4_096

log = structlog.get_logger("openguild.server")
audit = structlog.get_logger(logs.AUDIT)


def show(scope: AdminScope, request: Request) -> Response:
    """Show the settings that can change at run time, the log filter, and the fingerprints of the token keys."""
    del request
    shown = live_settings(scope.live.config)
    return {
        "settings": {key: value for key, value in shown.items() if key in SETTABLE},
        "only_by_reload": {key: value for key, value in shown.items() if key not in SETTABLE},
        "log": logs.current_filter(),
        "token_keys": token_keys(scope.live.config.key_ring()),
    }


def change(scope: AdminScope, request: Request) -> Response:
    """Set one live key."""
    key, value = str(request.get("key")), request.get("value")
    if key not in SETTABLE:
        raise Refused(_why_not(key))
    try:
        scope.live.apply(with_value(scope.live.config, key, value))
    except ValidationError as problem:
        section = type(getattr(scope.live.config, key.partition(".")[0]))
        raise Refused(f"{key}: {in_words(problem, section)}") from None
    except ConfigError as problem:
        raise Refused(str(problem)) from None
    return {"changed": key, "value": value_of(scope.live.config, key)}


def _why_not(key: str) -> str:
    """Return why a key cannot be set and when a change applies, or the closest match of an unknown key."""
    if key in KEYS:
        applies = "at SIGHUP" if KEYS[key].live else "at the next start"
        why = f"{key} cannot be set at run time: set it in the configuration, which applies {applies}; "
    else:
        close = "".join(f"did you mean {name}? " for name in difflib.get_close_matches(key, KEYS, n=1))
        why = f"{key} is not a key: {close}"
    return f"{why}`admin show` lists what can be set"


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
    """Close a user's streams and gateway sockets with a close code for reconnecting. Clients may reconnect to any replica."""
    user = user_of(request)
    if not user:
        raise Refused("name the user")
    found = [
        transport
        for transport in scope.replica.streams.transports()
        if transport.stream is not None and transport.stream.user_id == user
    ]
    for transport in found:
        transport.close(CloseCode.SERVICE_RESTART, reasons.reconnect_after(reasons.CLOSED_BY_OPERATOR, 1_000))
    return {"closed": len(found) + scope.replica.replica.gateway.close_user(user)}


def begin_drain(scope: AdminScope, request: Request) -> Response:
    """Drain the whole server with all its workers, as SIGTERM does. Idempotent."""
    del request
    scope.drain()
    return {"draining": True}


VIEWS: dict[str, Callable[[AdminScope, Request], Awaitable[Response]]] = {
    "channels": list_channels, "sessions": list_sessions, "top": snapshot, "why": remembered,
    "federation": federation, "guild": guild, "block": block, "unblock": unblock, "blocks": blocks,
    "password": password, "delete-account": delete_account,
}  # fmt: skip
COMMANDS: dict[str, Callable[[AdminScope, Request], Response]] = {
    "show": show, "set": change, "log": change_log, "close": close_sessions, "drain": begin_drain,
}  # fmt: skip
CHANGES = frozenset({"set", "log", "close", "drain", "block", "unblock", "password", "delete-account"})
SECRETS = frozenset({"password_hash"})
"""Members of requests that are never logged."""
LOOKS = {"federation": FEDERATION_LOOKS, "guild": GUILD_LOOKS}
"""Actions, by command, that change nothing."""


async def respond(scope: AdminScope, line: bytes, uid: int) -> Response:
    """Run one request and return its response, which has `error` if it failed."""
    try:
        request = msgspec.json.decode(line)  # refuses lone surrogates
        name = request["command"]
        view, command = VIEWS.get(name), COMMANDS.get(name)
        if view is None and command is None:
            raise KeyError(name)
    except (ValueError, KeyError, TypeError, RecursionError):
        commands = ", ".join([*VIEWS, *COMMANDS])
        return {"error": f"expected a command, in a line of UTF-8 of less than {MAX_REQUEST_BYTES} bytes: {commands}"}
    try:
        with anyio.fail_after(COMMAND_SECS):
            named = await resolve_user(scope.storage, request)
            response = await view(scope, named) if view is not None else COMMANDS[name](scope, named)
    except Refused as problem:
        response = {"error": str(problem)}
    except TimeoutError:
        response = {"error": f"not finished within {COMMAND_SECS:g} seconds and cancelled: run the same command again"}
    except Exception:  # a bug must not end the server
        log.exception("admin request failed", command=name)
        response = {"error": "internal error"}
    if name in CHANGES or (name in LOOKS and request.get("action") not in LOOKS[name]):
        told = {member: value for member, value in request.items() if member not in SECRETS}
        audit.warning("admin action", uid=uid, request=told, answer=response)
        with anyio.CancelScope(shield=True):  # a drain ends this task
            await anyio.to_thread.run_sync(logs.flush, AUDIT_SECS)  # so that the record is written before the answer
    return response


async def serve_admin(scope: AdminScope, path: Path) -> None:
    """Serve the socket at `path` until cancelled. The server's user and root may connect."""

    async def serve(stream: SocketStream) -> None:
        line = b""
        with anyio.move_on_after(REQUEST_TIMEOUT_SECS) as reading:
            while not line.endswith(b"\n") and len(line) < MAX_REQUEST_BYTES:
                line += await stream.receive(MAX_REQUEST_BYTES)
        if reading.cancelled_caught:
            return
        response = await respond(scope, line, _uid_of(stream))
        with anyio.move_on_after(ANSWER_SECS, shield=True):  # so that a request to drain is answered too
            await stream.send(json.dumps(response).encode() + b"\n")

    await serve_unix_socket(path, serve)


def _uid_of(stream: SocketStream) -> int:
    """Return the uid of the peer on Linux, else -1."""
    if not hasattr(socket, "SO_PEERCRED"):
        return -1
    raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)  # noqa: S610 - not Django
    credentials = raw.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])
