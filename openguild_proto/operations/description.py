"""Descriptions of the server for machines: OpenAPI for its routes, AsyncAPI for its sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

import msgspec

from openguild_proto.effects.base import Operation
from openguild_proto.http.message import JSON, Response
from openguild_proto.operations.asyncapi import build_asyncapi
from openguild_proto.operations.call import Call
from openguild_proto.operations.openapi import ASYNCAPI_PATH, build_openapi
from openguild_proto.operations.route import Media, Route

DOCUMENT = Media(JSON, {"type": "object"})


def describing(routes: Callable[[], Iterable[Route]]) -> tuple[Route, ...]:
    """Return the routes that describe `routes`, a callable because these are some of them."""

    @cache
    def openapi_document(version: str) -> bytes:
        return msgspec.json.encode(build_openapi(routes(), version))

    @cache
    def asyncapi_document(version: str, host: str) -> bytes:
        return msgspec.json.encode(build_asyncapi(routes(), version, host))

    def openapi(call: Call[None, None]) -> Operation[Response]:
        yield from ()
        return Response(status=200, body=openapi_document(call.ctx.service.settings.version), content_type=JSON)

    def asyncapi(call: Call[None, None]) -> Operation[Response]:
        yield from ()
        settings = call.ctx.service.settings
        body = asyncapi_document(settings.version, settings.server_name)
        return Response(status=200, body=body, content_type=JSON)

    return (
        Route(
            "GET", "/openapi.json", openapi, "OpenAPI of the routes", {200: DOCUMENT}, auth="none", query=None, client=False
        ),
        Route(
            "GET", ASYNCAPI_PATH, asyncapi, "AsyncAPI of the sockets", {200: DOCUMENT}, auth="none", query=None, client=False
        ),
    )  # fmt: skip
