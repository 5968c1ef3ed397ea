"""The read-only commands of the admin socket: channels, sessions, top, why."""

from __future__ import annotations

import time
from pathlib import Path
from resource import getpagesize

import msgspec

import openguild_runtime
from openguild_proto.diagnosis.snapshot import (
    LISTED,
    ChannelLine,
    ClosedLine,
    Component,
    LoginLine,
    Snapshot,
    UserLine,
)
from openguild_proto.diagnosis.why import Remembered
from openguild_proto.replica.survey import Survey
from openguild_runtime.admin.scope import AdminScope, Refused, Request, Response, limit_of, user_of
from openguild_runtime.admin.usernames import usernames, with_usernames
from openguild_runtime.observability import logs
from openguild_runtime.observability.process_metrics import open_descriptors
from openguild_runtime.system.turns import Turn

SIZES = Path("/proc/self/statm")


async def list_channels(scope: AdminScope, request: Request) -> Response:
    """List channels with a backlog, deepest first, each with its slowest reader; and readers that were closed as too slow."""
    limit = limit_of(request)
    depths = _depths(scope, limit)
    survey = await _survey(scope, depths)
    lines = {"channels": _channels(scope, depths, survey), "closed": _closed(scope, limit)}
    return await with_usernames(scope.storage, lines)


async def list_sessions(scope: AdminScope, request: Request) -> Response:
    """List open streams and gateway sockets, furthest behind first. `user` filters them."""
    limit, survey = limit_of(request), await _survey(scope, [], user_of(request))
    lines = survey.slowest_first()
    return await with_usernames(scope.storage, {"sessions": lines[:limit], "total": len(lines)})


async def snapshot(scope: AdminScope, request: Request) -> Response:
    """Show the current state of the replica."""
    del request
    readiness = await scope.readiness()
    stats, history = scope.storage.stats(), scope.history
    replica = scope.replica.replica
    gateway, depths = replica.gateway_totals(), _depths(scope, LISTED)
    survey = await _survey(scope, depths)
    lines = survey.slowest_first()
    now, wall, logins = scope.sources.monotonic(), scope.sources.wall(), history.failed_logins
    found = Snapshot(
        version=openguild_runtime.__version__,
        status=readiness.status,
        uptime_secs=readiness.uptime_seconds,
        components=[
            Component(name=each.name, status=each.status, details=each.details) for each in readiness.components
        ],
        requests=history.answered,
        refused=history.refused,
        failed=history.failed,
        failed_logins=logins.total,
        cpu_secs=time.process_time(),
        memory_bytes=_memory_bytes(),
        descriptors=_descriptors(),
        connections=scope.connections(),
        streams=sum(line.logs is None for line in lines),
        gateway_sockets=gateway.sockets,
        subscriptions=gateway.subscriptions,
        catching_up=gateway.from_log,
        stall_max_secs=scope.metrics.longest_stall_secs(),
        commit_queue=stats.queue_events,
        pool_size=stats.pool_size,
        pool_idle=stats.pool_idle,
        log_lines_dropped=logs.dropped_lines(),
        channels=_channels(scope, depths, survey),
        readers=lines[:LISTED],
        closed=_closed(scope, LISTED),
        users=[UserLine(user_id=each, requests=count) for each, count in scope.busy_users.busiest(LISTED, now)],
        login_addresses=[LoginLine(address=each, failed=n) for each, n in logins.addresses.busiest(LISTED, wall)],
        login_accounts=[LoginLine(user_id=each, failed=n) for each, n in logins.accounts.busiest(LISTED, wall)],
    )
    response: Response = msgspec.to_builtins(found)
    return await with_usernames(scope.storage, response)


async def remembered(scope: AdminScope, request: Request) -> Response:
    """Show the recent requests and log lines with a request ID."""
    request_id = request.get("request_id")
    if not isinstance(request_id, str) or not request_id:
        raise Refused("request_id: expected the id of a request")
    requests = scope.history.find(request_id)
    since, troubled_since = scope.history.reaches_back_to()
    response: Response = msgspec.to_builtins(
        Remembered(
            requests=requests,
            usernames=await usernames(scope.storage, {each.user_id for each in requests if each.user_id is not None}),
            lines=logs.remembered_lines(request_id),
            kept=len(scope.history),
            since=since,
            troubled_since=troubled_since,
        )
    )
    return response


def _depths(scope: AdminScope, limit: int) -> list[tuple[str, int]]:
    return scope.replica.replica.depths().channels[:limit]


async def _survey(scope: AdminScope, depths: list[tuple[str, int]], user: str | None = None) -> Survey:
    """Survey all sockets, over several turns of the loop if necessary."""
    replica, turn = scope.replica.replica, Turn(scope.sources.monotonic)
    survey = Survey(replica.hub, (channel_id for channel_id, _ in depths), user)
    await turn.each(scope.replica.streams.transports(), lambda transport: survey.stream(transport, transport.address))
    await turn.each(replica.gateway.sockets(), survey.gateway)
    return survey


def _channels(scope: AdminScope, depths: list[tuple[str, int]], survey: Survey) -> list[ChannelLine]:
    lines = []
    for channel_id, depth in depths:
        channel = scope.replica.replica.channels.get(channel_id)
        lines.append(survey.channel(channel_id, depth, channel.head if channel is not None else None))
    return lines


def _closed(scope: AdminScope, limit: int) -> list[ClosedLine]:
    now = scope.sources.monotonic()
    return [
        ClosedLine(
            secs_ago=round(now - reader.closed_at, 1), user_id=reader.user_id, address=reader.address,
            channel_id=reader.channel_id, missed=reader.missed, cause=reader.cause,
        )
        for reader in scope.replica.replica.streams.closed_readers.newest(limit, now)
    ]  # fmt: skip


def _memory_bytes() -> int:
    """Return the resident memory in bytes, or 0 without /proc."""
    try:
        return int(SIZES.read_text().split()[1]) * getpagesize()
    except OSError:
        return 0


def _descriptors() -> int:
    """Return the number of open descriptors, or 0 without /proc."""
    try:
        return open_descriptors()
    except OSError:
        return 0
