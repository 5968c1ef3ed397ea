"""The data of `admin top`: of one replica at one moment, or of several workers together."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter

import msgspec

LISTED = 20  # lines of each list


class Line(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Base of all lines."""


class ChannelLine(Line):
    """A channel with a backlog."""

    channel_id: str
    depth: int  # events that its slowest reader is behind, at most the capacity of the ring
    subscribers: int
    head: int | None = None  # its newest sequence
    behind: int | None = None  # of the slowest reader
    slowest_user: str | None = None
    slowest_username: str | None = None
    slowest_address: str | None = None


class ReaderLine(Line):
    """An open stream or gateway socket."""

    user_id: str
    session_id: str
    address: str
    behind: int  # events; for a gateway socket, in the log where it is furthest behind
    channel_id: str | None  # None: a notification stream or a gateway socket
    username: str | None = None
    logs: int | None = None  # followed by a gateway socket


class ClosedLine(Line):
    """A slow reader that was closed in the last hour."""

    secs_ago: float
    user_id: str
    address: str
    missed: int  # events that it had not received
    cause: str
    channel_id: str | None
    username: str | None = None


class UserLine(Line):
    """A user, and their requests in the last minute."""

    user_id: str
    requests: int
    username: str | None = None


class LoginLine(Line):
    """Failed logins in the last minute, from an address or for an account."""

    failed: int
    address: str | None = None  # for IPv6 the /64, as limits count it
    user_id: str | None = None
    username: str | None = None


class Component(Line):
    """A component of `/ready`."""

    name: str
    status: str
    details: str


class Snapshot(Line):
    """One replica, or after `merged` all workers of one server. Totals are since the start."""

    version: str
    status: str  # of `/ready`
    uptime_secs: float
    components: list[Component]
    requests: int  # answered
    refused: int  # of these, with 4xx
    failed: int  # with 5xx
    failed_logins: int  # with a wrong password or an unknown name
    cpu_secs: float
    memory_bytes: int
    descriptors: int
    connections: int
    streams: int
    gateway_sockets: int
    subscriptions: int  # pairs of a gateway socket and a log
    catching_up: int  # of these, served from storage
    stall_max_secs: float  # longest stall of the event loop in the last minute or two
    commit_queue: int
    pool_size: int
    pool_idle: int
    log_lines_dropped: int
    channels: list[ChannelLine]
    readers: list[ReaderLine]
    closed: list[ClosedLine]
    users: list[UserLine]
    login_addresses: list[LoginLine]
    login_accounts: list[LoginLine]  # existing accounts only; unknown names only count by address
    workers: int = 1
    worker: int | None = None  # its number; None: the only process, or several merged


_TOTALS = (
    "requests", "refused", "failed", "failed_logins", "cpu_secs", "memory_bytes", "descriptors", "connections", "streams",
    "gateway_sockets", "subscriptions", "catching_up", "commit_queue", "pool_size", "pool_idle", "log_lines_dropped", "workers",
)  # fmt: skip
_STATUSES = ("ready", "degraded", "draining", "unavailable")  # from best to worst


def merged(snapshots: list[Snapshot]) -> Snapshot:
    """Merge the workers' snapshots. Raises ValueError for an empty list."""
    if not snapshots:
        raise ValueError("no snapshots")
    if len(snapshots) == 1:
        return snapshots[0]
    worst = max(
        snapshots, key=lambda each: _STATUSES.index(each.status) if each.status in _STATUSES else len(_STATUSES)
    )
    return msgspec.structs.replace(
        worst,
        worker=None,
        uptime_secs=min(each.uptime_secs for each in snapshots),
        stall_max_secs=max(each.stall_max_secs for each in snapshots),
        channels=_channels(line for each in snapshots for line in each.channels),
        readers=sorted((line for each in snapshots for line in each.readers), key=lambda line: -line.behind)[:LISTED],
        closed=sorted((line for each in snapshots for line in each.closed), key=attrgetter("secs_ago"))[:LISTED],
        users=_users(line for each in snapshots for line in each.users),
        login_addresses=_logins(line for each in snapshots for line in each.login_addresses),
        login_accounts=_logins(line for each in snapshots for line in each.login_accounts),
        **{name: sum(getattr(each, name) for each in snapshots) for name in _TOTALS},
    )


def counted_before(now: list[Snapshot], before: list[Snapshot]) -> Snapshot:
    """Return the earlier totals of the processes in `now`, merged, so that the difference is their growth.

    A process that has started since had zero totals. For a process without an earlier snapshot the growth counts as zero.
    """
    former = {each.worker: each for each in before}
    return merged([_counted_before(each, former.get(each.worker, each)) for each in now])


def _counted_before(now: Snapshot, former: Snapshot) -> Snapshot:
    if former.uptime_secs > now.uptime_secs or former.requests > now.requests:
        return msgspec.structs.replace(now, **dict.fromkeys(_TOTALS, 0))
    return former


def _channels(lines: Iterable[ChannelLine]) -> list[ChannelLine]:
    by_id: dict[str, ChannelLine] = {}
    for line in lines:
        other = by_id.get(line.channel_id)
        if other is None:
            by_id[line.channel_id] = line
            continue
        slowest = max(line, other, key=lambda each: each.behind or 0)
        by_id[line.channel_id] = msgspec.structs.replace(
            slowest, depth=max(line.depth, other.depth), subscribers=line.subscribers + other.subscribers
        )
    return sorted(by_id.values(), key=lambda line: -line.depth)[:LISTED]


def _users(lines: Iterable[UserLine]) -> list[UserLine]:
    by_id: dict[str, UserLine] = {}
    for line in lines:
        other = by_id.get(line.user_id)
        requests = line.requests + (other.requests if other is not None else 0)
        by_id[line.user_id] = msgspec.structs.replace(line, requests=requests)
    return sorted(by_id.values(), key=lambda line: -line.requests)[:LISTED]


def _logins(lines: Iterable[LoginLine]) -> list[LoginLine]:
    by_key: dict[str | None, LoginLine] = {}
    for line in lines:
        key = line.address or line.user_id
        other = by_key.get(key)
        failed = line.failed + (other.failed if other is not None else 0)
        by_key[key] = msgspec.structs.replace(line, failed=failed)
    return sorted(by_key.values(), key=lambda line: -line.failed)[:LISTED]
