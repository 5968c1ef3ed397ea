"""What was committed: every event of every channel, as the bytes that its subscribers are owed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from openguild_proto.records import StoredEvent
from openguild_proto.schemas.payloads import event_frame_payload


class Entry(NamedTuple):
    """One event. `at`: second of its commit."""

    event_id: str
    payload: bytes
    at: float


class Ledger:
    """Kept beside the tables, so that a channel's events outlive its deletion; `restored` follows the tables back."""

    def __init__(self) -> None:
        self._logs: dict[str, list[Entry]] = {}
        self.lost: dict[tuple[str, int], list[Entry]] = {}  # commits that a restored database does not have
        self.lost_ids: set[str] = set()

    def append(self, event: StoredEvent, at: float) -> str | None:
        """Note a commit. What is wrong with it."""
        log = self._logs.setdefault(event.channel_id, [])
        log.append(Entry(event.event_id, event_frame_payload(event), at))
        if event.sequence != len(log):
            return f"event {event.sequence} of {event.channel_id} was stored behind {len(log) - 1}"
        return None

    def head(self, channel_id: str) -> int:
        return len(self._logs.get(channel_id, ()))

    def log(self, channel_id: str) -> list[Entry]:
        return self._logs.get(channel_id, [])

    def committed(self, channel_id: str, sequence: int, payload: bytes) -> Entry | None:
        """The commit of these bytes, None: there was none."""
        log = self._logs.get(channel_id, [])
        if 0 < sequence <= len(log) and log[sequence - 1].payload == payload:
            return log[sequence - 1]
        return next((entry for entry in self.lost.get((channel_id, sequence), ()) if entry.payload == payload), None)

    def restored(self, heads: dict[str, int]) -> None:
        """The database is one that has only so many events of each channel."""
        for channel_id, log in self._logs.items():
            head = heads.get(channel_id, 0)
            for sequence, entry in enumerate(log[head:], start=head + 1):
                self.lost.setdefault((channel_id, sequence), []).append(entry)
                self.lost_ids.add(entry.event_id)
            del log[head:]

    def channels(self) -> Iterable[str]:
        return self._logs
