"""GET /openapi.json: the server describes itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

import msgspec

from openguild_proto.effects import Operation
from openguild_proto.http.message import JSON, Request, Response
from openguild_proto.operations.context import Context
from openguild_proto.operations.openapi import build_openapi
from openguild_proto.operations.routing import OperationFunction, Route


def describing(routes: Callable[[], Iterable[Route]]) -> OperationFunction:
    """The operation that describes `routes`: called late, because it is itself in their table."""

    @cache
    def document(version: str) -> bytes:
        return msgspec.json.encode(build_openapi(routes(), version))

    def openapi(ctx: Context, request: Request) -> Operation[Response]:
        """GET /openapi.json"""
        del request
        yield from ()
        return Response(status=200, body=document(ctx.service.settings.version), content_type=JSON)

    return openapi
