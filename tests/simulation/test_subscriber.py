"""A simulated subscriber reports events that come long after its right has ended, if the right has not returned."""

from __future__ import annotations

import pytest

from openguild_proto.canonical.signing import SigningKey
from tests.simulation.keys import Keys
from tests.simulation.rights import END_SECS
from tests.simulation.scenario import Run
from tests.simulation.subscriber import Subscriber

QUIET_SECS = 20.0  # without faults; longer than the time in which a lost right must take effect


@pytest.fixture
def run() -> Run:
    run = Run(1)
    run.cluster.start()
    run.clock.run(0.05)
    run._gather()
    run.clock.run(QUIET_SECS)
    return run


def take_last_again(run: Run) -> None:
    """Let a subscriber that lost its right long ago receive its last event again."""
    subscriber = next(reader for reader in run.subscribers if _has_late_event(run, reader))
    assert subscriber.connection is not None
    assert subscriber.connection.socket is not None
    subscriber.connection.socket.without_right_since = 0.0
    subscriber._take(subscriber.received.pop())


def _has_late_event(run: Run, reader: Subscriber) -> bool:
    is_open = reader.connection is not None and reader.connection.is_open
    return is_open and len(reader.received) > 0 and run.cluster.database.ledger.log(reader.channel_id)[-1].at > END_SECS


def test_right_that_has_come_back_since_it_was_looked_at_ends_nothing(run: Run) -> None:
    take_last_again(run)
    assert run.report.violations == []


def test_event_that_came_long_after_the_right_had_ended_is_reported(run: Run) -> None:
    run.cluster.keys = Keys(SigningKey(bytes([1] * 32)))  # which no process knows
    take_last_again(run)
    (violation,) = run.report.violations
    assert "got an event that was stored long after its right had ended" in violation
