"""Builds the OpenAPI 3.1 document from the routes and their schemas."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

import msgspec

from openguild_proto.canonical.event import CanonicalEvent
from openguild_proto.errors import ErrorCode
from openguild_proto.limits import MAX_REQUEST_ID_CHARS
from openguild_proto.operations.epochs import LOG_EPOCH, LOG_HEAD
from openguild_proto.operations.paging import NEXT_AFTER, NEXT_CURSOR
from openguild_proto.operations.parameters import EPOCH
from openguild_proto.operations.route import Media, Parameter, Route
from openguild_proto.operations.router import CLIENT_PREFIX, UUID_PARAMETERS
from openguild_proto.schemas.events import CONTENTS, RedactedContent
from openguild_proto.schemas.fields import MANDATORY_MARK, SCHEMA_PREFIX
from openguild_proto.schemas.messages import Reaction
from openguild_proto.ws.close_codes import CLOSE_CODES

Schema = dict[str, Any]

# Only other schemas refer to them: they are raw bytes in answers.
_BESIDE = (CanonicalEvent, Reaction, *CONTENTS.values(), RedactedContent)

_HEADERS: dict[str, Schema] = {
    "X-Request-Id": {
        "description": "the request's own id where it sent a good one, else a new one; it is in every log line",
        "required": True,
        "schema": {"type": "string", "pattern": f"^[A-Za-z0-9._:-]{{1,{MAX_REQUEST_ID_CHARS}}}$"},
    },
    NEXT_AFTER: {
        "description": "the `after` of the next page, opaque; absent on the last",
        "schema": {"type": "string"},
    },
    NEXT_CURSOR: {
        "description": "the `cursor` of the next page, opaque; absent on the last",
        "schema": {"type": "string"},
    },
    LOG_EPOCH: {
        "description": "which log the sequences count in: the `epoch` to send with `since`",
        "required": True,
        "schema": EPOCH.schema,
    },
    LOG_HEAD: {
        "description": "the sequence of the log up to which the answer is true: fold the events behind it",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    },
    "Retry-After": {"description": "seconds to wait; with 429 and 503", "schema": {"type": "integer", "minimum": 1}},
    "WWW-Authenticate": {"description": "with 401", "schema": {"type": "string"}},
    "Allow": {"description": "with 405: the methods that are answered", "schema": {"type": "string"}},
}
_ERROR_HEADERS = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}

_ABOUT = (
    "Every client route stands at the root and under /client/v1. A request may bring `X-Request-Id`; every answer has "
    "one. Every error has the one shape `Error`. Lengths count after trimming."
)


def build_openapi(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """Return a new document as plain dicts and lists. `version`: of the server."""
    routes = list(routes)
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
            "schemas": build_schemas(routes),
            "headers": _HEADERS,
            "responses": {
                "Error": _error_response(*_HEADERS.keys() - {NEXT_AFTER, NEXT_CURSOR, LOG_EPOCH, LOG_HEAD}),
                **{
                    f"Error{status}": _error_response("X-Request-Id", *names)
                    for status, names in _ERROR_HEADERS.items()
                },
            },
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "x-close-codes": {
            str(int(code)): {"action": row.action, "meaning": row.meaning} for code, row in CLOSE_CODES.items()
        },
    }


def build_schemas(routes: Iterable[Route]) -> dict[str, Schema]:
    """Return all component schemas by name, in the order of the routes."""
    types: dict[str, Any] = {}  # by the text of the type: a list cannot be compared with a union
    for route in routes:
        for kind in (route.body, *route.responses.values(), route.frames):
            if kind is not None and not isinstance(kind, Media):
                types[str(kind)] = kind
    _, components = msgspec.json.schema_components((*types.values(), *_BESIDE), ref_template=SCHEMA_PREFIX + "{name}")
    unions = {_name(kind): _union(kind) for kind in types.values() if not _is_list(kind) and not isinstance(kind, type)}
    schemas: dict[str, Schema] = msgspec.json.decode(
        msgspec.json.encode({**components, **unions})
    )  # turns defaults that are tuples into lists
    for schema in schemas.values():
        _require_mandatory(schema)
    event = schemas["CanonicalEvent"]
    event["required"] = list(event["properties"])  # the defaults are for builders; on the wire all members are present
    for member in event["properties"].values():
        member.pop("default", None)
    contents = [_schema(kind) for kind in dict.fromkeys((*CONTENTS.values(), RedactedContent))]
    event["properties"]["content"] = {"anyOf": contents}
    event["properties"]["event_id"]["pattern"] = "^\\$[1-9A-HJ-NP-Za-km-z]{32,44}$"
    event["properties"]["origin_ts"]["description"] = "UTC milliseconds: informs, does not order"
    event["properties"]["room_id"] |= {
        "description": "of the channel, guild or user whose log it is in",
        "format": "uuid",
    }
    event["properties"]["sender"]["description"] = "a user; the server's name where its operator made the change"
    readiness = schemas["Readiness"]["properties"]
    readiness["status"]["enum"] = ["ready", "degraded", "unavailable", "draining"]
    return {**schemas, "Error": _error_schema()}


def _union(kind: Any) -> Schema:
    (described,), _ = msgspec.json.schema_components((kind,), ref_template=SCHEMA_PREFIX + "{name}")
    return {key: value for key, value in described.items() if key != "title"}


def _require_mandatory(schema: Schema) -> None:
    """Mark members as required that have a default in the Struct but are refused when absent."""
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
        "parameters": [
            *_path_parameters(route),
            *_parameters("query", route.query or ()),
            *_parameters("header", route.request_headers),
        ],
        "responses": _responses(route),
    }
    if route.limits:
        described["x-limits"] = [limit.text for limit in route.limits]
    if route.frames is not None:
        schema = _name(route.frames)
        described["description"] = f"After the upgrade each text frame is one `{schema}` ({SCHEMA_PREFIX}{schema})."
        described["x-frames"] = _schema(route.frames)
    if route.needs_token:
        described["security"] = [{"bearer": []}]
    if route.body is not None:
        described["requestBody"] = {
            "required": route.body_required,
            "content": {"application/json": {"schema": _schema(route.body)}},
        }
    return described


def _responses(route: Route) -> dict[str, Any]:
    if route.status == 501:
        return {"501": {"$ref": "#/components/responses/Error"}}
    responses: dict[str, Any] = {}
    for status, kind in route.responses.items():
        more = route.response_headers if status == route.status else _ERROR_HEADERS.get(status, ())
        text = route.summary if status == route.status else f"{route.summary}: not now"
        response: dict[str, Any] = {"description": text, "headers": _header_references("X-Request-Id", *more)}
        if kind is not None:
            content_type = kind.content_type if isinstance(kind, Media) else "application/json"
            response["content"] = {content_type: {"schema": _schema(kind)}}
        responses[str(status)] = response
    for status, codes in groupby(route.error_codes, key=lambda code: code.spec.status):
        reference = f"#/components/responses/Error{status if status in _ERROR_HEADERS else ''}"
        responses[str(status)] = {"$ref": reference, "description": ", ".join(code.spec.code for code in codes)}
    responses["default"] = {"$ref": "#/components/responses/Error"}
    return responses


def _schema(kind: Any) -> Schema:
    if isinstance(kind, Media):
        return kind.schema
    if _is_list(kind):
        return {"type": "array", "items": _schema(kind.__args__[0])}
    return {"$ref": SCHEMA_PREFIX + _name(kind)}


def schema_name(kind: Any) -> str:
    """Return a schema's name for the tables: `Guild`, `[Guild]` for a list, "" without one."""
    if kind is None or isinstance(kind, Media):
        return ""
    return f"[{_name(kind.__args__[0])}]" if _is_list(kind) else _name(kind)


def _is_list(kind: Any) -> bool:
    return getattr(kind, "__origin__", None) is list


def _name(kind: Any) -> str:
    """Return the name of a Struct, or the title of a union."""
    if isinstance(kind, type):
        return kind.__name__
    titles = [str(meta.title) for meta in getattr(kind, "__metadata__", ()) if isinstance(meta, msgspec.Meta)]
    return titles[0]


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


def _parameters(place: str, parameters: Iterable[Parameter]) -> list[dict[str, Any]]:
    return [{"name": row.name, "in": place, "description": row.text, "schema": row.schema} for row in parameters]


def _error_response(*headers: str) -> dict[str, Any]:
    return {
        "description": "a typed error",
        "headers": _header_references(*headers),
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
