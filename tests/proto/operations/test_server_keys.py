"""Reading the keys of other servers: rotation, failures, strangers, limits."""

from __future__ import annotations

from typing import Any

import pytest

from openguild_proto.canonical.signing import SigningKey
from openguild_proto.effects import Effect, Operation
from openguild_proto.effects.federation import (
    Discover,
)
from openguild_proto.federation.keys import DAY_MS
from openguild_proto.http.message import Response
from openguild_proto.operations.dispatch import dispatch
from openguild_proto.policy.ratelimit import SlidingWindow
from tests.support.servers import PING, Network, ServerWorld, failure, refusal


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def a(network: Network) -> ServerWorld:
    return ServerWorld(network, "a.example")


@pytest.fixture
def b(network: Network) -> ServerWorld:
    return ServerWorld(network, "b.example")


def test_a_rotated_key_is_found_and_the_old_one_lives_for_a_week(
    network: Network, a: ServerWorld, b: ServerWorld
) -> None:
    a.ask_server("b.example", "GET", PING)
    old, _ = a.signed("GET", PING, authority="b.example")
    a.use_key("2", SigningKey(b"2" * 32))
    for world in (a, b):
        world.wall_ms += 61_000
    assert b.run(old).status == 200  # type: ignore[union-attr]  # a response
    assert a.ask_server("b.example", "GET", PING).status == 200
    former = a.service.retired_signers[0]
    for world in (a, b):
        world.wall_ms += 8 * DAY_MS
        world.record_key()
    a.service.signer, current = former, a.service.signer
    late, _ = a.signed("GET", PING, authority="b.example")
    a.service.signer = current
    assert refusal(b, late)[2] == "expired_key"
    assert a.ask_server("b.example", "GET", PING).status == 200


def test_keys_that_change_each_second_are_read_once_a_minute(network: Network, a: ServerWorld, b: ServerWorld) -> None:
    faults = []
    for second in range(20):
        a.use_key(f"k{second}", SigningKey(bytes([second]) * 32))
        answer = b.run(a.signed("GET", PING, authority="b.example")[0])
        assert isinstance(answer, Response)
        faults.append(answer.status)
        a.wall_ms += 1_000
        b.wall_ms += 1_000
    assert faults == [200, *[401] * 19]
    assert network.fetched == ["https://a.example/.well-known/openguild", "https://a.example/federation/v1/keys"]


def test_a_server_whose_keys_cannot_be_read_is_tried_less_and_less(
    network: Network, a: ServerWorld, b: ServerWorld
) -> None:
    del network.servers["a.example"]
    tried = []
    for second in range(200):
        before = len(network.fetched)
        assert refusal(b, a.signed("GET", PING, authority="b.example")[0])[2] == "unknown_server"
        if len(network.fetched) > before:
            tried.append(second)
        for world in (a, b):
            world.wall_ms += 1_000
    assert tried == [0, 5, 15, 35, 75, 135, 195]
    network.servers["a.example"] = a
    for world in (a, b):
        world.wall_ms += 61_000
    assert b.run(a.signed("GET", PING, authority="b.example")[0]).status == 200  # type: ignore[union-attr]  # a response


def test_a_name_that_users_ask_for_is_tried_less_and_less(network: Network, a: ServerWorld) -> None:
    for _ in range(5):
        assert failure(a, "nowhere.example") in {"connect", "discovery"}
    assert network.fetched == ["https://nowhere.example/.well-known/openguild"]
    a.service.peers.retry("nowhere.example")
    assert failure(a, "nowhere.example") == "connect"


def test_requests_of_a_stranger_at_once_wait_for_the_same_keys(
    network: Network, a: ServerWorld, b: ServerWorld
) -> None:
    first, second = (dispatch(b.context(), a.signed("GET", PING, authority="b.example")[0]) for _ in range(2))

    def until_discovery(operation: Operation[Any]) -> Effect[Any]:
        effect = next(operation)
        while not isinstance(effect, Discover):
            effect = operation.send(b.perform(effect))
        return effect

    wanted = [until_discovery(operation) for operation in (first, second)]
    peer = b.perform(wanted[0])
    for operation in (first, second):
        with pytest.raises(StopIteration) as end:
            effect = operation.send(peer)
            while True:
                effect = operation.send(b.perform(effect))
        assert end.value.value.status == 200


def test_known_keys_are_good_while_the_server_cannot_be_asked(network: Network, a: ServerWorld, b: ServerWorld) -> None:
    a.ask_server("b.example", "GET", PING)
    for world in (a, b):
        world.wall_ms += 2 * 3_600_000
    del network.servers["a.example"]
    assert b.run(a.signed("GET", PING, authority="b.example")[0]).status == 200  # type: ignore[union-attr]  # a response
    del network.servers["b.example"]
    assert failure(a) == "connect"


def test_names_of_many_servers_are_read_within_a_limit(network: Network, a: ServerWorld, b: ServerWorld) -> None:
    b.service.address_discoveries = SlidingWindow(3, 60)
    answers = []
    for number in range(6):
        stranger = ServerWorld(Network(), f"s{number}.example")
        answers.append(refusal(b, stranger.signed("GET", PING, authority="b.example")[0])[0])
    assert answers == [401, 401, 401, 429, 429, 429]
    assert len(network.fetched) == 3


# --- policy ------------------------------------------------------------------------------------------
