"""Keeps the events that this process has just stored. Peers that are up to date get them without a query."""

from __future__ import annotations

from collections import deque

from openguild_proto.effects.deliveries import BehindLog
from openguild_proto.records import StoredEvent

RECENT_SECS = 1.0
MAX_RECENT_BYTES = 1024 * 1024
REDACTION = b'"event_type":"message.redacted"'  # cannot occur in a message's text, where quotes are escaped


class RecentEvents:
    """The recent events of one process. `now`: monotonic seconds."""

    def __init__(self) -> None:
        self._events: dict[tuple[str, int], StoredEvent] = {}
        self._ages: deque[tuple[float, tuple[str, int], int]] = deque()  # oldest first: when added, key, bytes
        self._nbytes = 0

    def add(self, event: StoredEvent, now: float) -> None:
        """Keep an event for `RECENT_SECS`."""
        key = event.log_id, event.sequence
        self._events[key] = event
        self._ages.append((now, key, len(event.wire)))
        self._nbytes += len(event.wire)
        self.forget(now)

    def forget(self, now: float) -> None:
        """Drop events that are too old, or that exceed the bound on memory."""
        while self._ages and (self._nbytes > MAX_RECENT_BYTES or self._ages[0][0] + RECENT_SECS <= now):
            _, key, nbytes = self._ages.popleft()
            self._events.pop(key, None)
            self._nbytes -= nbytes

    def behind(self, log: BehindLog, size: int) -> list[StoredEvent] | None:
        """Return all events of a log that a peer is missing, or None if the log must be read.

        The events are kept as they were first stored. A redaction changes an earlier event in the log, so with a redaction
        among them the answer is None.
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
