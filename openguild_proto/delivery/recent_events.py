"""Caches the events that this process has just stored, so that peers without a backlog get them without a read of the store."""

from __future__ import annotations

from collections import deque

from openguild_proto.effects.deliveries import BehindLog
from openguild_proto.records import StoredEvent

RECENT_SECS = 1.0
MAX_RECENT_BYTES = 1024 * 1024
REDACTION = b'"event_type":"message.redacted"'  # unambiguous: quotes in a message's text are escaped


class RecentEvents:
    """The cache. `now`: monotonic seconds."""

    def __init__(self) -> None:
        self._events: dict[tuple[str, int], StoredEvent] = {}
        self._ages: deque[tuple[float, tuple[str, int], int]] = deque()  # oldest first: time, key, bytes
        self._nbytes = 0

    def add(self, event: StoredEvent, now: float) -> None:
        """Add an event. It expires after RECENT_SECS."""
        key = event.log_id, event.sequence
        self._events[key] = event
        self._ages.append((now, key, len(event.wire)))
        self._nbytes += len(event.wire)
        self.forget(now)

    def forget(self, now: float) -> None:
        """Drop expired events, and the oldest ones beyond MAX_RECENT_BYTES."""
        while self._ages and (self._nbytes > MAX_RECENT_BYTES or self._ages[0][0] + RECENT_SECS <= now):
            _, key, nbytes = self._ages.popleft()
            self._events.pop(key, None)
            self._nbytes -= nbytes

    def behind(self, log: BehindLog, size: int) -> list[StoredEvent] | None:
        """Return all events of a log that a peer lacks, or None if they must be read from the store.

        Also None if one of them is a redaction: the cached form of the redacted event may be out of date.
        """
        if log.epoch != log.head.epoch or size < log.head.sequence - log.after:
            return None
        events: list[StoredEvent] = []
        for sequence in range(log.after + 1, log.head.sequence + 1):
            event = self._events.get((log.log_id, sequence))
            if event is None or REDACTION in event.wire:
                return None
            events.append(event)
        return events
