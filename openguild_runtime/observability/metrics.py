"""The metrics of one process, with bounded cardinality (PROTOCOL 11.2).

`route` is a template or `unmatched`. The depth per channel is computed at each scrape, for the deepest channels only.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    PlatformCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from openguild_proto.replica.backlogs import Depths, GatewayTotals
from openguild_runtime.observability.buckets import Histogram
from openguild_runtime.observability.database_causes import CAUSES
from openguild_runtime.observability.federation_metrics import FederationMetrics
from openguild_runtime.observability.metric_labels import NATS_SERIES, NOT_AUTHENTICATED, OUTCOMES, REASONS, BusSeries
from openguild_runtime.observability.process_metrics import ProcessCollector
from openguild_runtime.observability.reader_metrics import DepthCollector, MissedEvents
from openguild_runtime.observability.request_metrics import RequestMetrics
from openguild_runtime.observability.standby_metrics import StandbyCollector

disable_created_metrics()  # type: ignore[no-untyped-call]  # an unused extra series for each metric

FAST_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CHUNK_SAMPLES = 64
STALL_WINDOW_SECS = 60.0


class _Family(Collector):
    """Exports a part of a family that is collected already."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return (self._family,)


def _families(collector: Collector) -> Iterator[tuple[Metric, Iterator[Sample]]]:
    """Yield the families of a collector with many samples, each with an iterator, since `collect` builds all samples at once."""
    if isinstance(collector, RequestMetrics):
        yield from collector.families()
    elif isinstance(collector, MetricWrapperBase):
        family = collector._get_metric()  # type: ignore[no-untyped-call]  # the library annotates only some
        yield family, (sample._replace(name=family.name + sample.name) for sample in collector._samples())


def _family_chunks(family: Metric, samples: Iterator[Sample]) -> Iterator[bytes]:
    """Yield the text of one family in chunks."""
    begun = False
    while some := list(islice(samples, CHUNK_SAMPLES)):
        family.samples = some
        text = generate_latest(_Family(family))
        yield text.split(b"\n", 2)[2] if begun else text  # HELP and TYPE only once
        begun = True
    if not begun:
        yield generate_latest(_Family(family))


