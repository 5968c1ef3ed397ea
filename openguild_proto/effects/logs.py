"""Effects on any log: of a channel, a guild or a user."""

from __future__ import annotations

from openguild_proto.effects.base import StorageEffect
from openguild_proto.records import LogAccess, LogPart, LogPlace, StoredEvent


class FindPlace(StorageEffect[LogPlace | None], frozen=True):
    """Find the newest place of a log; None: there is no such log."""

    log_id: str


class FindLogs(StorageEffect[tuple[LogAccess, ...]], frozen=True):
    """Find the newest places of logs, and what the user is in them, in one query.

    By log id; one that does not exist is left out.
    """

    user_id: str
    log_ids: tuple[str, ...]


class ReadLogs(StorageEffect[tuple[StoredEvent, ...]], frozen=True):
    """Read parts of logs in one query: the parts in their order, each oldest first. A log that does not exist has no events."""

    parts: tuple[LogPart, ...]
