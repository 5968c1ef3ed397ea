"""The OpenAPI 3.1 document, made from the schemas, the limits and a table of routes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from openguild_proto.canonical.event import CanonicalEvent
from openguild_proto.effects import Readiness
from openguild_proto.errors import ErrorCode
from openguild_proto.limits import (
    DEFAULT_PAGE_EVENTS,
    MAX_PAGE_EVENTS,
    MAX_PAGE_LINES,
    MAX_REQUEST_ID_CHARS,
    MAX_SAFE_INTEGER,
)
from openguild_proto.operations.routing import CLIENT_PREFIX, UUID_PARAMETERS, Route
from openguild_proto.schemas import accounts, frames, guilds, messages
from openguild_proto.schemas.fields import MANDATORY_MARK, NONCE_PATTERN, SCHEMA_PREFIX
from openguild_proto.ws.close_codes import CLOSE_CODES

_TYPES: tuple[Any, ...] = (
    Readiness, accounts.Credentials, accounts.Registered, accounts.Login, accounts.RefreshToken, accounts.TokenPair,
    accounts.DeviceLine, accounts.Me, guilds.Name, guilds.Guild, guilds.Channel, guilds.RoleBody, guilds.Member,
    guilds.NewInvite, guilds.Invite, guilds.InvitePreview, messages.PostMessage, messages.PostedMessage,
    messages.ListedEvent, messages.MarkReadBody, messages.ReadPosition, CanonicalEvent, frames.MessageContent,
    frames.StreamFrame, frames.NotificationFrame,
)  # fmt: skip
_UNION = "NotificationFrame"  # has no component of its own in msgspec's answer

Schema = dict[str, Any]

_INTEGER: Schema = {"type": "integer"}
_STRING: Schema = {"type": "string"}
_SEQUENCE: Schema = {"type": "integer", "minimum": 0}
_EPOCH: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_SAFE_INTEGER}
_EPOCH_MEANS = "which log `since` counts in; another one than the channel's: 400 invalid_since"
_EVENTS_LIMIT: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_EVENTS, "default": DEFAULT_PAGE_EVENTS}
_PAGE_LIMIT: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_LINES, "default": MAX_PAGE_LINES}
_CLAMPED = "how many at most; beyond the bounds the nearest one counts"
_TOKEN = ("access_token", _STRING, "the token, where no header can be sent; proxies may log it")
_CLIENT_ID = ("client_id", _STRING, "ignored")

_QUERY: dict[str, tuple[tuple[str, Schema, str], ...]] = {
    "messages.list_events": (
        ("since", _SEQUENCE, "exclusive lower bound; 400 together with before"),
        ("epoch", _EPOCH, _EPOCH_MEANS),
        ("before", _SEQUENCE, "exclusive upper bound: the newest page below it; 400 together with since"),
        ("limit", _EVENTS_LIMIT, _CLAMPED),
    ),
    "streams.open_channel_stream": (
        ("since", _SEQUENCE, "the last sequence the client has; beyond the newest: 400 invalid_since"),
        ("epoch", _EPOCH, _EPOCH_MEANS),
        _TOKEN,
        _CLIENT_ID,
    ),
    "streams.open_notification_stream": (("since", _INTEGER, "ignored"), _TOKEN, _CLIENT_ID),
    "guilds.list_guilds": (("all", {"type": "boolean"}, "true: every guild; server moderators and above, else 403"),),
}
_PAGED = {
    "guilds.list_guilds", "channels.list_channels", "members.list_members", "invites.list_invites", "reads.list_unread",
}  # fmt: skip
_PAGE = (
    ("limit", _PAGE_LIMIT, _CLAMPED),
    ("after", _STRING, "the X-Next-After of the page before; also the id of a line that is in the list"),
)
_OPTIONAL_BODIES = {"NewInvite", "MarkReadBody"}
_OF_A_LOG = {"messages.list_events", "streams.open_channel_stream"}
_NONCED = "messages.post_message"
_FRAMES = {"streams.open_channel_stream": "StreamFrame", "streams.open_notification_stream": _UNION}
_LIMITED = {
    "messages.post_message", "users.register", "sessions.login", "sessions.refresh", "sessions.revoke", *_FRAMES,
}  # fmt: skip

_PLAIN: dict[str, dict[str, Any]] = {  # answers that have no schema of their own
    "health.health": {"text/plain": {"schema": {"const": "ok"}}},
    "health.live": {"text/plain": {"schema": {"const": "ok"}}},
    "health.metrics": {"text/plain": {"schema": {"type": "string", "description": "Prometheus text format 0.0.4"}}},
    "health.version": {
        "application/json": {
            "schema": {"type": "object", "properties": {"version": {"type": "string"}}, "required": ["version"]}
        }
    },
    "description.openapi": {"application/json": {"schema": {"type": "object"}}},
}

_HEADERS: dict[str, Schema] = {
    "X-Request-Id": {
        "description": "the request's own id where it sent a good one, else a new one; it is in every log line",
        "required": True,
        "schema": {"type": "string", "pattern": f"^[A-Za-z0-9._:-]{{1,{MAX_REQUEST_ID_CHARS}}}$"},
    },
    "X-Next-After": {
        "description": "the `after` of the next page, opaque; absent on the last",
        "schema": {"type": "string"},
    },
    "X-OpenGuild-Epoch": {
        "description": "which log the channel's sequences count in: the `epoch` to send with `since`",
        "required": True,
        "schema": _EPOCH,
    },
    "Retry-After": {"description": "seconds to wait; with 429 and 503", "schema": {"type": "integer", "minimum": 1}},
    "WWW-Authenticate": {"description": "with 401", "schema": {"type": "string"}},
    "Allow": {"description": "with 405: the methods that are answered", "schema": {"type": "string"}},
}

_ABOUT = (
    "Every client route stands at the root and under /client/v1. A request may bring `X-Request-Id`; every answer has "
    "one. Every error has the one shape `Error`. Lengths count after trimming."
)


def build_openapi(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """A fresh document as plain dicts and lists; `version`: of the server."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        prefixes = ("", CLIENT_PREFIX) if route.client else ("",)
        for prefix in prefixes:
            paths.setdefault(prefix + route.template, {})[route.method.lower()] = _operation(route, prefix)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "OpenGuild",
            "version": version,
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "the server that gave this document"}],
        "paths": paths,
        "components": {
            "schemas": build_schemas(),
            "headers": _HEADERS,
            "responses": {
                "Error": _error_response("a typed error", *_HEADERS.keys() - {"X-Next-After", "X-OpenGuild-Epoch"})
            },
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "x-close-codes": {
            str(int(code)): {"action": row.action, "meaning": row.meaning} for code, row in CLOSE_CODES.items()
        },
    }


