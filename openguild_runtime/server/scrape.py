"""Metrics whose values are read at each scrape: pools, queues, depths and totals of the replica."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from openguild_runtime.admin.reload import LiveConfig, settings_digest
from openguild_runtime.federation.delivering import DeliveryRunner
from openguild_runtime.observability import logs
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.replica.runner import ReplicaRunner
from openguild_runtime.storage.base import Storage

MISSED_SECS = 600.0  # longer than the window of the alert that names the channels


class Scrape:
    """Updates `metrics` and renders them."""

    def __init__(
        self,
        metrics: Metrics,
        storage: Storage,
        replica: ReplicaRunner,
        live: LiveConfig,
        deliveries: DeliveryRunner,
        clock: Callable[[], float],
    ) -> None:
        self._metrics = metrics
        self._storage = storage
        self._replica = replica
        self._live = live
        self._deliveries = deliveries
        self._clock = clock

    def chunks(self) -> Iterator[bytes]:
        """Yield the exposition in pieces that take about a millisecond each."""
        stats, metrics = self._storage.stats(), self._metrics
        metrics.pool(stats.pool_size, stats.pool_idle, stats.shared_free)
        metrics.commit_queue(stats.queue_events)
        metrics.unindexed(stats.unindexed)
        metrics.standbys.standbys = stats.standbys
        metrics.replica_totals(self._replica.replica.counters.snapshot())
        metrics.depths(self._replica.replica.depths())
        closed = self._replica.replica.streams.closed_readers
        metrics.missed_events.by_channel = closed.missed_by_channel(MISSED_SECS, self._clock())
        metrics.gateway(self._replica.replica.gateway_totals())
        metrics.limit_divisor(self._replica.replica.limit_divisor)
        metrics.log_lines_dropped(logs.dropped_lines())
        metrics.token_keys(self._live.fingerprints)
        metrics.settings(settings_digest(self._live.config))
        metrics.federation.deliveries.peers = self._deliveries.counters()
        yield from metrics.chunks()
