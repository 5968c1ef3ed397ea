"""Builds the OpenAPI 3.1 document from the routes and their schemas."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from openguild_proto.errors import ErrorCode
from openguild_proto.limits import MAX_REQUEST_ID_CHARS
from openguild_proto.operations.component_schemas import Schema, build_schemas, schema_of
from openguild_proto.operations.epochs import LOG_EPOCH, LOG_HEAD
from openguild_proto.operations.examples import example_of
from openguild_proto.operations.paging import NEXT_AFTER, NEXT_CURSOR
from openguild_proto.operations.parameters import EPOCH
from openguild_proto.operations.path_parameters import PATH_PARAMETERS
from openguild_proto.operations.route import Media, Parameter, Route
from openguild_proto.operations.router import CLIENT_PREFIX
from openguild_proto.schemas.fields import ID_EXAMPLE, SCHEMA_PREFIX

ASYNCAPI_PATH = "/asyncapi.json"

_REQUEST_ID = {"type": "string", "pattern": f"^[A-Za-z0-9._:-]{{1,{MAX_REQUEST_ID_CHARS}}}$"}
_HEADERS: dict[str, Schema] = {
    "X-Request-Id": {
        "description": "the id of the request: the one that it sent, if valid, or a new one; it is in every log line",
        "required": True,
        "schema": _REQUEST_ID,
    },
    NEXT_AFTER: {
        "description": "the `after` of the next page, opaque; absent on the last page",
        "schema": {"type": "string"},
    },
    NEXT_CURSOR: {
        "description": "the `cursor` of the next page, opaque; absent on the last page",
        "schema": {"type": "string"},
    },
    LOG_EPOCH: {
        "description": "the log's epoch: the `epoch` to send with `since`",
        "required": True,
        "schema": EPOCH.schema,
    },
    LOG_HEAD: {
        "description": "the answer includes all events of the log up to this sequence: apply the events after it",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    },
    "RateLimit-Policy": {
        "description": "the limits of the route, if it sends any (draft-ietf-httpapi-ratelimit-headers)",
        "schema": {"type": "string"},
    },
    "RateLimit": {"description": "the remaining requests within these limits", "schema": {"type": "string"}},
    "Cache-Control": {"description": "how long the answer may be cached", "schema": {"type": "string"}},
    "Retry-After": {"description": "seconds to wait", "required": True, "schema": {"type": "integer", "minimum": 1}},
    "WWW-Authenticate": {
        "description": "how to authenticate",
        "required": True,
        "schema": {"type": "string", "const": "Bearer"},
    },
    "Allow": {"description": "the supported methods", "required": True, "schema": {"type": "string"}},
    "Upgrade": {
        "description": "the protocol of this route",
        "required": True,
        "schema": {"type": "string", "const": "websocket"},
    },
    "Sec-WebSocket-Version": {"description": "RFC 6455", "schema": {"type": "string", "const": "13"}},
    "Sec-WebSocket-Accept": {"description": "RFC 6455 4.2.2", "required": True, "schema": {"type": "string"}},
    "Sec-WebSocket-Protocol": {
        "description": "the chosen subprotocol; absent if the client offered none",
        "schema": {"type": "string"},
    },
}
_ERROR_HEADERS = {
    401: ("WWW-Authenticate",),
    405: ("Allow",),
    426: ("Upgrade", "Sec-WebSocket-Version"),
    429: ("Retry-After",),
    503: ("Retry-After",),
}
_UPGRADED = ("Upgrade", "Sec-WebSocket-Accept", "Sec-WebSocket-Protocol")
_LIMITED = ("RateLimit-Policy", "RateLimit")

_ABOUT = (
    f"Client routes are under {CLIENT_PREFIX}, and also at the root, where clients of the first implementation expect them. "
    "A request may have an `X-Request-Id`; every answer has one. Every error is an `ApiError`; an operation lists its codes "
    "in `x-error-codes`. Lengths count after trimming. The formats `username`, `title` and `emoji` stand for rules that a "
    "pattern cannot express: those of names, of one-line texts, and of emoji."
)
SECURITY_SCHEMES: dict[str, Schema] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "an access token"},
    "subprotocol": {
        "type": "apiKey",
        "in": "header",
        "name": "Sec-WebSocket-Protocol",
        "description": "for browsers: the token as a subprotocol, as in `openguild.v1, bearer.<token>`; the server never echoes it",
    },
    "query": {
        "type": "apiKey",
        "in": "query",
        "name": "access_token",
        "description": "for clients that cannot send a header; proxies may log it",
    },
    "server": {
        "type": "apiKey",
        "in": "header",
        "name": "Signature",
        "description": "between servers: Signature-Input and Signature (RFC 9421), with Content-Digest",
    },
}
_SECURITY: Mapping[str, list[dict[str, list[str]]]] = {
    "bearer": [{"bearer": []}],
    "socket": [{"bearer": []}, {"subprotocol": []}, {"query": []}],
    "gateway": [{}, {"bearer": []}, {"subprotocol": []}],
    "none": [],
    "refresh": [],
    "server": [{"server": []}],
}


def build_openapi(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """Return a new document as plain dicts and lists. `version`: the server's release."""
    routes = list(routes)
    schemas = build_schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(documented_path(route), {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "OpenGuild",
            "version": version,
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "the root of the server that returned this document"}],
        "externalDocs": {"url": ASYNCAPI_PATH, "description": "the messages of the sockets, as AsyncAPI"},
        "tags": [_tag(route) for route in {route.module: route for route in routes}.values()],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "headers": _HEADERS,
            "responses": {
                "Error": _error_response("any error", schemas),
                **{
                    f"Error{status}": _error_response("a typed error", schemas, *names)
                    for status, names in _ERROR_HEADERS.items()
                },
            },
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


