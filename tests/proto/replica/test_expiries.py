"""Streams end with their tokens, by the wall clock, also when that is set."""

from __future__ import annotations

import pytest

from openguild_proto.limits import MAX_CLOCK_DRIFT_SECS
from openguild_proto.replica.actions import ExpireAt
from openguild_proto.ws import reasons
from openguild_proto.ws.close_codes import CloseCode
from tests.support.driven_replica import Driven

WALL = 1_700_000_000.0


@pytest.fixture
def driven() -> Driven:
    driven = Driven()
    driven.wall = WALL
    driven.replica.wall_clock(WALL, now=driven.now)
    return driven


def test_a_stream_that_joins_ends_with_its_token(driven: Driven) -> None:
    socket = driven.open(driven.elsewhere.user(), expires_ms=int(WALL * 1000) + 60_000)
    assert driven.taken(ExpireAt) == [
        ExpireAt(socket, driven.now + 60, CloseCode.TOKEN_ENDED, reasons.EXPIRED),
    ]


def test_every_stream_gets_its_deadline_anew_when_the_clock_was_set(driven: Driven) -> None:
    sockets = [driven.open(driven.elsewhere.user(), expires_ms=int(WALL * 1000) + 60_000) for _ in range(3)]
    driven.leave(sockets.pop())
    driven.taken(ExpireAt)
    driven.replica.wall_clock(WALL + 50, now=driven.now)
    driven.perform_actions()
    assert {(expiry.socket, expiry.deadline) for expiry in driven.taken(ExpireAt)} == {
        (socket, driven.now + 10) for socket in sockets
    }
    assert "the wall clock was moved by +50.0 s" in driven.lines[-1]


def test_a_clock_that_only_drifts_changes_no_deadline(driven: Driven) -> None:
    driven.open(driven.elsewhere.user(), expires_ms=int(WALL * 1000) + 60_000)
    driven.taken(ExpireAt)
    driven.sleep(10)
    driven.replica.wall_clock(WALL + 10 + MAX_CLOCK_DRIFT_SECS / 2, now=driven.now)
    driven.perform_actions()
    assert driven.taken(ExpireAt) == []
