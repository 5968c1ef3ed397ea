"""Builds error responses (PROTOCOL 3.6), for operations and for the connection."""

from __future__ import annotations

from math import ceil
from typing import Any

import msgspec

from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.http.message import JSON, Headers, Response


def refusal_response(refusal: Refusal, request_id: str, *, route: str = "unmatched", close: bool = False) -> Response:
    """Return the response `{"error", "message", "request_id", "details"?, "limit"?, "retry_after_ms"?}` (PROTOCOL 3.6.1).

    It has WWW-Authenticate with 401, unless a signature is invalid, and Retry-After with 429 and 503.
    """
    body: dict[str, Any] = {"error": refusal.code.spec.code, "message": refusal.message, "request_id": request_id}
    body |= refusal.members
    if refusal.details:
        body["details"] = [problem._asdict() for problem in refusal.details]
    if refusal.limit is not None:
        body["limit"] = refusal.limit
    status = refusal.code.spec.status
    headers: Headers = refusal.headers
    if status == 401 and refusal.code is not ErrorCode.SIGNATURE_INVALID:
        headers = (*headers, ("www-authenticate", "Bearer"))
    if refusal.wait_secs is not None or status in {429, 503}:
        wait_ms = ceil((refusal.wait_secs or 1) * 1_000)
        body["retry_after_ms"] = wait_ms
        headers = (*headers, ("retry-after", str(-(-wait_ms // 1_000))))
    return Response(
        status=status,
        body=msgspec.json.encode(body),
        headers=headers,
        content_type=JSON,
        rejection=refusal.reason,
        route=route,
        close=close,
        log_cause=refusal.log_cause,
        user_id=refusal.log_user,
        error=refusal.code.spec.code,
        detail=_detail(refusal),
    )


def _detail(refusal: Refusal) -> str | None:
    parts = [f"{problem.field} {problem.message}" for problem in refusal.details]
    if refusal.message != refusal.code.spec.message:
        parts.insert(0, refusal.message)
    if refusal.limit is not None:
        parts.append(f"limit: {refusal.limit}")
    return "; ".join(parts) or None


def error_response(code: ErrorCode, request_id: str, *, route: str = "unmatched", close: bool = False) -> Response:
    """Return the response for a code with its default message."""
    return refusal_response(Refusal(code), request_id, route=route, close=close)
