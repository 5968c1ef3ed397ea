"""What the metrics show of deliveries to other servers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from openguild_proto.delivery.shared import Counters
from openguild_runtime.observability.delivery_metrics import DeliveryCollector


def test_servers_beyond_the_bound_are_shown_as_one() -> None:
    collector = DeliveryCollector(lambda server: server if server == "a" else "other")
    registry = CollectorRegistry()
    registry.register(collector)
    peers = []
    for number, server in enumerate("abc", start=1):
        counters = Counters()
        counters.requests, counters.behind = number, 10 * number
        peers.append((server, counters))
    collector.peers = peers
    lines = generate_latest(registry).decode().splitlines()
    assert 'openguild_federation_delivery_requests_total{server="a"} 1.0' in lines
    assert 'openguild_federation_delivery_requests_total{server="other"} 5.0' in lines
    assert 'openguild_federation_behind_events{server="other"} 50.0' in lines
    assert 'openguild_federation_backoff_seconds{server="a"} 0.0' in lines
