"""What the metrics show that is only known when they are read: pools, queues, depths, totals of the replica."""

from __future__ import annotations

from collections.abc import Iterator

from openguild_runtime.observability import logs
from openguild_runtime.observability.metrics import Depths, Metrics
from openguild_runtime.replica.runner import ReplicaRunner
from openguild_runtime.storage.base import Storage


class Scrape:
    """Brings `metrics` up to date and renders them."""

    def __init__(self, metrics: Metrics, storage: Storage, replica: ReplicaRunner) -> None:
        self._metrics = metrics
        self._storage = storage
        self._replica = replica

    def chunks(self) -> Iterator[bytes]:
        """Yield the exposition in pieces of about a millisecond."""
        stats, metrics = self._storage.stats(), self._metrics
        metrics.pool(stats.pool_size, stats.pool_idle)
        metrics.commit_queue(stats.queue_events)
        metrics.unindexed(stats.unindexed)
        metrics.replica_totals(self._replica.replica.counters.snapshot())
        metrics.depths(Depths(*self._replica.replica.depths()))
        metrics.limit_divisor(self._replica.replica.limit_divisor)
        metrics.log_lines_dropped(logs.dropped_lines())
        yield from metrics.chunks()
