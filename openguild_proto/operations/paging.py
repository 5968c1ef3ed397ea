"""Paging of lists (PROTOCOL 3.5): `?limit&after`, and the next page's `after` in `X-Next-After`.

A cursor holds the sort key of the last line, so it works after that row is deleted, and reveals no row that the caller
cannot see. Clients of the previous release send the last line's id, which must be in the list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from openguild_proto.effects.base import Operation
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import Headers, Response
from openguild_proto.limits import MAX_PAGE_BYTES, MAX_PAGE_LINES, MAX_TIME_MS
from openguild_proto.operations.parameters import CURSOR_TIME, page_limit
from openguild_proto.operations.route import Parameter
from openguild_proto.records import PageCursor
from openguild_proto.schemas.decode import parse_uuid
from openguild_proto.schemas.fields import UUID_PATTERN

T = TypeVar("T")

NEXT_AFTER = "X-Next-After"
NEXT_CURSOR = "X-Next-Cursor"

_CURSOR = re.compile(r"([0-9]{1,15})\.(.{1,64})", re.ASCII)


class Page(NamedTuple):
    """The requested page: `limit` lines after `after`, a cursor or the id of a line."""

    limit: int
    after: PageCursor | str | None


def parse_cursor(text: str, parse_key: Callable[[str], str | None]) -> PageCursor | None:
    """Return the cursor of a page; None: the text is not a cursor."""
    cursor = _CURSOR.fullmatch(text)
    if cursor is None:
        return None
    at_ms, key = int(cursor[1]), parse_key(cursor[2])
    return PageCursor(at_ms, key) if key is not None and at_ms <= MAX_TIME_MS else None


def paged_by(parse_key: Callable[[str], str | None], key_pattern: str) -> tuple[Parameter, ...]:
    """Return the query parameters of a list. `parse_key` parses the id of a line, which `key_pattern` describes."""

    def parse_after(name: str, text: str) -> PageCursor | str:
        after = parse_cursor(text, parse_key) or parse_key(text)
        if after is None:
            raise _after_problem()
        return after

    after = "the X-Next-After of the previous page, opaque"
    cursor = {"type": "string", "pattern": rf"^{CURSOR_TIME}\.{key_pattern}$"}
    return page_limit(MAX_PAGE_LINES, MAX_PAGE_LINES), Parameter("after", cursor, after, parse_after)


PAGE = paged_by(parse_uuid, UUID_PATTERN)


def asked_page(query: Mapping[str, Any]) -> Page:
    """Return the page that a query of `paged_by` requests."""
    return Page(query.get("limit", MAX_PAGE_LINES), query.get("after"))


def start_of(page: Page, find: Callable[[str], Operation[PageCursor | None]]) -> Operation[PageCursor | None]:
    """Return the cursor of the page. `find(id)` returns the cursor of a line that the caller may see. Raises Refusal."""
    if not isinstance(page.after, str):
        return page.after
    place = yield from find(page.after)
    if place is None:
        raise _after_problem()
    return place


def _after_problem() -> Refusal:
    return Refusal(ErrorCode.VALIDATION, details=(FieldProblem("after", f"must be the {NEXT_AFTER} of a page"),))


def count_within_bytes(wires: Collection[bytes]) -> int:
    """Return how many of the first events fit in MAX_PAGE_BYTES, at least one."""
    if sum(map(len, wires)) <= MAX_PAGE_BYTES:
        return len(wires)
    size = count = 0
    for wire in wires:
        size += len(wire)
        if count and size > MAX_PAGE_BYTES:
            break
        count += 1
    return count


def page_response(
    page: Page,
    records: Sequence[T],
    show: Callable[[T], Any],
    place: Callable[[T], PageCursor],
    *,
    header: str = NEXT_AFTER,
    headers: Headers = (),
) -> Response:
    """Return the response with an array. `records` were read with `page.limit + 1`, which shows whether a page follows."""
    shown = records[: page.limit]
    following = ((header.lower(), _cursor(place(shown[-1]))),) if len(records) > page.limit else ()
    return Response.json([show(record) for record in shown], headers=(*following, *headers))


def _cursor(place: PageCursor) -> str:
    return f"{place.at_ms}.{place.key}"
