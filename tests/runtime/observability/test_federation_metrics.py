"""Lost owners in the metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from openguild_proto.effects.handovers import SilentOwner
from openguild_runtime.observability.federation_metrics import OTHER, SERVER_SERIES, FederationMetrics

NAME = "openguild_federation_lost_owner_guilds"


def test_owners_that_are_heard_of_again_are_shown_no_more() -> None:
    registry = CollectorRegistry()
    metrics = FederationMetrics(registry)
    metrics.lost((SilentOwner("north.test", 3), SilentOwner("east.test", 1)))
    assert registry.get_sample_value(NAME, {"server": "north.test"}) == 3
    metrics.lost((SilentOwner("east.test", 1),))
    assert registry.get_sample_value(NAME, {"server": "north.test"}) is None
    assert registry.get_sample_value(NAME, {"server": "east.test"}) == 1


def test_those_without_a_series_are_added_up() -> None:
    registry = CollectorRegistry()
    metrics = FederationMetrics(registry)
    metrics.lost(SilentOwner(f"{number}.test", 2) for number in range(SERVER_SERIES + 2))
    assert registry.get_sample_value(NAME, {"server": OTHER}) == 4
