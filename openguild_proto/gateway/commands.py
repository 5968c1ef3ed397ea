"""Translates commands to HTTP requests, so that the operations, limits and error codes are the same (PROTOCOL 15.4)."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.frames import AnyCommand, Edit, Err, Ok, Post, Problem, React, Read, Redact, Typing
from openguild_proto.http.message import JSON, Request, Response

_encode = msgspec.json.Encoder().encode


class _ErrorBody(msgspec.Struct):
    """The members of an error body that are copied to `err`."""

    error: str = "server_error"
    message: str = ""
    details: list[Problem] = []
    retry_after_ms: int | None = None


_errors = msgspec.json.Decoder(_ErrorBody)


def request_of(command: AnyCommand, *, token: str, request_id: str, client_address: str) -> Request:
    """Return the HTTP request of a command. `token`: the socket's. The key becomes `Idempotency-Key` (PROTOCOL 7.5.1)."""
    method, path, query, body = _parts(command)
    headers = [("authorization", f"Bearer {token}")]
    key = key_of(command)
    if key is not None:
        headers.append(("idempotency-key", key))
    if body is not None:
        headers.append(("content-type", JSON))
    return Request(
        method=method,
        path=path,
        query=query,
        headers=tuple(headers),
        body=b"" if body is None else _encode(body),
        request_id=request_id,
        client_address=client_address,
    )


def key_of(command: AnyCommand) -> str | None:
    """Return the key of a command. None: it has none, or it can be repeated without effect."""
    return None if isinstance(command, (Read, Typing)) else command.key


def _parts(command: AnyCommand) -> tuple[str, str, str, dict[str, Any] | None]:
    channel = f"/channels/{command.channel_id}"
    match command:
        case Post(content=content, reply_to=reply_to, allowed_mentions=allowed):
            given = {"reply_to": reply_to, "allowed_mentions": allowed}
            more = {name: value for name, value in given.items() if value is not None}
            return "POST", f"{channel}/messages", "", {"content": content, **more}
        case Edit(event_id=event_id, content=content):
            return "PATCH", f"{channel}/events/{event_id}", "", {"content": content}
        case Redact(event_id=event_id, reason=reason):
            return "DELETE", f"{channel}/events/{event_id}", "" if reason is None else f"reason={quote(reason)}", None
        case React(event_id=event_id, emoji=emoji, action=action):
            return "POST", f"{channel}/events/{event_id}/reactions", "", {"emoji": emoji, "action": action}
        case Read(sequence=sequence):
            return "POST", f"{channel}/read", "", {} if sequence is None else {"sequence": sequence}
        case Typing(preview=None):
            return "POST", f"{channel}/typing", "", None
        case Typing(preview=preview):
            return "POST", f"{channel}/typing-preview", "", {"preview": preview}


def answer_of(ref: int, response: Response, encoding: Encoding) -> Ok | Err:
    """Return the frame for a response. The response's body is copied unchanged."""
    if response.status < 400:
        return Ok(ref, encoding.raw(response.body) if response.body else None)
    body = _errors.decode(response.body)
    return Err(ref, body.error, body.message, retry_after_ms=body.retry_after_ms, details=body.details)
