"""Searching messages (PROTOCOL 7.11)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from openguild_proto.effects.base import Operation
from openguild_proto.effects.search import SearchHit, SearchMessages, SearchTooWide
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import Response
from openguild_proto.limits import (
    DEFAULT_SEARCH_HITS,
    MAX_QUERY_CHARS,
    MAX_QUERY_PARTS,
    MAX_QUERY_PLACES,
    MAX_SEARCH_HITS,
)
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Limit
from openguild_proto.operations.paging import NEXT_CURSOR, Page, page_response, parse_cursor
from openguild_proto.operations.parameters import CURSOR_TIME, page_limit
from openguild_proto.operations.route import Parameter, route
from openguild_proto.policy.search import Has, Phrase, SearchConditions, parse_phrases
from openguild_proto.records import PageCursor
from openguild_proto.schemas.decode import parse_uuid
from openguild_proto.schemas.fields import ID_EXAMPLE, UUID_PATTERN
from openguild_proto.schemas.search import SearchResult
from openguild_proto.timestamps import to_millis

_PLACE = re.compile(r"(.{36}):0[0-9]{18}", re.ASCII)  # sequences never reach the length of a bigint
_MOMENT: dict[str, Any] = {
    "type": "string", "anyOf": [{"format": "date"}, {"format": "date-time"}], "examples": ["2026-11-27", "2026-11-27T12:00:00Z"],
}  # fmt: skip


def _problem(name: str, message: str) -> Refusal:
    return Refusal(ErrorCode.VALIDATION, details=(FieldProblem(name, message),))


def _parse_query(name: str, text: str) -> tuple[Phrase, ...]:
    if len(text) > MAX_QUERY_CHARS:
        raise _problem(name, f"must be at most {MAX_QUERY_CHARS} characters long")
    phrases = parse_phrases(text)
    if sum(map(len, phrases)) > MAX_QUERY_PARTS:
        raise _problem(name, f"must be at most {MAX_QUERY_PARTS} words, or characters of a script without spaces")
    if text.strip() and not phrases:
        raise _problem(name, "must contain a letter, a digit or a symbol")
    return phrases


def _parse_id(name: str, text: str) -> str:
    found = parse_uuid(text.strip())
    if found is None:
        raise _problem(name, "must be a UUID")
    return found


def _listed(parse: Callable[[str, str], Any]) -> Callable[[str, str], tuple[Any, ...]]:
    def parse_list(name: str, text: str) -> tuple[Any, ...]:
        items = text.split(",")
        if len(items) > MAX_QUERY_PLACES:
            raise _problem(name, f"must be at most {MAX_QUERY_PLACES}")
        return tuple(dict.fromkeys(parse(name, item) for item in items))

    return parse_list


def _parse_has(name: str, text: str) -> Has:
    try:
        return Has(text.strip().lower())
    except ValueError:
        raise _problem(name, f"must be of {', '.join(has.value for has in Has)}") from None


def _parse_moment(name: str, text: str) -> int:
    moment = to_millis(text)
    if moment is None:
        raise _problem(name, "must be a date or an RFC 3339 timestamp")
    return moment


def _parse_behind(name: str, text: str) -> PageCursor:
    cursor = parse_cursor(text, _parse_place)
    if cursor is None:
        raise _problem(name, f"must be the {NEXT_CURSOR} header of a page")
    return cursor


def _parse_place(text: str) -> str | None:
    place = _PLACE.fullmatch(text)
    return text if place is not None and parse_uuid(place[1]) == place[1] else None


_IDS: dict[str, Any] = {
    "type": "string", "pattern": f"^{UUID_PATTERN}(,{UUID_PATTERN}){{0,{MAX_QUERY_PLACES - 1}}}$", "examples": [ID_EXAMPLE],
}  # fmt: skip
_KINDS = f"({'|'.join(has.value for has in Has)})"
_HAS: dict[str, Any] = {
    "type": "string", "pattern": f"^{_KINDS}(,{_KINDS}){{0,{MAX_QUERY_PLACES - 1}}}$", "examples": ["link"],
}  # fmt: skip
_CURSOR: dict[str, Any] = {"type": "string", "pattern": rf"^{CURSOR_TIME}\.{UUID_PATTERN}:0[0-9]{{18}}$"}

QUERY = (
    Parameter("q", {"type": "string", "maxLength": MAX_QUERY_CHARS}, "words, and phrases in quotes", _parse_query),
    Parameter("from", {"type": "string", "format": "uuid"}, "the author", _parse_id),
    Parameter("in", _IDS, "ids of channels and guilds, comma-separated", _listed(_parse_id)),
    Parameter("before", _MOMENT, "only messages posted before this time", _parse_moment),
    Parameter("after", _MOMENT, "only messages posted at or after this time", _parse_moment),
    Parameter("has", _HAS, f"comma-separated: {', '.join(has.value for has in Has)}", _listed(_parse_has)),
    page_limit(MAX_SEARCH_HITS, DEFAULT_SEARCH_HITS),
    Parameter("cursor", _CURSOR, f"the {NEXT_CURSOR} of the previous page", _parse_behind),
)


@route(
    "GET", "/search/messages", "Search messages", {200: list[SearchResult]},
    query=QUERY, limits=(Limit.SEARCHES,), errors=(ErrorCode.SEARCH_TOO_WIDE,), response_headers=(NEXT_CURSOR,),
)  # fmt: skip
def search_messages(call: Call[None, None]) -> Operation[Response]:
    """Find messages in their present state, newest first, in channels that the caller may read."""
    query = call.query
    wanted = SearchConditions(
        phrases=query.get("q", ()),
        author_id=query.get("from"),
        places=query.get("in", ()),
        since_ms=query.get("after"),
        until_ms=query.get("before"),
        has=frozenset(query.get("has", ())),
    )
    if not wanted.phrases and wanted.author_id is None and not wanted.has:
        raise _problem("q", "or from or has must be provided")
    page = Page(query.get("limit", DEFAULT_SEARCH_HITS), query.get("cursor"))
    found = yield from SearchMessages(
        reader_id=call.claims.user_id, wanted=wanted, limit=page.limit + 1, behind=query.get("cursor")
    )
    if isinstance(found, SearchTooWide):
        raise Refusal(ErrorCode.SEARCH_TOO_WIDE)

    def show(hit: SearchHit) -> SearchResult:
        return SearchResult.of(hit, wanted.phrases)

    return page_response(page, found, show, lambda hit: hit.place, header=NEXT_CURSOR)
