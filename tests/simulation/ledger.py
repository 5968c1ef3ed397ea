"""The record of all commits: every event of every channel, as the bytes that its subscribers must get."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from openguild_proto.records import StoredEvent
from openguild_proto.replica.redactions import Redaction, redacted_payload, redaction_in
from openguild_proto.schemas.payloads import event_frame_payload


class Taken(NamedTuple):
    """The original bytes of a redacted event. `at`: when the redaction was committed; `by`: its sequence."""

    payload: bytes
    at: float
    by: int


class Entry(NamedTuple):
    """One event. `at`: when it was committed, in seconds."""

    event_id: str
    payload: bytes
    at: float
    taken: Taken | None = None

    def is_sent_as(self, payload: bytes) -> bool:
        """Return whether these are its bytes, or were before a redaction."""
        return payload == self.payload or (self.taken is not None and payload == self.taken.payload)


class Ledger:
    """The commits, separate from the tables, so that events outlive their channel. `restored` follows a restore of the database."""

    def __init__(self) -> None:
        self._logs: dict[str, list[Entry]] = {}
        self.lost: dict[tuple[str, int], list[Entry]] = {}  # commits that a restored database has lost
        self.lost_ids: set[str] = set()

    def append(self, event: StoredEvent, at: float) -> str | None:
        """Record a commit. Return the violation, if any."""
        log = self._logs.setdefault(event.log_id, [])
        payload = event_frame_payload(event)
        log.append(Entry(event.event_id, payload, at))
        redaction = redaction_in(payload)
        if redaction is not None:
            self._take_away(log, redaction, at)
        if event.sequence != len(log):
            return f"event {event.sequence} of {event.log_id} was stored behind {len(log) - 1}"
        return None

    def _take_away(self, log: list[Entry], redaction: Redaction, at: float) -> None:
        for place, entry in enumerate(log):
            left = redacted_payload(entry.payload, redaction)
            if left is not None:
                log[place] = entry._replace(payload=left, taken=Taken(entry.payload, at, len(log)))

    def head(self, channel_id: str) -> int:
        return len(self._logs.get(channel_id, ()))

    def log(self, channel_id: str) -> list[Entry]:
        return self._logs.get(channel_id, [])

    def committed(self, channel_id: str, sequence: int, payload: bytes) -> Entry | None:
        """Return the commit of these bytes; None if there was none."""
        log = self._logs.get(channel_id, [])
        if 0 < sequence <= len(log) and log[sequence - 1].is_sent_as(payload):
            return log[sequence - 1]
        return next((entry for entry in self.lost.get((channel_id, sequence), ()) if entry.is_sent_as(payload)), None)

    def restored(self, heads: dict[str, int]) -> None:
        """Follow a restore of the database to these heads."""
        for channel_id, log in self._logs.items():
            head = heads.get(channel_id, 0)
            for sequence, entry in enumerate(log[head:], start=head + 1):
                self.lost.setdefault((channel_id, sequence), []).append(entry)
                self.lost_ids.add(entry.event_id)
            del log[head:]
            for place, entry in enumerate(log):
                if entry.taken is not None and entry.taken.by > head:  # the redaction is lost, so the text is back
                    self.lost.setdefault((channel_id, place + 1), []).append(entry)
                    log[place] = Entry(entry.event_id, entry.taken.payload, entry.at)

    def channels(self) -> Iterable[str]:
        return self._logs
