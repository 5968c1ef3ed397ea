"""Messages: post with a nonce (PROTOCOL 7.4, 7.5)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import msgspec

from openguild_proto.effects.base import Operation
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import Response
from openguild_proto.limits import (
    MAX_MESSAGE_BODY_BYTES,
    MAX_MESSAGE_CHARS,
    MAX_PROBLEMS,
)
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Limit
from openguild_proto.operations.idempotency import IDEMPOTENCY_KEY, asked_nonce
from openguild_proto.operations.posting import fingerprint_of, post_event
from openguild_proto.operations.route import in_channel, route
from openguild_proto.policy.mentions import find_mentions
from openguild_proto.policy.permissions import ROLES, Permission, normalise_role
from openguild_proto.records import ChannelAccess, Reply
from openguild_proto.schemas.decode import parse_uuid
from openguild_proto.schemas.fields import EVENT_ID_PATTERN
from openguild_proto.schemas.messages import AllowedMentions, PostedMessage, PostMessage

_EVENT_ID = re.compile(EVENT_ID_PATTERN)


@route(
    "POST", "/channels/{channel_id}/messages", "Post a message", {200: PostedMessage},
    rights=in_channel(Permission.SEND_MESSAGES, late=True), body=PostMessage, max_body_bytes=MAX_MESSAGE_BODY_BYTES,
    limits=(Limit.MESSAGES,), errors=(ErrorCode.SENDER_MISMATCH, ErrorCode.NONCE_REUSED, ErrorCode.MESSAGE_REDACTED),
    request_headers=(IDEMPOTENCY_KEY,),
)  # fmt: skip
def post_message(call: Call[PostMessage, ChannelAccess], channel_id: str) -> Operation[Response]:
    """Post a message (`post_event`)."""
    claims, body = call.claims, call.body
    text = checked_text(body.content)
    nonce = asked_nonce(call.request, body.nonce)
    sender = (body.sender or "").strip()
    if sender and parse_uuid(sender) != claims.user_id:
        raise Refusal(ErrorCode.SENDER_MISMATCH)
    reply_to = None if body.reply_to is None else checked_event_id("reply_to", body.reply_to)
    change = None if reply_to is None else Reply(target=reply_to)
    allowed = _checked_allowance(body.allowed_mentions) if body.allowed_mentions is not None else None
    members: dict[str, Any] = {"content": text}
    if reply_to is not None:
        members["reply_to"] = reply_to
    fingerprint, mentions = fingerprint_of("message", reply_to, text), find_mentions(text)
    return (yield from post_event(call, channel_id, "message", members, nonce, fingerprint, change, mentions, allowed))


def _checked_allowance(allowed: AllowedMentions) -> AllowedMentions:
    users, roles = allowed.users, allowed.roles
    problems = _wrong_entries("users", users or (), parse_uuid, "must be a UUID")
    problems += _wrong_entries("roles", roles or (), normalise_role, f"must be one of: {', '.join(ROLES)}")
    if problems:
        raise Refusal(ErrorCode.VALIDATION, details=tuple(problems[:MAX_PROBLEMS]))
    return msgspec.structs.replace(
        allowed,
        users=None if users is None else [user for user in map(parse_uuid, users) if user is not None],
        roles=None if roles is None else [role for role in map(normalise_role, roles) if role is not None],
    )


def _wrong_entries(
    member: str, entries: Sequence[str], parse: Callable[[str], str | None], message: str
) -> list[FieldProblem]:
    """Return only the first problems: a body may have 20,000 entries, and a refused one counts against no limit."""
    wrong = (at for at, entry in enumerate(entries) if parse(entry) is None)
    return [FieldProblem(f"allowed_mentions.{member}[{at}]", message) for at in islice(wrong, MAX_PROBLEMS)]


def checked_text(content: str) -> str:
    """Return the trimmed text of a message. Raises Refusal 400."""
    text = content.strip()
    if not text:
        raise _content_problem("must be provided", "message_empty")
    if len(text) > MAX_MESSAGE_CHARS:
        raise _content_problem(f"must be at most {MAX_MESSAGE_CHARS} characters long", "message_length")
    if "\0" in text:  # PostgreSQL's jsonb cannot hold it (PROTOCOL 1.3.6)
        raise _content_problem("must not contain NUL", "validation")
    return text


def _content_problem(message: str, reason: str) -> Refusal:
    return Refusal(ErrorCode.VALIDATION, details=(FieldProblem("content", message),), reason=reason)


def checked_event_id(field: str, text: str) -> str:
    """Return the event id. Raises Refusal 400 for a text that cannot be an event id."""
    if _EVENT_ID.fullmatch(text) is None:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem(field, "must be an event id"),))
    return text
