"""What a scrape sees of a histogram of plain numbers is what the library's own would show."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Histogram as LibraryHistogram

from openguild_runtime.observability.buckets import Histogram
from openguild_runtime.observability.metrics import BATCH_BUCKETS, FAST_BUCKETS, Metrics


def test_a_histogram_is_exposed_as_the_librarys() -> None:
    for bounds in (FAST_BUCKETS, BATCH_BUCKETS):
        ours, theirs = CollectorRegistry(), CollectorRegistry()
        plain = Histogram("a_measure", "What is measured", bounds)
        ours.register(plain)
        library = LibraryHistogram("a_measure", "What is measured", buckets=bounds, registry=theirs)
        assert generate_latest(ours) == generate_latest(theirs)
        for value in (0.0, bounds[0], bounds[0] * 1.01, bounds[3], bounds[-1], bounds[-1] + 1):
            plain.observe(value)
            library.observe(value)
        assert generate_latest(ours) == generate_latest(theirs)


def test_what_the_server_measures_is_counted() -> None:
    metrics = Metrics("0", native_ring=False)
    metrics.batch_committed(3, 0.002)
    metrics.loop_stall(0.0)
    shown = generate_latest(metrics.registry).decode()
    for line in (
        'openguild_append_batch_size_bucket{le="2.0"} 0.0', 'openguild_append_batch_size_bucket{le="4.0"} 1.0',
        "openguild_append_batch_size_sum 3.0", "openguild_append_duration_seconds_count 1.0",
        'openguild_loop_stall_seconds_bucket{le="0.0005"} 1.0',
    ):  # fmt: skip
        assert line in shown
