"""Query parameters that several routes share."""

from __future__ import annotations

from typing import Any

from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.limits import DEFAULT_PAGE_EVENTS, MAX_PAGE_EVENTS, MAX_REASON_CHARS, MAX_SAFE_INTEGER
from openguild_proto.operations.route import Parameter
from openguild_proto.policy.names import text_problem
from openguild_proto.schemas.decode import parse_integer

INTEGER: dict[str, Any] = {"type": "integer"}
STRING: dict[str, Any] = {"type": "string"}
SEQUENCE: dict[str, Any] = {"type": "integer", "minimum": 0}
CLAMPED = "how many at most; beyond the bounds the nearest one counts"

EPOCH = Parameter(
    "epoch",
    {"type": "integer", "minimum": 1, "maximum": MAX_SAFE_INTEGER},
    "which log `since` counts in; another one than the channel's: 400 invalid_since",
    parse_integer,
)


def _parse_reason(name: str, text: str) -> str:
    reason = text.strip()
    problem = text_problem(reason)
    if not 1 <= len(reason) <= MAX_REASON_CHARS:
        problem = f"must be 1 to {MAX_REASON_CHARS} characters long"
    if problem is not None:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem(name, problem),))
    return reason


REASON = Parameter(
    "reason",
    {"type": "string", "minLength": 1, "maxLength": MAX_REASON_CHARS},
    "why; it stands in the log, for everybody who may read it",
    _parse_reason,
)
EVENT_LIMIT = Parameter(
    "limit",
    {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_EVENTS, "default": DEFAULT_PAGE_EVENTS},
    CLAMPED,
    parse_integer,
)
ACCESS_TOKEN = Parameter("access_token", STRING, "the token, where no header can be sent; proxies may log it")
CLIENT_ID = Parameter("client_id", STRING, "ignored")
