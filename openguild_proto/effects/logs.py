"""Effects on any log: of a channel, a guild or a user."""

from __future__ import annotations

from openguild_proto.effects.base import StorageEffect
from openguild_proto.records import GuildRecord, LogAccess, LogPart, LogPosition, Record, StoredEvent


class FindLogHead(StorageEffect[LogPosition | None], frozen=True):
    """Find the newest position of a log. None: no such log."""

    divides_by = "log"
    turns_of = "reader_id"

    log_id: str
    reader_id: str | None = None


class FindLogs(StorageEffect[tuple[LogAccess, ...]], frozen=True):
    """Find the newest positions of logs, and the user's roles in them, in one query.

    Sorted by log id. Logs that do not exist are omitted.
    """

    divides_by = "log"
    on_standby = True
    turns_of = "user_id"

    user_id: str
    log_ids: tuple[str, ...]


class AccountMemberships(Record, frozen=True):
    """A user's guilds by creation, and the heads of their logs and of the user's own, read in one snapshot."""

    place: LogPosition  # head of the user's log
    guilds: tuple[tuple[GuildRecord, LogPosition], ...]


class FindAccountMemberships(StorageEffect[AccountMemberships | None], frozen=True):
    """Find a user's guilds, and the heads of their logs and of the user's own, in one query. None: no such user."""

    divides_by = "user"
    on_standby = True

    user_id: str


class ReadLogs(StorageEffect[tuple[StoredEvent, ...]], frozen=True):
    """Read parts of logs in one query: in the order of the parts, each oldest first. A log that does not exist has no events."""

    divides_by = "log"
    on_standby = True
    turns_of = "reader_id"

    parts: tuple[LogPart, ...]
    reader_id: str | None = None  # None: another server, or the replica itself
