"""The caller's mentions (PROTOCOL 7.10)."""

from __future__ import annotations

import re

from openguild_proto.effects.base import Operation
from openguild_proto.effects.mentions import ListMentions
from openguild_proto.http.message import Response
from openguild_proto.operations.call import Call
from openguild_proto.operations.paging import NEXT_AFTER, asked_page, page_response, paged_by, start_of
from openguild_proto.operations.parameters import switch
from openguild_proto.operations.route import route
from openguild_proto.records import MentionRecord, PageCursor
from openguild_proto.schemas.fields import EVENT_ID_PATTERN
from openguild_proto.schemas.folded_messages import mention_line
from openguild_proto.schemas.messages import Mention

UNREAD = switch("unread", "true: only those that are not read yet")


_EVENT_ID = re.compile(EVENT_ID_PATTERN)


def _parse_event_id(text: str) -> str | None:
    return text if _EVENT_ID.fullmatch(text) else None


@route(
    "GET", "/inbox", "List your mentions", {200: list[Mention]},
    query=(UNREAD, *paged_by(_parse_event_id, EVENT_ID_PATTERN.strip("^$"))), response_headers=(NEXT_AFTER,),
)  # fmt: skip
def list_inbox(call: Call[None, None]) -> Operation[Response]:
    """List the messages that mention the caller, newest first; reading their channel clears them."""
    page = asked_page(call.query)
    after = yield from start_of(page, _no_line)
    unread = call.query.get("unread", False)
    mentions = yield from ListMentions(user_id=call.claims.user_id, unread=unread, limit=page.limit + 1, after=after)
    return page_response(page, mentions, mention_line, _cursor_of)


def _no_line(_: str) -> Operation[PageCursor | None]:
    """Find no line by its id, because only a cursor has the time of a mention."""
    yield from ()
    return None


def _cursor_of(mention: MentionRecord) -> PageCursor:
    return PageCursor(mention.created_at_ms, mention.event_id)