class _WindowMaximum:
    """The maximum over the last one to two windows. Reading does not reset it, so that several scrapers see the same value."""

    def __init__(self, window_secs: float, clock: Callable[[], float]) -> None:
        self._window_secs = window_secs
        self._clock = clock
        self._window = 0  # number of the current window
        self._present = self._former = 0.0

    def add(self, secs: float) -> None:
        self._turn()
        self._present = max(self._present, secs)

    def value(self) -> float:
        self._turn()
        return max(self._present, self._former)

    def _turn(self) -> None:
        window = int(self._clock() // self._window_secs)
        if window != self._window:
            self._former = self._present if window == self._window + 1 else 0.0
            self._window, self._present = window, 0.0


class Metrics:
    """The metrics of a process. Labelled children are kept in dicts, because `labels()` is slow."""

    def __init__(
        self,
        version: str,
        *,
        native_ring: bool,
        bus: BusSeries | None = NATS_SERIES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.registry = registry = CollectorRegistry()
        registry.register(ProcessCollector())
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self._depths = DepthCollector()
        registry.register(self._depths)
        self.missed_events = MissedEvents()
        registry.register(self.missed_events)
        self.standbys = StandbyCollector()
        registry.register(self.standbys)
        self._requests = RequestMetrics()
        registry.register(self._requests)
        self.http_request = self._requests.count
        self._rejections = self._counter("openguild_messaging_rejections", "Refused requests by reason", "reason")
        self._rejected = {reason: self._rejections.labels(reason) for reason in sorted(REASONS)}
        causes = self._counter(
            "openguild_unauthorized", "Requests and gateway sockets answered with 401, by cause", "cause"
        )
        self._not_authenticated = {cause: causes.labels(cause) for cause in NOT_AUTHENTICATED}
        events = self._counter("openguild_messaging_events", "Events by outcome", "outcome")
        self._events = {outcome: events.labels(outcome) for outcome in OUTCOMES}
        self._connections = self._gauge("openguild_connections", "TCP connections open")
        self._sockets = self._gauge("openguild_websocket_connections", "WebSocket streams open")
        self._accepted = self._counter("openguild_connections_accepted", "TCP connections accepted")
        self._not_accepted = self._counter(
            "openguild_accept_failures",
            "Connections that could not be accepted for lack of descriptors or memory",
        )
        self._subscribers = self._gauge("openguild_subscribers", "Subscribers of all rings")
        self._gateway_sockets = self._gauge("openguild_gateway_connections", "Gateway sockets open")
        self._gateway_logs = self._gauge("openguild_gateway_subscriptions", "Logs that gateway sockets follow")
        self._gateway_from_log = self._gauge(
            "openguild_gateway_catching_up",
            "Logs of gateway sockets that storage serves: the socket began behind the newest events, or reads too slowly",
        )
        self._lag_closes = self._counter("openguild_websocket_lag_closes", "Streams closed because their reader lagged")
        self._replayed = self._counter("openguild_replay_events", "Events replayed from the log to joining streams")
        self._batch_size = self._histogram("openguild_append_batch_size", "Events committed together", BATCH_BUCKETS)
        self._batch_secs = self._histogram("openguild_append_duration_seconds", "One commit of appends", FAST_BUCKETS)
        self._queue_depth = self._gauge("openguild_commit_queue_depth", "Appends waiting for the next commit")
        self._unindexed = self._gauge(
            "openguild_search_unindexed_messages",
            "Messages not yet in the search index, counted once a minute",
        )
        self._pool = self._gauge("openguild_db_pool_connections", "Connections of the pool", "state")
        self._shared_free = self._gauge(
            "openguild_db_shared_places_free",
            "Connections of the pool that are free for reads: not reserved and not in use",
        )
        self._db_ready = self._gauge("openguild_db_ready", "1 if the last probe could read and write the database")
        self._db_failures = self._counter(
            "openguild_db_failures", "Failed database statements by cause", "operation", "cause"
        )
        for operation, cause in itertools.product(("read", "write"), CAUSES):
            self._db_failures.labels(operation, cause)  # exported as 0 from the start, like REASONS
        prefix, title, setting, kinds = bus or NATS_SERIES
        prefix = f"openguild_{prefix}"
        self._bus = Gauge(
            f"{prefix}_connected", f"1 while connected to {title}; absent without {setting}",
            registry=registry if bus is not None else None,  # 0 would mean an outage
        )  # fmt: skip
        self._bus_reconnects = self._counter(f"{prefix}_reconnects", f"Reconnects to {title}")
        self._publishes_dropped = self._counter(
            f"{prefix}_publishes_dropped", f"Messages dropped instead of published to {title}"
        )
        faults = self._counter(f"{prefix}_faults", f"Faults of {title} by kind", "kind")
        self._bus_faults = {kind: faults.labels(kind) for kind in kinds}
        self._denied_subjects = self._gauge(
            f"{prefix}_denied_subjects", f"Publishes and subscriptions that {title} denies"
        )
        self._other_databases = self._gauge(
            f"{prefix}_other_databases", f"Other databases whose replicas use the same server_name on {title}"
        )
        self._limit_divisor = self._gauge(
            "openguild_limit_divisor", "The divisor of message limits; 1 if they are shared or there is one replica"
        )
        self._limit_divisor.set(1)
        self._gaps = self._counter("openguild_gaps_found", "Gaps found in the events that NATS delivered")
        self._backfilled = self._counter("openguild_gap_events_backfilled", "Events read from the log to fill gaps")
        self._renewals = self._gauge(
            "openguild_epoch_renewals",
            "How often all logs got new epochs because the database may have lost commits, as counted in the database",
        )
        self._latency = self._histogram(
            "openguild_delivery_seconds", "From an event's release to the flush of its channel", FAST_BUCKETS
        )
        self._flush_sends = self._counter(
            "openguild_flush_sends", "Sends of ring spans; fewer than deliveries under load"
        )
        self._stall = self._histogram("openguild_loop_stall_seconds", "How late the loop woke a timer", FAST_BUCKETS)
        self._stall_max = self._gauge(
            "openguild_loop_stall_max_seconds",
            "The longest stall of the last 60 to 120 seconds; a scrape does not reset it",
        )
        self._longest_stall = _WindowMaximum(STALL_WINDOW_SECS, clock)
        self._clock_difference = self._gauge(
            "openguild_clock_difference_seconds", "This machine's clock minus the database's, which all replicas use"
        )
        self._log_dropped = self._counter(
            "openguild_log_lines_dropped",
            "Log lines dropped because their reader is too slow or has gone, or the disk is full",
        )
        self._log_dropped_before = 0
        self._replica_before: dict[str, int] = {}
        self.federation = FederationMetrics(registry)
        self._draining = self._gauge("openguild_draining", "1 while the server drains")
        self._reload = self._gauge(
            "openguild_config_last_reload_successful", "0 if the last reload of the configuration was refused"
        )
        self._reload.set(1)
        self._token_keys = self._gauge(
            "openguild_token_key_info", "Always 1: a key that this process accepts tokens of", "fingerprint", "use"
        )
        self._fingerprints: tuple[str, ...] = ()
        self._settings = self._gauge("openguild_settings_info", "Always 1: digest of what a reload applies", "digest")
        build = self._gauge("openguild_build_info", "Always 1", "version", "ring")
        build.labels(version, "native" if native_ring else "pure").set(1)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        histogram = Histogram(name, text, buckets)
        self.registry.register(histogram)
        return histogram

    # --- HTTP and messaging --------------------------------------------------------------------------

    def rejected(self, reason: str) -> None:
        """Count a rejection. `reason` is from a fixed set of the core."""
        child = self._rejected.get(reason)
        if child is None:
            child = self._rejected[reason] = self._rejections.labels(reason)
        child.inc()

    def not_authenticated(self, cause: str) -> None:
        """Count a 401. `cause` is one of NOT_AUTHENTICATED."""
        self._not_authenticated[cause].inc()

    def replica_totals(self, totals: dict[str, int]) -> None:
        """Set the replica's totals since its start, by the names of `openguild_proto.replica.outputs.Counters`."""
        before, self._replica_before = self._replica_before, totals
        grown = {name: total - before.get(name, 0) for name, total in totals.items()}
        self._subscribers.set(totals["subscribers"])
        self._events["delivered"].inc(grown["delivered"])
        self._events["no_subscribers"].inc(grown["undelivered"])
        self._events["dropped"].inc(grown["dropped"] + grown["missed"])
        self._lag_closes.inc(grown["lagged"])
        self._replayed.inc(grown["replayed"])
        self._gaps.inc(grown["gaps"])
        self._backfilled.inc(grown["backfilled"])
        self._renewals.set(totals["renewals"])

    # --- connections and streams -----------------------------------------------------------------------

    def connection_opened(self) -> None:
        self._connections.inc()
        self._accepted.inc()

    def accept_failed(self) -> None:
        self._not_accepted.inc()

    def connection_closed(self) -> None:
        self._connections.dec()

    def socket_opened(self) -> None:
        self._sockets.inc()

    def socket_closed(self) -> None:
        self._sockets.dec()

    def delivery_latency(self, seconds: float) -> None:
        self._latency.observe(seconds)

    def flushed(self, sends: int) -> None:
        self._flush_sends.inc(sends)

    def depths(self, depths: Depths) -> None:
        """Set the depths of the rings."""
        self._depths.depths = depths

    def gateway(self, totals: GatewayTotals) -> None:
        """Set the totals of the gateway."""
        self._gateway_sockets.set(totals.sockets)
        self._gateway_logs.set(totals.subscriptions)
        self._gateway_from_log.set(totals.from_log)

    # --- storage and bus -------------------------------------------------------------------------------

    def batch_committed(self, events: int, seconds: float) -> None:
        self._batch_size.observe(events)
        self._batch_secs.observe(seconds)

    def commit_queue(self, depth: int) -> None:
        self._queue_depth.set(depth)

    def unindexed(self, messages: int) -> None:
        self._unindexed.set(messages)

    def pool(self, size: int, idle: int, shared_free: int) -> None:
        self._pool.labels("idle").set(idle)
        self._pool.labels("used").set(size - idle)
        self._shared_free.set(shared_free)

    def db_ready(self, ready: bool) -> None:
        self._db_ready.set(ready)

    def db_failed(self, writes: bool, cause: str) -> None:
        """Count a failed statement. `cause` is a name in database_causes.py."""
        self._db_failures.labels("write" if writes else "read", cause).inc()

    def bus_connected(self, connected: bool) -> None:
        self._bus.set(connected)

    def bus_reconnected(self) -> None:
        self._bus_reconnects.inc()

    def publish_dropped(self) -> None:
        self._publishes_dropped.inc()

    def bus_fault(self, kind: str) -> None:
        """Count a fault. `kind` is one of the faults of the bus's series."""
        self._bus_faults[kind].inc()

    def denied_subjects(self, count: int) -> None:
        self._denied_subjects.set(count)

    def other_databases(self, count: int) -> None:
        self._other_databases.set(count)

    def limit_divisor(self, divisor: int) -> None:
        self._limit_divisor.set(divisor)

    # --- process ---------------------------------------------------------------------------------------

    def loop_stall(self, seconds: float) -> None:
        self._stall.observe(seconds)
        self._longest_stall.add(seconds)

    def longest_stall_secs(self) -> float:
        """Return the longest stall in the last one to two windows."""
        return self._longest_stall.value()

    def clock_difference(self, seconds: float) -> None:
        self._clock_difference.set(seconds)

    def log_lines_dropped(self, lines: int) -> None:
        """Set the number of log lines that the process has dropped so far."""
        self._log_dropped.inc(lines - self._log_dropped_before)
        self._log_dropped_before = lines

    def token_keys(self, fingerprints: tuple[str, ...]) -> None:
        """Set the fingerprints of the keys of access tokens: first the signing key, then the other accepted keys."""
        if fingerprints == self._fingerprints:
            return
        self._fingerprints = fingerprints
        self._token_keys.clear()
        for place, fingerprint in enumerate(fingerprints):
            self._token_keys.labels(fingerprint, "fallback" if place else "signing").set(1)

    def settings(self, digest: str) -> None:
        """Name the settings in force, by `openguild_runtime.admin.reload.settings_digest`."""
        self._settings.clear()
        self._settings.labels(digest).set(1)

    def reloaded(self, successful: bool) -> None:
        self._reload.set(successful)

    def draining(self, draining: bool) -> None:
        self._draining.set(draining)

    def chunks(self) -> Iterator[bytes]:
        """Yield the Prometheus text 0.0.4 in chunks that take about a millisecond each, so that the loop can run in between."""
        self._stall_max.set(self._longest_stall.value())
        for collector in list(self.registry._collector_to_names):
            if isinstance(collector, MetricWrapperBase | RequestMetrics):  # may have many samples
                for family, samples in _families(collector):
                    yield from _family_chunks(family, samples)
            else:
                yield generate_latest(collector)

    def render(self) -> bytes:
        """Return the whole text."""
        return b"".join(self.chunks())
