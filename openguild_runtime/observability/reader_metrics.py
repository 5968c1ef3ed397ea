"""Metrics of slow readers: how far they are behind, and how many events were missed by those that were closed."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from openguild_proto.replica.backlogs import Depths

MAX_CHANNELS = 20
DEPTH_SERIES = 100  # PROTOCOL 11.2.5


class DepthCollector(Collector):
    """Exports `depths`, which is set at each scrape. Idle channels have no series (PROTOCOL 11.2.5)."""

    def __init__(self) -> None:
        self.depths = Depths([], 0)

    def collect(self) -> Iterable[Metric]:
        channels, notifications = self.depths
        family = GaugeMetricFamily(
            "openguild_websocket_queue_depth",
            "Events by which the slowest subscriber of a channel is behind",
            labels=["channel_id"],
        )
        for channel_id, depth in channels[:DEPTH_SERIES]:
            family.add_metric([channel_id], depth)
        yield family
        yield GaugeMetricFamily(
            "openguild_websocket_queue_depth_max",
            "Largest backlog of a channel in this process",
            value=channels[0][1] if channels else 0,
        )
        yield GaugeMetricFamily(
            "openguild_notification_queue_depth_max",
            "Events by which the slowest notification stream of this process is behind",
            value=notifications,
        )


class MissedEvents(Collector):
    """Exports `by_channel`, pairs (channel ID, events) in descending order of events."""

    def __init__(self) -> None:
        self.by_channel: list[tuple[str, int]] = []

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "openguild_channel_missed_events",
            "Events missed by readers that were closed as too slow within ten minutes, by channel",
            labels=["channel_id"],
        )
        for channel_id, missed in self.by_channel[:MAX_CHANNELS]:
            family.add_metric([channel_id], missed)
        yield family
