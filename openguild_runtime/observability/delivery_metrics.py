"""Metrics of deliveries to other servers, read at each scrape (PROTOCOL 11.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from openguild_proto.delivery.shared import Counters

TOTALS = (
    ("requests", "openguild_federation_delivery_requests", "Requests with events for another server"),
    ("events", "openguild_federation_delivered_events", "Events sent to another server"),
    (
        "failures",
        "openguild_federation_delivery_failures",
        "Failed deliveries to another server, which are retried later",
    ),
    ("held", "openguild_federation_logs_not_taken", "Logs whose events another server does not accept now"),
)
LEVELS = (
    (
        "behind",
        "openguild_federation_behind_events",
        "Events not yet delivered to another server, as far as they were counted",
    ),
    ("backoff_secs", "openguild_federation_backoff_seconds", "Current backoff of the delivery to another server"),
)


class DeliveryCollector(Collector):
    """Collects the counters of peers. `label` returns the label of a server, the same one for all beyond its bound."""

    def __init__(self, label: Callable[[str], str]) -> None:
        self.peers: Iterable[tuple[str, Counters]] = ()
        self._label = label

    def collect(self) -> Iterable[Metric]:
        """Yield the metric families."""
        peers = [(self._label(server), counters) for server, counters in self.peers]
        for name, series, text in TOTALS:
            yield _filled(CounterMetricFamily(series, text, labels=["server"]), name, peers)
        for name, series, text in LEVELS:
            yield _filled(GaugeMetricFamily(series, text, labels=["server"]), name, peers)


def _filled(
    family: CounterMetricFamily | GaugeMetricFamily, name: str, peers: Iterable[tuple[str, Counters]]
) -> CounterMetricFamily | GaugeMetricFamily:
    values: dict[str, float] = {}
    for server, counters in peers:
        values[server] = values.get(server, 0.0) + getattr(counters, name)
    for server, value in values.items():
        family.add_metric([server], value)
    return family
