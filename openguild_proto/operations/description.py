"""GET /openapi.json."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

import msgspec

from openguild_proto.effects.base import Operation
from openguild_proto.http.message import JSON, Response
from openguild_proto.operations.call import Call
from openguild_proto.operations.openapi import build_openapi
from openguild_proto.operations.route import Media, Route

DOCUMENT = Media(JSON, {"type": "object"})


def describing(routes: Callable[[], Iterable[Route]]) -> Route:
    """Return the route that describes `routes`, a callable because the route is itself one of them."""

    @cache
    def document(version: str) -> bytes:
        return msgspec.json.encode(build_openapi(routes(), version))

    def openapi(call: Call[None, None]) -> Operation[Response]:
        yield from ()
        return Response(status=200, body=document(call.ctx.service.settings.version), content_type=JSON)

    return Route(
        "GET", "/openapi.json", openapi, "This description", {200: DOCUMENT}, auth="none", query=None, client=False
    )
