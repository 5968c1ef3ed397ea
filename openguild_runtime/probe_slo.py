"""The playbook's thresholds against one reading of `/metrics`, for the validation after a deploy.

A reading holds what happened since the process started; a release that has just been rolled out started with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families

P95_LIMIT_SECS = 0.75  # playbook: HTTP p95
QUEUE_DEPTH_LIMIT = 196  # playbook: per channel
SERVER_ERROR_SHARE = 0.001  # SLO: 99.9% of requests are not the server's failure

Sample = tuple[str, dict[str, str], float]


def check_slo(text: str) -> dict[str, str | None]:
    """Each objective, and what is wrong with it or None. Raises ValueError for what is no exposition."""
    samples = list(_samples(text))
    return {
        "latency": _latency(samples),
        "errors": _errors(samples),
        "dropped": _none_of(samples, "openguild_messaging_events_total", {"outcome": "dropped"}, "events were dropped"),
        "queue depth": _depth(samples),
        "database": _is_one(samples, "openguild_db_ready", "the database cannot be reached"),
        "nats": _is_one(samples, "openguild_nats_connected", "NATS is away"),
    }


def _samples(text: str) -> Iterator[Sample]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


def _latency(samples: list[Sample]) -> str | None:
    buckets: dict[float, float] = {}
    for name, labels, value in samples:
        if name == "openguild_http_request_duration_seconds_bucket":
            bound = float(labels["le"])
            buckets[bound] = buckets.get(bound, 0.0) + value
    total = buckets.get(math.inf, 0.0)
    if total == 0:
        return None
    within = min(bound for bound, count in buckets.items() if count >= 0.95 * total)
    return None if within <= P95_LIMIT_SECS else f"95% of requests need up to {within} s, {P95_LIMIT_SECS} allowed"


def _errors(samples: list[Sample]) -> str | None:
    counts = [(labels, value) for name, labels, value in samples if name == "openguild_http_requests_total"]
    total = sum(value for _, value in counts)
    failed = sum(value for labels, value in counts if labels["status"] in {"500", "502", "504"})
    if total == 0 or failed / total <= SERVER_ERROR_SHARE:
        return None
    return f"{failed:.0f} of {total:.0f} requests failed"


def _none_of(samples: list[Sample], wanted: str, labels: dict[str, str], problem: str) -> str | None:
    count = sum(value for name, found, value in samples if name == wanted and labels.items() <= found.items())
    return f"{count:.0f} {problem}" if count else None


def _depth(samples: list[Sample]) -> str | None:
    deepest = max((value for name, _, value in samples if name == "openguild_websocket_queue_depth_max"), default=0.0)
    return f"a subscriber is {deepest:.0f} events behind" if deepest > QUEUE_DEPTH_LIMIT else None


def _is_one(samples: list[Sample], wanted: str, problem: str) -> str | None:
    values = [value for name, _, value in samples if name == wanted]
    return problem if values and min(values) < 1 else None
