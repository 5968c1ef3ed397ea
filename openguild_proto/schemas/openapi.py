"""The OpenAPI 3.1 document, made from the schemas and the route table."""

from __future__ import annotations

from typing import Any

import msgspec

from openguild_proto.effects import Readiness
from openguild_proto.errors import ErrorCode
from openguild_proto.http.routes import CLIENT_PREFIX, ROUTES, UUID_PARAMETERS, Route
from openguild_proto.schemas import accounts, guilds, messages
from openguild_proto.ws.close_codes import CLOSE_CODES

_TYPES: tuple[type, ...] = (
    Readiness, accounts.Credentials, accounts.Registered, accounts.Login, accounts.RefreshToken, accounts.TokenPair,
    accounts.DeviceLine, accounts.Me, guilds.Name, guilds.Guild, guilds.Channel, guilds.RoleBody, guilds.Member,
    guilds.NewInvite, guilds.Invite, guilds.InvitePreview, messages.PostMessage, messages.PostedMessage,
    messages.ListedEvent, messages.MarkReadBody, messages.ReadPosition,
)  # fmt: skip
_SCHEMA_PREFIX = "#/components/schemas/"

_QUERY: dict[str, tuple[tuple[str, str, str], ...]] = {
    "messages.list_events": (
        ("since", "integer", "exclusive lower bound"),
        ("before", "integer", "exclusive upper bound; not with since"),
        ("limit", "integer", "1 to 200, default 50"),
    ),
    "streams.open_channel_stream": (
        ("since", "integer", "last sequence the client has"),
        ("access_token", "string", "where no header can be sent"),
        ("client_id", "string", "ignored"),
    ),
    "streams.open_notification_stream": (("access_token", "string", "where no header can be sent"),),
    "guilds.list_guilds": (("all", "boolean", "every guild: server moderators and above"),),
}
_PAGED = {"guilds.list_guilds", "channels.list_channels", "members.list_members", "reads.list_unread"}
_PAGE = (("limit", "integer", "1 to 1000, default 1000"), ("after", "string", "id of the last line of the page before"))


def build_openapi(version: str) -> dict[str, Any]:
    """A fresh document as plain dicts and lists."""
    _, components = msgspec.json.schema_components(_TYPES, ref_template=_SCHEMA_PREFIX + "{name}")
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        prefixes = ("", CLIENT_PREFIX) if route.client else ("",)
        for prefix in prefixes:
            paths.setdefault(prefix + route.template, {})[route.method.lower()] = _operation(route, prefix)
    return {
        "openapi": "3.1.0",
        "info": {"title": "OpenGuild", "version": version, "license": {"name": "MIT", "identifier": "MIT"}},
        "paths": paths,
        "components": {
            "schemas": components | {"Error": _error_schema()},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "x-close-codes": {
            str(int(code)): {"action": row.action, "meaning": row.meaning} for code, row in CLOSE_CODES.items()
        },
    }


def _operation(route: Route, prefix: str) -> dict[str, Any]:
    success: dict[str, Any] = {"description": route.summary}
    if route.answer is not None:
        success["content"] = {"application/json": {"schema": _reference(route.answer)}}
    responses = {str(route.status): success, "default": _error_response()}
    if route.status == 501:
        responses = {"501": _error_response()}
    described: dict[str, Any] = {
        "operationId": f"{'client.' if prefix else ''}{route.operation}"
        + (f".{route.method}{route.template}" if route.status == 501 else ""),
        "summary": route.summary,
        "x-permission": route.permission,
        "parameters": [*_path_parameters(route), *_query_parameters(route)],
        "responses": responses,
    }
    if route.auth in {"bearer", "socket"}:
        described["security"] = [{"bearer": []}]
    if route.body is not None:
        described["requestBody"] = {"content": {"application/json": {"schema": _reference(route.body)}}}
    return described


def _reference(name: str) -> dict[str, Any]:
    if name.startswith("["):
        return {"type": "array", "items": _reference(name[1:-1])}
    return {"$ref": _SCHEMA_PREFIX + name}


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
    rows = _QUERY.get(route.operation, ()) + (_PAGE if route.operation in _PAGED else ())
    return [{"name": name, "in": "query", "description": text, "schema": {"type": kind}} for name, kind, text in rows]


def _error_response() -> dict[str, Any]:
    return {
        "description": "a typed error",
        "content": {"application/json": {"schema": {"$ref": _SCHEMA_PREFIX + "Error"}}},
    }


def _error_schema() -> dict[str, Any]:
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