def build_schemas() -> dict[str, Schema]:
    """Every component schema by its name."""
    answers, components = msgspec.json.schema_components(_TYPES, ref_template=SCHEMA_PREFIX + "{name}")
    union = answers[_TYPES.index(frames.NotificationFrame)]
    schemas: dict[str, Schema] = msgspec.json.decode(
        msgspec.json.encode({**components, _UNION: union})
    )  # defaults come as tuples, and JSON has none
    for schema in schemas.values():
        _require_mandatory(schema)
    event = schemas["CanonicalEvent"]
    event["required"] = list(event["properties"])  # the defaults are for who builds one; on the wire all are there
    for member in event["properties"].values():
        member.pop("default", None)
    event["properties"]["content"] = {"$ref": SCHEMA_PREFIX + "MessageContent"}
    event["properties"]["event_id"]["pattern"] = "^\\$[1-9A-HJ-NP-Za-km-z]{32,44}$"
    event["properties"]["origin_ts"]["description"] = "UTC milliseconds: informs, does not order"
    for name in ("room_id", "sender"):
        event["properties"][name]["format"] = "uuid"
    readiness = schemas["Readiness"]["properties"]
    readiness["status"]["enum"] = ["ready", "degraded", "unavailable", "draining"]
    return {**schemas, "Error": _error_schema()}


