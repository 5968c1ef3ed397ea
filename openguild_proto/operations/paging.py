"""Optional paging of lists (D-61): `?limit&after`, and the next page's `after` in `X-Next-After`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import Request, Response
from openguild_proto.limits import MAX_PAGE_LINES
from openguild_proto.schemas.decode import integer_parameter, parse_query, parse_uuid

T = TypeVar("T")


class Page(NamedTuple):
    """`limit` lines after the one with the id `after`."""

    limit: int
    after: str | None
    query: dict[str, str]


def parse_page(request: Request, *more: str) -> Page:
    """`limit` is clamped to 1..1000, which is also the default; `after` must be a UUID. Raises Refusal."""
    query = parse_query(request, "limit", "after", *more)
    limit = integer_parameter(query, "limit")
    after = query.get("after")
    parsed = parse_uuid(after) if after is not None else None
    if after is not None and parsed is None:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("after", "must be a UUID"),))
    return Page(MAX_PAGE_LINES if limit is None else min(max(limit, 1), MAX_PAGE_LINES), parsed, query)


def page_response(page: Page, records: Sequence[T], show: Callable[[T], Any], key: Callable[[T], str]) -> Response:
    """The array, as on the legacy paths; `records` were read with `page.limit + 1`, so that a further page shows."""
    shown = records[: page.limit]
    headers = (("x-next-after", key(shown[-1])),) if len(records) > page.limit else ()
    return Response.json([show(record) for record in shown], headers=headers)
