"""Waits that grow, and begin anew only when a connection has lasted."""

from __future__ import annotations

from openguild_proto.policy.backoff import Backoff


def test_connections_that_end_at_once_make_the_waits_grow() -> None:
    backoff = Backoff(lambda: 0.5, base_secs=0.5, max_secs=15)
    waits = []
    for _ in range(8):
        backoff.connection_ended(14.9)
        waits.append(backoff.next_delay())
    assert waits == [0.25, 0.5, 1, 2, 4, 7.5, 7.5, 7.5]
    backoff.connection_ended(15.1)
    assert backoff.next_delay() == 0.25