def _require_mandatory(schema: Schema) -> None:
    """Members that only read as blank when absent, so that one answer names every problem, are required all the same."""
    for name, member in schema.get("properties", {}).items():
        if member.pop(MANDATORY_MARK, False):
            member.pop("default", None)
            schema["required"].append(name)
            kinds = [kind for kind in member.pop("anyOf", []) if kind != {"type": "null"}]
            member.update(*kinds)


def _operation(route: Route, prefix: str) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": f"{'client.' if prefix else ''}{route.name}"
        + (f".{route.method}{route.template}" if route.status == 501 else ""),
        "summary": route.summary,
        "x-permission": route.permission,
        "parameters": [*_path_parameters(route), *_query_parameters(route), *_header_parameters(route)],
        "responses": _responses(route),
    }
    if route.name in _FRAMES:
        schema = _FRAMES[route.name]
        described["description"] = f"After the upgrade each text frame is one `{schema}` ({SCHEMA_PREFIX}{schema})."
        described["x-frames"] = _reference(schema)
    if route.auth in {"bearer", "socket"}:
        described["security"] = [{"bearer": []}]
    if route.body is not None:
        described["requestBody"] = {
            "required": route.body not in _OPTIONAL_BODIES,
            "content": {"application/json": {"schema": _reference(route.body)}},
        }
    return described


def _responses(route: Route) -> dict[str, Any]:
    if route.status == 501:
        return {"501": {"$ref": "#/components/responses/Error"}}
    success: dict[str, Any] = {"description": route.summary, "headers": _header_references("X-Request-Id")}
    if route.answer is not None:
        success["content"] = {"application/json": {"schema": _reference(route.answer)}}
    elif route.name in _PLAIN:
        success["content"] = _PLAIN[route.name]
    if route.name in _PAGED:
        success["headers"] |= _header_references("X-Next-After")
    if route.name in _OF_A_LOG:
        success["headers"] |= _header_references("X-OpenGuild-Epoch")
    responses = {str(route.status): success, "default": {"$ref": "#/components/responses/Error"}}
    if route.auth in {"bearer", "socket"}:
        responses["401"] = _error_response("no valid bearer token", "X-Request-Id", "WWW-Authenticate")
    if route.name in _LIMITED:
        responses["429"] = _error_response("too many; wait", "X-Request-Id", "Retry-After")
    if route.name == "health.ready":
        responses["503"] = {
            "description": "unavailable or draining",
            "headers": _header_references("X-Request-Id", "Retry-After"),
            "content": success["content"],
        }
    return responses


def _reference(name: str) -> Schema:
    if name.startswith("["):
        return {"type": "array", "items": _reference(name[1:-1])}
    return {"$ref": SCHEMA_PREFIX + name}


def _header_references(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in sorted(names)}


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    names = [segment[1:-1] for segment in route.template.split("/") if segment.startswith("{")]
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "format": "uuid"} if name in UUID_PARAMETERS else {"type": "string"},
        }
        for name in names
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    rows = _QUERY.get(route.name, ()) + (_PAGE if route.name in _PAGED else ())
    return [{"name": name, "in": "query", "description": text, "schema": schema} for name, schema, text in rows]


def _header_parameters(route: Route) -> list[dict[str, Any]]:
    if route.name != _NONCED:
        return []
    text = "the nonce, where the body has none; both only when they are equal"
    schema = {"type": "string", "pattern": NONCE_PATTERN}
    return [{"name": "Idempotency-Key", "in": "header", "description": text, "schema": schema}]


def _error_response(description: str, *headers: str) -> dict[str, Any]:
    references = _header_references(*headers)
    return {
        "description": description,
        "headers": references,
        "content": {"application/json": {"schema": {"$ref": SCHEMA_PREFIX + "Error"}}},
    }


def _error_schema() -> Schema:
    problem = {
        "type": "object",
        "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
        "required": ["field", "message"],
    }
    return {
        "type": "object",
        "properties": {
            "error": {"type": "string", "enum": sorted({code.spec.code for code in ErrorCode})},
            "message": {"type": "string"},
            "request_id": {"type": "string"},
            "details": {"type": "array", "items": problem},
        },
        "required": ["error", "message", "request_id"],
    }
