"""Metrics of other servers (PROTOCOL 11.2). At most SERVER_SERIES servers have their own series."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge

from openguild_proto.effects.federation import PEER_FAILURES
from openguild_proto.effects.handovers import SilentOwner
from openguild_runtime.observability.delivery_metrics import DeliveryCollector

SERVER_SERIES = 100
OTHER = "other"


class FederationMetrics:
    """Metrics by server. A server becomes a label after a valid signature of it, or a request of this server's users to it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._servers: set[str] = set()
        failures = Counter(
            "openguild_federation_failures", "Requests to other servers without a valid answer, by cause",
            ["reason"], registry=registry,
        )  # fmt: skip
        self._failures = {reason: failures.labels(reason) for reason in PEER_FAILURES}
        self._failed = Counter(
            "openguild_federation_failed_requests",
            "Requests to other servers without a valid answer, by server",
            ["server"],
            registry=registry,
        )
        self._asked = Counter(
            "openguild_federation_answers", "Valid answers of other servers", ["server"], registry=registry
        )
        self._heard = Counter(
            "openguild_federation_requests", "Requests of other servers with a valid signature",
            ["server"], registry=registry,
        )  # fmt: skip
        self.deliveries = DeliveryCollector(self.label)
        registry.register(self.deliveries)
        self._ahead = Gauge(
            "openguild_federation_clock_ahead_seconds",
            "How far another server's clock was ahead of ours at its last request; beyond 300 either way it is refused",
            ["server"], registry=registry,
        )  # fmt: skip
        self._lost = Gauge(
            "openguild_federation_lost_owner_guilds",
            "Guilds mirrored from a server without contact for federation.owner_lost_after_secs",
            ["server"], registry=registry,
        )  # fmt: skip

    def label(self, server: str) -> str:
        """Return the server's name, or `other` beyond SERVER_SERIES names."""
        if server not in self._servers:
            if len(self._servers) >= SERVER_SERIES:
                return OTHER
            self._servers.add(server)
        return server

    def failed(self, server: str, reason: str) -> None:
        """Count a request without a valid answer. `reason` is one of PEER_FAILURES."""
        self._failures[reason].inc()
        self._failed.labels(self.label(server)).inc()

    def answered(self, server: str) -> None:
        """Count an answer with a valid signature."""
        self._asked.labels(self.label(server)).inc()

    def count_request(self, server: str, ahead_secs: float) -> None:
        """Count a request with a valid signature. `ahead_secs` is how far its server's clock is ahead, to a second."""
        label = self.label(server)
        self._heard.labels(label).inc()
        self._ahead.labels(label).set(ahead_secs)

    def lost(self, owners: Iterable[SilentOwner]) -> None:
        """Set the owners that are lost."""
        guilds = Counts[str]()
        for owner in owners:
            guilds[self.label(owner.server)] += owner.guilds
        self._lost.clear()
        for label, count in guilds.items():
            self._lost.labels(label).set(count)
