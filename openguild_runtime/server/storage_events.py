"""Passes events of the store to streams, deliveries, metrics and readiness."""

from __future__ import annotations

from openguild_proto.records import ControlRecord, StoredEvent
from openguild_runtime.federation.delivering import DeliveryRunner
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.replica.runner import ReplicaRunner
from openguild_runtime.server.readiness import ReadinessProbe
from openguild_runtime.storage.base import StorageHandler


class StorageEvents(StorageHandler):
    """The handler of a replica's store."""

    def __init__(
        self, replica: ReplicaRunner, deliveries: DeliveryRunner, metrics: Metrics, readiness: ReadinessProbe
    ) -> None:
        self._replica = replica
        self._deliveries = deliveries
        self._metrics = metrics
        self._readiness = readiness

    def control_stored(self, record: ControlRecord) -> None:
        self._replica.stored(record)
        self._deliveries.recorded(record)

    def log_grew(self, event: StoredEvent) -> None:
        self._replica.log_grew(event)
        self._deliveries.grew(event.log_id, event)

    def batch_committed(self, events: int, seconds: float) -> None:
        self._metrics.batch_committed(events, seconds)

    def storage_failed(self, writes: bool, cause: str) -> None:
        self._metrics.db_failed(writes, cause)
        self._readiness.doubt()
