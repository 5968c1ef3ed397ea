"""A storage handler that records its calls."""

from __future__ import annotations

from openguild_proto.records import ControlRecord, StoredEvent
from openguild_runtime.storage.base import StorageHandler


class HeardFromStorage(StorageHandler):
    """The notifications of a store, by kind."""

    def __init__(self) -> None:
        self.records: list[ControlRecord] = []
        self.events: list[StoredEvent] = []
        self.batches: list[int] = []
        self.causes: list[str] = []

    def control_stored(self, record: ControlRecord) -> None:
        self.records.append(record)

    def log_grew(self, event: StoredEvent) -> None:
        self.events.append(event)

    def batch_committed(self, events: int, seconds: float) -> None:
        self.batches.append(events)

    def storage_failed(self, writes: bool, cause: str) -> None:
        self.causes.append(cause)
