"""Logs in pages: a channel's, a guild's, one's own (PROTOCOL 7.6, 7.9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from openguild_proto.effects.base import Operation
from openguild_proto.effects.channels import ReadEvents
from openguild_proto.effects.logs import FindLogs, FindPlace, ReadLogs
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import Response
from openguild_proto.limits import (
    DEFAULT_PAGE_EVENTS,
    MAX_PAGE_EVENTS,
    MAX_SAFE_INTEGER,
    MAX_SEQUENCE,
    MAX_SYNC_BODY_BYTES,
    MAX_SYNC_LOGS,
)
from openguild_proto.log.names import LogKind, log_name
from openguild_proto.log.sync import Followed, News, plan_sync
from openguild_proto.operations.call import Call
from openguild_proto.operations.epochs import LOG_EPOCH, LOG_PLACE, check_epoch, epoch_header, place_headers
from openguild_proto.operations.paging import count_within_bytes
from openguild_proto.operations.parameters import EPOCH, EVENT_LIMIT, SEQUENCE
from openguild_proto.operations.route import Parameter, in_channel, in_guild, route
from openguild_proto.policy.permissions import Permission
from openguild_proto.records import ChannelAccess, GuildAccess, LogPlace, StoredEvent
from openguild_proto.schemas.decode import parse_integer, parse_uuid
from openguild_proto.schemas.logs import FollowedLog, LogLine, LogNews, SyncedEvent, SyncRequest, SyncResponse
from openguild_proto.schemas.messages import ListedEvent

MAX_PROBLEMS = 20  # told of one request
KINDS = frozenset(kind.value for kind in LogKind)

LOG_PAGE = (
    Parameter("since", SEQUENCE, "exclusive lower bound; 400 together with before", parse_integer),
    EPOCH,
    Parameter(
        "before", SEQUENCE, "exclusive upper bound: the newest page below it; 400 together with since", parse_integer
    ),
    EVENT_LIMIT,
)


@route(
    "GET", "/channels/{channel_id}/events", "Read the log", {200: list[ListedEvent]},
    rights=in_channel(Permission.READ), query=LOG_PAGE, response_headers=(LOG_EPOCH,), errors=(ErrorCode.INVALID_SINCE,),
)  # fmt: skip
def list_events(call: Call[None, ChannelAccess], channel_id: str) -> Operation[Response]:
    """Read a page of a channel's log, oldest first, of about a MiB at most."""
    channel = call.access.channel
    page = yield from _read_page(call.query, channel_id, channel.epoch)
    lines = [ListedEvent(event.sequence, event.log_id, msgspec.Raw(event.wire)) for event in page]
    return Response.json(lines, headers=epoch_header(channel))


@route(
    "GET", "/guilds/{guild_id}/log", "Read a guild's log", {200: list[LogLine]},
    rights=in_guild(Permission.READ), query=LOG_PAGE, response_headers=LOG_PLACE, errors=(ErrorCode.INVALID_SINCE,),
)  # fmt: skip
def list_guild_log(call: Call[None, GuildAccess], guild_id: str) -> Operation[Response]:
    """Read what happened to a guild, its channels, members and invites, who did it and why: a page, oldest first."""
    place = call.access.place
    page = yield from _read_page(call.query, guild_id, place.epoch)
    return Response.json(_lines(LogKind.GUILD, page), headers=place_headers(place))


@route(
    "GET", "/users/@me/log", "Read one's own log", {200: list[LogLine]},
    query=LOG_PAGE, response_headers=LOG_PLACE, errors=(ErrorCode.INVALID_SINCE,),
)  # fmt: skip
def list_own_log(call: Call[None, None]) -> Operation[Response]:
    """Read what concerns the caller on all their devices: guilds, read positions, mentions, sessions. Oldest first."""
    place = yield from FindPlace(log_id=call.claims.user_id)
    if place is None:  # the account is deleted
        raise Refusal(ErrorCode.UNAUTHORIZED)
    page = yield from _read_page(call.query, place.log_id, place.epoch)
    return Response.json(_lines(LogKind.USER, page), headers=place_headers(place))


def _lines(kind: LogKind, page: tuple[StoredEvent, ...]) -> list[LogLine]:
    return [LogLine(log_name(kind, event.log_id), event.sequence, msgspec.Raw(event.wire)) for event in page]


