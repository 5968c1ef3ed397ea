"""Metrics of standbys of the database. The label `standby` is the index in `database.replica_urls`."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from openguild_proto.policy.standbys import StandbyStats


class StandbyCollector(Collector):
    """Exports `standbys`, which is set before each scrape. Without standbys, the families have no samples."""

    def __init__(self) -> None:
        self.standbys: tuple[StandbyStats, ...] = ()

    def collect(self) -> Iterable[Metric]:
        serving = GaugeMetricFamily(
            "openguild_standby_serving", "1 if reads go to this standby of the database", labels=["standby"]
        )
        reads = CounterMetricFamily(
            "openguild_standby_reads",
            "Reads planned for this standby, by the server that answered: the primary, if the standby was late or failed",
            labels=["standby", "by"],
        )
        for number, stats in enumerate(self.standbys):
            serving.add_metric([str(number)], stats.serving)
            reads.add_metric([str(number), "standby"], stats.reads)
            reads.add_metric([str(number), "primary"], stats.missed)
        return serving, reads
