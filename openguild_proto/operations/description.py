"""GET /openapi.json: the server describes itself."""

from __future__ import annotations

from functools import cache

import msgspec

from openguild_proto.effects import Operation
from openguild_proto.http.message import JSON, Request, Response
from openguild_proto.operations.context import Context
from openguild_proto.operations.openapi import build_openapi


@cache
def _document(version: str) -> bytes:
    return msgspec.json.encode(build_openapi(version))


def openapi(ctx: Context, request: Request) -> Operation[Response]:
    """GET /openapi.json"""
    del request
    yield from ()
    return Response(status=200, body=_document(ctx.service.settings.version), content_type=JSON)
