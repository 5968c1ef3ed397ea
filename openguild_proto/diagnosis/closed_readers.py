"""Remembers readers that were closed while they had a backlog, because an operator usually looks afterwards."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from openguild_proto.limits import CLOSED_READER_SECS, MAX_CLOSED_READERS

LAGGED = "lagged"  # overrun by the ring
SLOW_REASONS = frozenset({"write_timeout", "ping_timeout"})  # deadlines that expire for a reader that does not read


class ClosedReader(NamedTuple):
    """A stream or gateway socket that was closed for being slow."""

    closed_at: float  # monotonic seconds
    user_id: str
    address: str
    channel_id: str | None  # None: a notification stream, or a gateway socket, which follows many logs
    missed: int  # events that it had not received
    cause: str  # LAGGED, or one of SLOW_REASONS


class ClosedReaders:
    """The most recently closed readers, of the last hour."""

    def __init__(self, capacity: int = MAX_CLOSED_READERS) -> None:
        self._readers: deque[ClosedReader] = deque(maxlen=capacity)

    def add(self, reader: ClosedReader) -> None:
        """Add a reader. Drops the oldest one if full."""
        self._readers.append(reader)

    def missed_by_channel(self, within_secs: float, now: float) -> list[tuple[str, int]]:
        """Return the number of events that readers closed in the last `within_secs` had missed, by channel, highest first."""
        missed: dict[str, int] = {}
        for reader in self._readers:
            if reader.channel_id is not None and now - reader.closed_at <= within_secs:
                missed[reader.channel_id] = missed.get(reader.channel_id, 0) + reader.missed
        return sorted(missed.items(), key=lambda line: (-line[1], line[0]))

    def newest(self, limit: int, now: float) -> list[ClosedReader]:
        """Return the readers closed in the last hour, newest first. `now`: monotonic seconds."""
        readers = self._readers
        while readers and now - readers[0].closed_at > CLOSED_READER_SECS:
            readers.popleft()
        return list(reversed(readers))[:limit]
