"""Typing signals (PROTOCOL 7.12)."""

from __future__ import annotations

from openguild_proto.effects.base import Operation
from openguild_proto.effects.process import Announce
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.hints import TypingHint
from openguild_proto.http.message import Response
from openguild_proto.limits import MAX_TYPING_CHARS
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Limit
from openguild_proto.operations.route import in_channel, route
from openguild_proto.policy.permissions import Permission
from openguild_proto.records import ChannelAccess
from openguild_proto.schemas.messages import TypingPreview


@route(
    "POST", "/channels/{channel_id}/typing", "Send a typing indicator", {204: None},
    rights=in_channel(Permission.SEND_MESSAGES), limits=(Limit.TYPING,), at_owner=False, for_remote=False,
)  # fmt: skip
def signal_typing(call: Call[None, ChannelAccess], channel_id: str) -> Operation[Response]:
    """Tell the readers of the channel that the caller is typing."""
    yield from Announce(TypingHint(channel_id, call.claims.user_id))
    return Response.empty()


@route(
    "POST", "/channels/{channel_id}/typing-preview", "Send a typing preview", {204: None},
    rights=in_channel(Permission.SEND_MESSAGES), limits=(Limit.TYPING,), body=TypingPreview, at_owner=False, for_remote=False,
)  # fmt: skip
def preview_typing(call: Call[TypingPreview, ChannelAccess], channel_id: str) -> Operation[Response]:
    """Tell those who watch the channel what the caller is writing, trimmed; an empty preview: nothing any more."""
    preview = call.body.preview.strip()
    problem = "must not contain NUL" if "\0" in preview else None
    if len(preview) > MAX_TYPING_CHARS:
        problem = f"must be at most {MAX_TYPING_CHARS} characters long"
    if problem is not None:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("preview", problem),))
    yield from Announce(TypingHint(channel_id, call.claims.user_id, preview))
    return Response.empty()
