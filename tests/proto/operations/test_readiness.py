"""What `/ready` says, and what the log says when the store changes."""

from __future__ import annotations

import pytest

from openguild_proto.effects.process import ComponentState, Readiness, StorageHealth
from openguild_proto.operations.readiness import (
    NO_RESPONSE,
    NOTHING_KNOWN,
    describe_bus,
    describe_change,
    describe_readiness,
)
from openguild_proto.policy.lifecycle import Lifecycle
from openguild_proto.policy.standbys import StandbyState

GOOD = StorageHealth(database=True, migrations=True)
READ_ONLY = StorageHealth(database=True, migrations=True, writable=False, cause="read_only")
AWAY = StorageHealth(database=False, migrations=False, writable=False, cause="refused")
BUS = describe_bus("nats", "NATS", None)


def readiness(
    health: StorageHealth = GOOD,
    bus: ComponentState = BUS,
    *,
    started: bool = True,
    draining: bool = False,
    is_memory: bool = False,
    descriptors_short: bool = False,
    standbys: tuple[StandbyState | None, ...] = (),
) -> Readiness:
    lifecycle = Lifecycle()
    if started:
        lifecycle.started()
    if draining:
        lifecycle.drain()
    return describe_readiness(
        health,
        bus,
        lifecycle,
        is_memory=is_memory,
        descriptors_short=descriptors_short,
        uptime_seconds=1,
        standbys=standbys,
    )


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (readiness(), "ready"),
        (readiness(started=False), "unavailable"),
        (readiness(AWAY), "unavailable"),
        (readiness(READ_ONLY), "unavailable"),
        (readiness(NOTHING_KNOWN), "unavailable"),
        (readiness(NO_RESPONSE), "unavailable"),
        (readiness(bus=describe_bus("nats", "NATS", "cannot be reached")), "degraded"),
        (readiness(bus=ComponentState("nats", "pending", "not configured")), "ready"),
        (readiness(descriptors_short=True), "degraded"),
        (readiness(standbys=(StandbyState.SERVING, StandbyState.SERVING)), "ready"),
        (readiness(standbys=(StandbyState.SERVING, StandbyState.APART)), "degraded"),
        (readiness(AWAY, draining=True), "draining"),
        (readiness(draining=True), "draining"),
    ],
)
def test_status(found: Readiness, status: str) -> None:
    assert found.status == status


def test_components_say_what_is_wrong() -> None:
    found = readiness(READ_ONLY, describe_bus("nats", "NATS", "cannot be reached"), descriptors_short=True)
    assert [(part.name, part.status) for part in found.components] == [
        ("database", "error"), ("migrations", "configured"), ("nats", "error"), ("drain", "configured"),
        ("descriptors", "error"),
    ]  # fmt: skip
    assert found.components[0].details == "does not accept writes (read_only)"
    assert found.components[2].details == "NATS cannot be reached"


def test_memory_storage_is_named() -> None:
    assert readiness(is_memory=True).components[0].details.startswith("memory storage")


@pytest.mark.parametrize(
    ("before", "now", "line"),
    [
        (NOTHING_KNOWN, GOOD, ("info", "database reachable")),
        (GOOD, AWAY, ("warning", "database not reachable")),
        (GOOD, READ_ONLY, ("warning", "database does not accept writes")),
        (READ_ONLY, GOOD, ("info", "database accepts writes again")),
        (GOOD, GOOD, None),
        (AWAY, AWAY, None),
    ],
)
def test_a_change_of_the_store_is_one_line(
    before: StorageHealth, now: StorageHealth, line: tuple[str, str] | None
) -> None:
    assert describe_change(before, now) == line


def test_standbys_that_are_left_out_are_named() -> None:
    def shown(*standbys: StandbyState | None) -> list[tuple[str, str]]:
        components = readiness(standbys=standbys).components
        return [(each.status, each.details) for each in components if each.name == "standbys"]

    assert shown() == []
    serving, failed = StandbyState.SERVING, StandbyState.FAILED
    assert shown(serving, serving) == [("configured", "2 serve reads")]
    assert shown(serving, failed) == [("error", "1 of 2 left out: 1 is FAILED")]
    assert shown(None, failed) == [("error", "2 of 2 left out: 0 is not checked yet, 1 is FAILED")]
