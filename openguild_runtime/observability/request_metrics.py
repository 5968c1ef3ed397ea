"""Counts answered requests by route and status.

The counts are plain numbers, used by the loop's thread only, and become samples at a scrape.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from openguild_runtime.observability.buckets import Buckets

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds; PROTOCOL 11.2.3
LABELS = ("route", "status")


class _Series:
    """The durations of one route and status."""

    __slots__ = ("labels", "secs")

    def __init__(self, route: str, status: int) -> None:
        self.labels = {"route": route, "status": str(status)}
        self.secs = Buckets(BUCKETS)


class RequestMetrics(Collector):
    """The families `openguild_http_requests` and `openguild_http_request_duration_seconds`."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, int], _Series] = {}

    def count(self, route: str, status: int, secs: float) -> None:
        """Count a request. `route` is a template or `unmatched`, never a path."""
        series = self._series.get((route, status))
        if series is None:
            series = self._series[route, status] = _Series(route, status)
        series.secs.observe(secs)

    def families(self) -> Iterator[tuple[Metric, Iterator[Sample]]]:
        """Yield each family without samples, and an iterator of its samples."""
        counter = CounterMetricFamily("openguild_http_requests", "HTTP requests answered", labels=LABELS)
        yield counter, self._totals(counter.name)
        histogram = HistogramMetricFamily(
            "openguild_http_request_duration_seconds",
            "From the request's last byte to its response queued",
            labels=LABELS,
        )
        yield histogram, self._buckets(histogram.name)

    def collect(self) -> Iterable[Metric]:
        """Yield both families with all samples."""
        for family, samples in self.families():
            family.samples = list(samples)
            yield family

    def _totals(self, name: str) -> Iterator[Sample]:
        for series in list(self._series.values()):
            yield Sample(f"{name}_total", series.labels, series.secs.count)

    def _buckets(self, name: str) -> Iterator[Sample]:
        for series in list(self._series.values()):
            yield from series.secs.samples(name, series.labels)