def _read_page(query: Mapping[str, Any], log_id: str, epoch: int) -> Operation[tuple[StoredEvent, ...]]:
    since, before = query.get("since"), query.get("before")
    if since is not None and before is not None:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("before", "cannot be combined with since"),))
    check_epoch(query.get("epoch"), since, epoch)
    events = yield from ReadEvents(
        log_id=log_id,
        limit=min(max(query.get("limit", DEFAULT_PAGE_EVENTS), 1), MAX_PAGE_EVENTS),
        after=max(since, 0) if since is not None else None,
        before=max(before, 0) if before is not None else None,
    )
    if events is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    return _bounded(events, keep_newest=since is None)


def _bounded(events: tuple[StoredEvent, ...], *, keep_newest: bool) -> tuple[StoredEvent, ...]:
    """Return the part of the page within MAX_PAGE_BYTES, at least one event, from the end at which the reader continues."""
    if keep_newest:
        return events[len(events) - count_within_bytes(reversed(events)) :]
    return events[: count_within_bytes(events)]


@route(
    "POST", "/sync", "What is new in many logs", {200: SyncResponse},
    body=SyncRequest, max_body_bytes=MAX_SYNC_BODY_BYTES, limits=(),
)  # fmt: skip
def sync(call: Call[SyncRequest, None]) -> Operation[Response]:
    """Tell what is new in the logs that a client follows, in one response of about a MiB at most."""
    limit = MAX_PAGE_EVENTS if call.body.limit is None else min(max(call.body.limit, 1), MAX_PAGE_EVENTS)
    asked, user_id = _followed(call.body.positions), call.claims.user_id
    found = yield from FindLogs(user_id=user_id, log_ids=tuple(place.log_id for _, place in asked))
    plan = plan_sync(asked, found, user_id=user_id, limit=limit)
    events = (yield from ReadLogs(parts=plan.parts)) if plan.parts else ()
    given: dict[str, list[StoredEvent]] = {}
    for event in events[: count_within_bytes(events)]:
        given.setdefault(event.log_id, []).append(event)
    lines = [_news_line(news, given.get(news.log_id, [])) for news in plan.news]
    more = any(line.status == "news" and (not line.events or line.events[-1].sequence != line.head) for line in lines)
    return Response.json(SyncResponse(lines, more))


def _parse_log_name(name: str) -> tuple[LogKind, str] | None:
    kind, colon, text = name.partition(":")
    log_id = parse_uuid(text)
    if not colon or log_id is None or kind not in KINDS:
        return None
    return LogKind(kind), log_id


def _followed(positions: Sequence[FollowedLog]) -> list[Followed]:
    """Parse the places. Raises Refusal with every problem."""
    problems: list[FieldProblem] = []
    followed: dict[str, Followed] = {}
    if len(positions) > MAX_SYNC_LOGS:
        problems.append(FieldProblem("positions", f"must be at most {MAX_SYNC_LOGS}"))
    for index, position in enumerate(positions[:MAX_SYNC_LOGS]):
        field = f"positions[{index}]"
        kind, log_id = _parse_log_name(position.log) or (LogKind.USER, "")
        if not log_id:
            problems.append(FieldProblem(f"{field}.log", "must be channel:, guild: or user: and an id"))
        elif log_id in followed:
            problems.append(FieldProblem(f"{field}.log", "must not be repeated"))
        if not 1 <= position.epoch <= MAX_SAFE_INTEGER:
            problems.append(FieldProblem(f"{field}.epoch", "must be that of an answer"))
        if not 0 <= position.sequence <= MAX_SEQUENCE:
            problems.append(FieldProblem(f"{field}.sequence", "must be that of an event, or 0"))
        followed[log_id] = Followed(kind, LogPlace(log_id, position.epoch, position.sequence))
    if problems:
        raise Refusal(ErrorCode.VALIDATION, details=tuple(problems[:MAX_PROBLEMS]))
    return list(followed.values())


def _news_line(news: News, events: list[StoredEvent]) -> LogNews:
    name, newest = log_name(news.kind, news.log_id), news.newest
    if newest is None:
        return LogNews(name, "gone")
    shown = [SyncedEvent(event.sequence, msgspec.Raw(event.wire)) for event in events]
    return LogNews(name, "restarted" if news.restarted else "news", newest.epoch, newest.sequence, shown)
