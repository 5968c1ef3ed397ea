"""Waits between attempts to connect."""

from __future__ import annotations

from openguild_proto.bus.nats import CLOSED, UNREACHABLE
from openguild_proto.bus.reconnects import (
    LEAST_WAIT_SECS,
    MAX_RECONNECT_WAIT_SECS,
    MAX_UNREACHABLE_WAIT_SECS,
    Reconnects,
)


def test_waits_grow_to_their_bound_by_what_failed() -> None:
    reconnects = Reconnects(lambda: 1.0)
    unreachable = [reconnects.failed(UNREACHABLE) for _ in range(10)]
    closed = [reconnects.failed(CLOSED) for _ in range(10)]
    assert unreachable == sorted(unreachable)
    assert unreachable[-1] == LEAST_WAIT_SECS + MAX_UNREACHABLE_WAIT_SECS
    assert closed[-1] == LEAST_WAIT_SECS + MAX_RECONNECT_WAIT_SECS
    assert reconnects.failed_attempts == 20


def test_only_a_connection_that_lasts_resets_the_wait() -> None:
    reconnects = Reconnects(lambda: 1.0)
    reconnects.connected()
    assert reconnects.failed_attempts == 0
    waits = [reconnects.ended(1.0) for _ in range(10)]
    assert waits[-1] == LEAST_WAIT_SECS + MAX_RECONNECT_WAIT_SECS
    assert reconnects.ended(MAX_RECONNECT_WAIT_SECS + 1) == waits[0]


def test_an_unreachable_server_that_was_reached_is_tried_soon_again() -> None:
    reconnects = Reconnects(lambda: 1.0)
    first = reconnects.failed(UNREACHABLE)
    reconnects.failed(UNREACHABLE)
    reconnects.connected()
    assert reconnects.failed(UNREACHABLE) == first
