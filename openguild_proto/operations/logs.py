"""Pages of logs: of a channel, of a guild, of the caller (PROTOCOL 7.6, 7.9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from openguild_proto.effects.base import Operation
from openguild_proto.effects.channels import PageBounds, ReadEvents
from openguild_proto.effects.logs import FindLogHead, FindLogs, ReadLogs
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.event_page import EventPage
from openguild_proto.http.message import JSON, Response
from openguild_proto.limits import (
    DEFAULT_PAGE_EVENTS,
    MAX_PAGE_EVENTS,
    MAX_PROBLEMS,
    MAX_SAFE_INTEGER,
    MAX_SEQUENCE,
    MAX_SYNC_BODY_BYTES,
    MAX_SYNC_LOGS,
)
from openguild_proto.log.log_names import LogKind, log_name
from openguild_proto.log.sync import Followed, News, plan_sync
from openguild_proto.operations.auth import unauthorized
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Limit
from openguild_proto.operations.epochs import (
    LOG_EPOCH,
    LOG_PLACE,
    check_start,
    epoch_header,
    newest_place,
    place_headers,
)
from openguild_proto.operations.owners import read_at_owner
from openguild_proto.operations.paging import count_within_bytes
from openguild_proto.operations.parameters import EPOCH, EVENT_LIMIT, SEQUENCE, SINCE, parse_sequence
from openguild_proto.operations.route import Parameter, in_channel, in_guild, route
from openguild_proto.policy.count_limits import reads_of
from openguild_proto.policy.permissions import Permission
from openguild_proto.records import ChannelAccess, GuildAccess, LogPosition, StoredEvent
from openguild_proto.schemas.decode import parse_uuid
from openguild_proto.schemas.logs import FollowedLog, LogLine, LogNews, SyncedEvent, SyncRequest, SyncResponse
from openguild_proto.schemas.messages import ListedEvent
from openguild_proto.sessions.tokens import TokenProblem

KINDS = frozenset(kind.value for kind in LogKind)

LOG_PAGE = (
    SINCE,
    EPOCH,
    Parameter(
        "before",
        SEQUENCE,
        "exclusive upper bound: the newest page below it; cannot be combined with since",
        parse_sequence,
    ),
    EVENT_LIMIT,
)


def _page_size(query: Mapping[str, Any]) -> int:
    limit: int = query.get("limit", DEFAULT_PAGE_EVENTS)
    return limit


def _page_of(query: Mapping[str, Any]) -> PageBounds | None:
    since, before = query.get("since"), query.get("before")
    return PageBounds(_page_size(query), since, before) if since is None or before is None else None


@route(
    "GET", "/channels/{channel_id}/events", "Read the log", {200: list[ListedEvent]},
    rights=in_channel(Permission.READ), query=LOG_PAGE, response_headers=(LOG_EPOCH,), errors=(ErrorCode.INVALID_SINCE,),
    page_of=_page_of, limits=(Limit.QUERIES, Limit.OWNER_READS),
)  # fmt: skip
def list_events(call: Call[None, ChannelAccess], channel_id: str) -> Operation[Response]:
    """Read a page of a channel's log, oldest first, of at most about a MiB."""
    channel, place = call.access.channel, newest_place(call.access)
    older = yield from _read_older(call, channel.origin, place, channel.base_sequence or 0)
    if isinstance(older, Response):
        return older
    _check_page(call.query, place)
    page = call.access.page or EventPage()
    _require_no_hole(older, call.query, is_empty=not page.events)
    if page.body is None:
        events = _within_bytes(page.events, keep_newest="since" not in call.query)
        page.body = listed_events(channel.channel_id, events)
    return Response(status=200, body=page.body, headers=epoch_header(channel), content_type=JSON)


@route(
    "GET", "/guilds/{guild_id}/log", "Read a guild's log", {200: list[LogLine]},
    rights=in_guild(Permission.READ), query=LOG_PAGE, response_headers=LOG_PLACE, errors=(ErrorCode.INVALID_SINCE,),
    limits=(Limit.QUERIES, Limit.OWNER_READS),
)  # fmt: skip
def list_guild_log(call: Call[None, GuildAccess], guild_id: str) -> Operation[Response]:
    """Read a page of the changes of a guild, its channels, members and invites, with author and reason, oldest first."""
    place = call.access.place
    older = yield from _read_older(call, call.access.guild.origin, place, call.access.base)
    if isinstance(older, Response):
        return older
    page = yield from _read_page(call, place)
    _require_no_hole(older, call.query, is_empty=not page)
    return Response.json(_lines(LogKind.GUILD, page), headers=place_headers(place))


