"""Effects on any log: of a channel, a guild or a user."""

from __future__ import annotations

from openguild_proto.effects.base import StorageEffect
from openguild_proto.records import GuildRecord, LogAccess, LogPart, LogPlace, Record, StoredEvent


class FindPlace(StorageEffect[LogPlace | None], frozen=True):
    """Find the newest place of a log; None: there is no such log."""

    divides_by = "log"
    turns_of = "reader_id"

    log_id: str
    reader_id: str | None = None


class FindLogs(StorageEffect[tuple[LogAccess, ...]], frozen=True):
    """Find the newest places of logs, and what the user is in them, in one query.

    By log id; one that does not exist is left out.
    """

    divides_by = "log"
    on_standby = True
    turns_of = "user_id"

    user_id: str
    log_ids: tuple[str, ...]


class AccountPlaces(Record, frozen=True):
    """A user's guilds by creation, and where their logs and the user's own stand, read in one snapshot."""

    place: LogPlace  # the newest of the user's log
    guilds: tuple[tuple[GuildRecord, LogPlace], ...]


class FindAccountPlaces(StorageEffect[AccountPlaces | None], frozen=True):
    """Find a user's guilds, and where their logs and the user's own stand, in one query; None: no such user."""

    divides_by = "user"
    on_standby = True

    user_id: str


class ReadLogs(StorageEffect[tuple[StoredEvent, ...]], frozen=True):
    """Read parts of logs in one query: the parts in their order, each oldest first. A log that does not exist has no events."""

    divides_by = "log"
    on_standby = True
    turns_of = "reader_id"

    parts: tuple[LogPart, ...]
    reader_id: str | None = None  # None: another server, or the replica itself
