"""Histograms without locks, used by the loop's thread only. The library's lock for each bucket and value."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString


class Buckets:
    """Counts values in buckets with upper `bounds`, and a last bucket without a bound."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self._counts)

    def samples(self, name: str, labels: Mapping[str, str]) -> Iterator[Sample]:
        """Yield the samples of a histogram `name`."""
        counts, whole = self._counts.copy(), self._sum
        total = 0
        for bound, count in zip((*self._bounds, float("inf")), counts, strict=True):
            total += count
            le: str = floatToGoString(bound)  # type: ignore[no-untyped-call]  # the library annotates only some
            yield Sample(f"{name}_bucket", {**labels, "le": le}, total)
        yield Sample(f"{name}_count", dict(labels), total)
        yield Sample(f"{name}_sum", dict(labels), whole)


class Histogram(Collector):
    """One histogram without labels."""

    def __init__(self, name: str, documentation: str, bounds: tuple[float, ...]) -> None:
        self._name, self._documentation = name, documentation
        self._buckets = Buckets(bounds)
        self.observe = self._buckets.observe

    def collect(self) -> Iterable[Metric]:
        """Yield the family with its samples."""
        family = HistogramMetricFamily(self._name, self._documentation)
        family.samples = list(self._buckets.samples(self._name, {}))
        yield family