def documented_path(route: Route) -> str:
    """Return the one path under which a route is described."""
    return (CLIENT_PREFIX if route.client else "") + route.template


def operation_id(route: Route) -> str:
    """Return the name of an operation, for generated clients: letters, digits and underscores."""
    if route.status != 501:
        return route.operation.__name__
    words = [word.strip("{}").replace("-", "_") for word in route.template.split("/")[1:]]
    return "_".join((route.method.lower(), *words))


def _tag(route: Route) -> dict[str, str]:
    about = (sys.modules[route.operation.__module__].__doc__ or "").strip().splitlines()[0]
    return {"name": route.module, "description": about.partition(" (PROTOCOL")[0].rstrip(".")}


def _operation(route: Route, schemas: Mapping[str, Schema]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation_id(route),
        "tags": [route.module],
        "summary": route.summary,
        "x-permission": route.permission,
        "parameters": [
            *_path_parameters(route),
            *_parameters("query", route.query or ()),
            *_parameters("header", route.request_headers),
        ],
        "responses": _responses(route, schemas),
        "security": _SECURITY[route.auth],
    }
    if route.limits:
        described["x-limits"] = [limit.text for limit in route.limits]
    if route.error_codes:
        described["x-error-codes"] = [code.spec.code for code in route.error_codes]
    if route.auth in {"socket", "gateway"}:
        described["description"] = "An upgrade to WebSocket (RFC 6455); its messages are described as AsyncAPI."
        described["externalDocs"] = {"url": ASYNCAPI_PATH}
    if route.body is not None:
        schema = schema_of(route.body)
        described["requestBody"] = {
            "required": route.body_required,
            "content": {"application/json": {"schema": schema, "example": example_of(schema, schemas)}},
        }
    return described


def _responses(route: Route, schemas: Mapping[str, Schema]) -> dict[str, Any]:
    limited = _LIMITED if any(limit.policies for limit in route.limits) else ()
    responses: dict[str, Any] = {}
    error = {"$ref": "#/components/responses/Error"}
    if route.status == 501:
        responses["501"] = {**error, "description": ErrorCode.NOT_IMPLEMENTED.spec.message}
    for status, kind in route.responses.items() if route.status != 501 else ():
        more = route.response_headers if status == route.status else _ERROR_HEADERS.get(status, ())
        upgraded = _UPGRADED if status == 101 else ()
        response: dict[str, Any] = {
            "description": route.summary if status == route.status else f"{route.summary}: not now",
            "headers": _header_references("X-Request-Id", *more, *limited, *upgraded),
        }
        if kind is not None:
            content_type = kind.content_type if isinstance(kind, Media) else "application/json"
            schema = schema_of(kind)
            response["content"] = {content_type: {"schema": schema, "example": example_of(schema, schemas)}}
        responses[str(status)] = response
    for status, codes in groupby(route.error_codes, key=lambda code: code.spec.status):
        text = "; ".join(f"`{code.spec.code}`: {code.spec.message}" for code in codes)
        reference = f"#/components/responses/Error{status if status in _ERROR_HEADERS else ''}"
        responses[str(status)] = {"$ref": reference, "description": text}
    responses["default"] = error
    return responses


def _header_references(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in sorted(names)}


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    names = [segment[1:-1] for segment in route.template.split("/") if segment.startswith("{")]
    return [{"name": name, "in": "path", "required": True, **PATH_PARAMETERS[name]} for name in names]


def _parameters(place: str, parameters: Iterable[Parameter]) -> list[dict[str, Any]]:
    return [{"name": row.name, "in": place, "description": row.text, "schema": row.schema} for row in parameters]


def _error_response(text: str, schemas: Mapping[str, Schema], *headers: str) -> dict[str, Any]:
    schema = {"$ref": SCHEMA_PREFIX + "ApiError"}
    example = {"error": "not_found", "message": ErrorCode.NOT_FOUND.spec.message, "request_id": ID_EXAMPLE}
    return {
        "description": text,
        "headers": _header_references("X-Request-Id", *_LIMITED, *headers),
        "content": {"application/json": {"schema": schema, "example": example}},
    }
