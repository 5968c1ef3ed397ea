"""The names of logs on the wire: `channel:<uuid>`, `guild:<uuid>`, `user:<uuid>` (PROTOCOL 7.9.1)."""

from __future__ import annotations

from enum import Enum


class LogKind(Enum):
    """The kind of a log. The log's id is that of the channel, guild or user."""

    CHANNEL = "channel"
    GUILD = "guild"
    USER = "user"


def log_name(kind: LogKind, log_id: str) -> str:
    """Return the name of a log."""
    return f"{kind.value}:{log_id}"


def log_id_in(name: str) -> str:
    """Return the id in the name of a log."""
    return name.partition(":")[2]