@route(
    "GET", "/users/@me/log", "Read your own log", {200: list[LogLine]},
    query=LOG_PAGE, response_headers=LOG_PLACE, errors=(ErrorCode.INVALID_SINCE,),
)  # fmt: skip
def list_own_log(call: Call[None, None]) -> Operation[Response]:
    """Read a page of the caller's own events: guilds, read positions, mentions, sessions. Oldest first."""
    place = yield from FindLogHead(log_id=call.claims.user_id, reader_id=call.claims.user_id)
    if place is None:  # the account is deleted
        raise unauthorized(TokenProblem.REVOKED)
    page = yield from _read_page(call, place)
    return Response.json(_lines(LogKind.USER, page), headers=place_headers(place))


def _lines(kind: LogKind, page: tuple[StoredEvent, ...]) -> list[LogLine]:
    return [LogLine(log_name(kind, event.log_id), event.sequence, msgspec.Raw(event.wire)) for event in page]


def _read_older(
    call: Call[None, Any], owner: str | None, newest: LogPosition, base: int
) -> Operation[Response | Refusal | None]:
    """Read a page of a mirrored log from its owner, as `read_at_owner`. None: all of the page is here."""
    if owner is None or not _begins_below(call.query, newest.sequence, base):
        return None
    return (yield from read_at_owner(call, owner, newest))


def _require_no_hole(away: Refusal | None, query: Mapping[str, Any], *, is_empty: bool) -> None:
    """Raise the refusal of an offline owner if a page from here would skip events or seem to be the end (PROTOCOL 16.7.4).

    A page backwards ends with the first event that is here. The reader requests those before it, and is refused then.
    """
    if away is not None and ("since" in query or is_empty):
        raise away


def _begins_below(query: Mapping[str, Any], head: int, base: int) -> bool:
    """Whether the page has events that only the owner of a mirrored log has; the log begins here after `base`."""
    since = query.get("since")
    if since is not None:
        return bool(since < base)
    newest = min(query.get("before", head + 1), head + 1) - 1
    return bool(max(newest - _page_size(query), 0) < base)


def _check_page(query: Mapping[str, Any], newest: LogPosition) -> None:
    since = query.get("since")
    if since is not None and "before" in query:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("before", "cannot be combined with since"),))
    check_start(since, query.get("epoch"), newest)


def _within_bytes(page: Sequence[tuple[int, bytes]], *, keep_newest: bool) -> Sequence[tuple[int, bytes]]:
    """Return the part of the page within MAX_PAGE_BYTES, as `_bounded` does."""
    if keep_newest:
        return page[len(page) - count_within_bytes([wire for _, wire in reversed(page)]) :]
    return page[: count_within_bytes([wire for _, wire in page])]


def listed_events(channel_id: str, page: Sequence[tuple[int, bytes]]) -> bytes:
    """Return a list of `ListedEvent` as JSON. It contains the stored bytes of the events, without a Struct for each."""
    if not page:
        return b"[]"
    middle, parts = b',"channel_id":"%b","event":' % channel_id.encode(), [b'[{"sequence":']
    for sequence, wire in page:
        parts += (b"%d" % sequence, middle, wire, b'},{"sequence":')
    parts[-1] = b"}]"
    return b"".join(parts)


def _read_page(call: Call[None, Any], newest: LogPosition) -> Operation[tuple[StoredEvent, ...]]:
    query = call.query
    since, before = query.get("since"), query.get("before")
    _check_page(query, newest)
    events = yield from ReadEvents(
        log_id=newest.log_id,
        limit=_page_size(query),
        after=since,
        before=before,
        reader_id=call.claims.user_id,
    )
    if events is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    return _bounded(events, keep_newest=since is None)


