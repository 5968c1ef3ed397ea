"""A replica that stops sends its streams elsewhere, in waves."""

from __future__ import annotations

import itertools
import random

import pytest

from openguild_proto.limits import MIN_WAVE_SOCKETS, WAVE_SECS
from openguild_proto.policy.drain_waves import plan_waves
from openguild_proto.ws import reasons
from openguild_proto.ws.close_codes import CloseCode
from tests.support.driven_replica import Driven, Socket


def open_many(driven: Driven, count: int) -> list[Socket]:
    user = driven.elsewhere.user()
    channel = driven.elsewhere.channel(user)
    return [driven.open(user, channel) for _ in range(count)]


@pytest.mark.parametrize(("count", "window_secs"), [(1, 10.0), (MIN_WAVE_SOCKETS, 10.0), (400, 2.0), (400, 0.1)])
def test_waves_are_of_the_planned_size_and_over_in_half_of_the_window(count: int, window_secs: float) -> None:
    driven = Driven(jitter=random.Random(1).random)
    sockets = open_many(driven, count)
    waves = plan_waves(count, window_secs)
    driven.replica.drain(window_secs, now=driven.now)
    driven.perform_actions()
    gone = [sum(socket.closed is not None for socket in sockets)]
    while gone[-1] < count:
        driven.sleep(waves.pause_secs)
        gone.append(sum(socket.closed is not None for socket in sockets))
    sizes = [gone[0], *(after - before for before, after in itertools.pairwise(gone))]
    assert sizes == [waves.size] * (count // waves.size) + [count % waves.size] * (count % waves.size > 0)
    assert (len(sizes) - 1) * WAVE_SECS <= window_secs / 2
    assert driven.replica.counters.subscribers == 0


def test_each_client_is_told_a_time_of_its_own_to_come_back() -> None:
    driven = Driven(jitter=random.Random(1).random)
    sockets = open_many(driven, 60)
    spread_secs = plan_waves(60, 10.0).spread_ms / 1000
    driven.replica.drain(10.0, now=driven.now)
    driven.perform_actions()
    driven.sleep(5.0)
    delays = []
    for socket in sockets:
        assert socket.closed is not None
        assert socket.closed.code == CloseCode.SERVICE_RESTART
        delays.append(reasons.reconnect_secs(socket.closed.reason) or 0.0)
    assert len(set(delays)) > 40
    assert all(0 <= delay < spread_secs for delay in delays)


def test_who_goes_first_is_left_to_chance() -> None:
    driven = Driven(jitter=random.Random(1).random)
    sockets = open_many(driven, 4 * MIN_WAVE_SOCKETS)
    driven.replica.drain(10.0, now=driven.now)
    driven.perform_actions()
    first = [number for number, socket in enumerate(sockets) if socket.closed is not None]
    assert first != list(range(len(first)))


def test_a_socket_that_left_meanwhile_hurts_nobody() -> None:
    driven = Driven(jitter=random.Random(1).random)
    sockets = open_many(driven, 2 * MIN_WAVE_SOCKETS)
    driven.replica.drain(10.0, now=driven.now)
    driven.perform_actions()
    for socket in sockets:
        if socket.closed is None:
            driven.leave(socket)
    driven.sleep(5.0)
    assert driven.replica.streams.sockets() == []
    assert driven.leftovers() == {}


def test_a_drain_without_streams_does_nothing() -> None:
    driven = Driven()
    driven.replica.drain(10.0, now=driven.now)
    driven.perform_actions()
    assert driven.actions == []
    assert driven.replica.next_deadline() is None
