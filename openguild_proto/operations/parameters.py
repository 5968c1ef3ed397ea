"""Query parameters that several routes share."""

from __future__ import annotations

from typing import Any

from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.limits import (
    DEFAULT_PAGE_EVENTS,
    MAX_EMOJI_CHARS,
    MAX_PAGE_EVENTS,
    MAX_REASON_CHARS,
    MAX_SAFE_INTEGER,
    MAX_SEQUENCE,
)
from openguild_proto.operations.route import Parameter
from openguild_proto.policy.emoji import shown_emoji
from openguild_proto.policy.names import text_problem
from openguild_proto.schemas.decode import parse_clamped, parse_integer
from openguild_proto.schemas.fields import text_schema

CURSOR_TIME = "[0-9]{1,14}"  # of a cursor, in ms
STRING: dict[str, Any] = {"type": "string"}
SEQUENCE: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": MAX_SEQUENCE}


def page_limit(most: int, default: int) -> Parameter:
    """Return the parameter `limit` of a page, from 1 to `most`. A value beyond these bounds is no error."""

    def parse_limit(name: str, text: str) -> int:
        return min(max(parse_clamped(name, text), 1), most)

    schema = {"type": "integer", "default": default}
    return Parameter("limit", schema, f"1 to {most} lines; a value outside counts as the nearest bound", parse_limit)


def _parse_boolean(name: str, text: str) -> bool:
    if text not in {"true", "false"}:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem(name, "must be true or false"),))
    return text == "true"


def switch(name: str, text: str) -> Parameter:
    """Return a parameter that is true or false; absent: false."""
    return Parameter(name, {"type": "boolean", "default": False}, text, _parse_boolean)


def parse_sequence(name: str, text: str) -> int:
    """Parse a sequence, 0 included. Raises Refusal."""
    return _at_least(0, name, parse_integer(name, text), "must not be negative")


def _parse_since(name: str, text: str) -> int:
    return _at_least(0, name, parse_clamped(name, text), "must not be negative")  # however large: beyond the newest


def _parse_epoch(name: str, text: str) -> int:
    return _at_least(1, name, parse_integer(name, text), "must be positive")


def _at_least(least: int, name: str, value: int, problem: str) -> int:
    if value < least:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem(name, problem),))
    return value


SINCE = Parameter(
    "since",
    SEQUENCE,
    "the last sequence that the client has: the answer starts after it; beyond the newest one: 400 invalid_since",
    _parse_since,
)
EPOCH = Parameter(
    "epoch",
    {"type": "integer", "minimum": 1, "maximum": MAX_SAFE_INTEGER},
    "the epoch of `since`; if it is not the log's current epoch: 400 invalid_since",
    _parse_epoch,
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
    text_schema(1, MAX_REASON_CHARS, "spam"),
    "the reason; everybody who may read the log can see it",
    _parse_reason,
)


def _parse_emoji(name: str, text: str) -> str:
    return shown_emoji(text)


EMOJI = Parameter(
    "emoji",
    text_schema(1, MAX_EMOJI_CHARS, "\N{WAVING HAND SIGN}", format="emoji"),
    "the emoji, in the form of the message; absent: all emoji",
    _parse_emoji,
)
EVENT_LIMIT = page_limit(MAX_PAGE_EVENTS, DEFAULT_PAGE_EVENTS)
ACCESS_TOKEN = Parameter("access_token", STRING, "the token, for clients that cannot send a header; proxies may log it")
CLIENT_ID = Parameter("client_id", STRING, "ignored")
