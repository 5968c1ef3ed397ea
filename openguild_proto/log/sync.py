"""Sync of many logs: the parts to read for a client with a position in each (PROTOCOL 7.9)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from openguild_proto.log.log_names import LogKind
from openguild_proto.policy.permissions import Permission, is_allowed
from openguild_proto.records import LogAccess, LogPart, LogPosition


class Followed(NamedTuple):
    """A log and the client's position in it."""

    kind: LogKind
    place: LogPosition


class News(NamedTuple):
    """The news of one log. `newest` None: the client may not read it, or it does not exist.

    `restarted`: the log has another epoch or ends before the client's place, so that place has no meaning.
    """

    kind: LogKind
    log_id: str
    newest: LogPosition | None
    restarted: bool = False


class Plan(NamedTuple):
    """`news`: the logs with changes, in the requested order. `parts`: the ranges to read for them, within the limit."""

    news: tuple[News, ...]
    parts: tuple[LogPart, ...]


def plan_sync(asked: Sequence[Followed], found: Iterable[LogAccess], *, user_id: str, limit: int) -> Plan:
    """Plan the response. `limit`: maximum number of events; logs listed first have priority."""
    accesses = {access.place.log_id: access for access in found}
    news: list[News] = []
    parts: list[LogPart] = []
    for kind, place in asked:
        access = accesses.get(place.log_id)
        if access is None or access.kind != kind.value or not may_read(access, user_id):
            news.append(News(kind, place.log_id, None))
        elif access.place.epoch != place.epoch or not access.base <= place.sequence <= access.place.sequence:
            news.append(News(kind, place.log_id, access.place, restarted=True))
        elif access.place.sequence > place.sequence:
            news.append(News(kind, place.log_id, access.place))
            size = min(access.place.sequence - place.sequence, limit)
            if size:
                parts.append(LogPart(place.log_id, place.sequence, size))
                limit -= size
    return Plan(tuple(news), tuple(parts))


def may_read(access: LogAccess, user_id: str) -> bool:
    """Return whether the user may read the log: their own, or that of a guild or channel that they may read."""
    if access.kind == LogKind.USER.value:
        return access.place.log_id == user_id
    return is_allowed(access.server_roles, access.memberships, Permission.READ)