def _bounded(events: tuple[StoredEvent, ...], *, keep_newest: bool) -> tuple[StoredEvent, ...]:
    """Return the part of the page within MAX_PAGE_BYTES, at least one event, from the end at which the reader continues."""
    if keep_newest:
        return events[len(events) - count_within_bytes([event.wire for event in reversed(events)]) :]
    return events[: count_within_bytes([event.wire for event in events])]


@route(
    "POST", "/sync", "Sync several logs", {200: SyncResponse},
    body=SyncRequest, max_body_bytes=MAX_SYNC_BODY_BYTES, limits=(Limit.QUERIES,),
)  # fmt: skip
def sync(call: Call[SyncRequest, None]) -> Operation[Response]:
    """Return the new events of the logs that a client follows, in one response of about a MiB at most."""
    limit = MAX_PAGE_EVENTS if call.body.limit is None else min(max(call.body.limit, 1), MAX_PAGE_EVENTS)
    asked, user_id = _followed(call.body.positions), call.claims.user_id
    _count_reads(call, len(asked))
    found = yield from FindLogs(user_id=user_id, log_ids=tuple(place.log_id for _, place in asked))
    plan = plan_sync(asked, found, user_id=user_id, limit=limit)
    events = (yield from ReadLogs(parts=plan.parts, reader_id=user_id)) if plan.parts else ()
    given: dict[str, list[StoredEvent]] = {}
    for event in events[: count_within_bytes([event.wire for event in events])]:
        given.setdefault(event.log_id, []).append(event)
    lines = [_news_line(news, given.get(news.log_id, [])) for news in plan.news]
    more = any(line.status == "news" and (not line.events or line.events[-1].sequence != line.head) for line in lines)
    return Response.json(SyncResponse(lines, more))


def _count_reads(call: Call[Any, None], logs: int) -> None:
    """Count a request about many logs as several reads, one of which is already counted (PROTOCOL 9.2.10). Raises Refusal."""
    bucket = call.ctx.service.user_queries
    more = min(reads_of(logs), bucket.limit) - 1
    wait_secs = bucket.hit(call.claims.user_id, call.ctx.now, more) if more else None
    if wait_secs is not None:
        raise Limit.QUERIES.refusal(wait_secs)


def _parse_log_name(name: str) -> tuple[LogKind, str] | None:
    kind, colon, text = name.partition(":")
    log_id = parse_uuid(text)
    if not colon or log_id is None or kind not in KINDS:
        return None
    return LogKind(kind), log_id


def _followed(positions: Sequence[FollowedLog]) -> list[Followed]:
    """Parse the places. Raises Refusal with the first MAX_PROBLEMS problems, and does not check the rest."""
    problems: list[FieldProblem] = []
    followed: dict[str, Followed] = {}
    if len(positions) > MAX_SYNC_LOGS:
        problems.append(FieldProblem("positions", f"must be at most {MAX_SYNC_LOGS}"))
    for index, position in enumerate(positions[:MAX_SYNC_LOGS]):
        if len(problems) >= MAX_PROBLEMS:
            break
        field = f"positions[{index}]"
        kind, log_id = _parse_log_name(position.log) or (LogKind.USER, "")
        if not log_id:
            problems.append(FieldProblem(f"{field}.log", "must be channel:, guild: or user: and an id"))
        elif log_id in followed:
            problems.append(FieldProblem(f"{field}.log", "must not be repeated"))
        if not 1 <= position.epoch <= MAX_SAFE_INTEGER:
            problems.append(FieldProblem(f"{field}.epoch", "must be the epoch of a response"))
        if not 0 <= position.sequence <= MAX_SEQUENCE:
            problems.append(FieldProblem(f"{field}.sequence", "must be the sequence of an event, or 0"))
        followed[log_id] = Followed(kind, LogPosition(log_id, position.epoch, position.sequence))
    if problems:
        raise Refusal(ErrorCode.VALIDATION, details=tuple(problems[:MAX_PROBLEMS]))
    return list(followed.values())


def _news_line(news: News, events: list[StoredEvent]) -> LogNews:
    name, newest = log_name(news.kind, news.log_id), news.newest
    if newest is None:
        return LogNews(name, "gone")
    shown = [SyncedEvent(event.sequence, msgspec.Raw(event.wire)) for event in events]
    return LogNews(name, "restarted" if news.restarted else "news", newest.epoch, newest.sequence, shown)
