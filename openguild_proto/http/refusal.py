"""Builds the responses with a typed error (PROTOCOL 3.6), for operations and for the connection."""

from __future__ import annotations

from typing import Any

import msgspec

from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.http.message import JSON, Headers, Response


def refusal_response(refusal: Refusal, request_id: str, *, route: str = "unmatched", close: bool = False) -> Response:
    """Return the response `{"error", "message", "request_id", "details"?}`.

    It has WWW-Authenticate with 401, and Retry-After with 429 and 503.
    """
    body: dict[str, Any] = {"error": refusal.code.spec.code, "message": refusal.message, "request_id": request_id}
    if refusal.details:
        body["details"] = [problem._asdict() for problem in refusal.details]
    status = refusal.code.spec.status
    headers: Headers = refusal.headers
    if status == 401:
        headers = (*headers, ("www-authenticate", "Bearer"))
    if refusal.retry_after_secs is not None or status in {429, 503}:
        headers = (*headers, ("retry-after", str(max(1, refusal.retry_after_secs or 1))))
    return Response(
        status=status,
        body=msgspec.json.encode(body),
        headers=headers,
        content_type=JSON,
        rejection=refusal.reason,
        route=route,
        close=close,
    )


def error_response(code: ErrorCode, request_id: str, *, route: str = "unmatched", close: bool = False) -> Response:
    """Return the response for a code with its default message."""
    return refusal_response(Refusal(code), request_id, route=route, close=close)
