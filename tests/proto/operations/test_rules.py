"""Rules of single operations that need no server: limits, signatures, registration, closed sockets."""

from __future__ import annotations

import base64
import json
import re

import msgspec
import pytest

from openguild_proto.canonical.event import CanonicalEvent, canonical_bytes, event_hash
from openguild_proto.canonical.keys import EventSigner
from openguild_proto.canonical.signing import SigningKey, verify
from openguild_proto.effects import FindMember, RemoveMember
from openguild_proto.http.message import OpenStream, Response
from openguild_proto.http.routes import ROUTES, Route
from openguild_proto.operations.context import Settings
from openguild_proto.operations.streams import recheck_stream
from openguild_proto.policy.connections import ConnectionLimiter
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.ws.close_codes import CloseCode
from tests.support.world import PASSWORD, World, decoded, request


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def alice(world: World) -> str:
    return world.user("alice")


@pytest.fixture
def channel(world: World, alice: str) -> str:
    guild = decoded(world.ask("POST", "/guilds", {"name": "g"}, alice))["guild_id"]
    return str(decoded(world.ask("POST", f"/guilds/{guild}/channels", {"name": "c"}, alice))["channel_id"])


def test_d_31_events_are_signed_when_there_is_a_key(world: World, alice: str, channel: str) -> None:
    """A15."""
    key = SigningKey(bytes(range(32)))
    world.service.signer = EventSigner("localhost", "k1", key)
    world.ask("POST", f"/channels/{channel}/messages", {"content": "signed"}, alice)
    (listed,) = decoded(world.ask("GET", f"/channels/{channel}/events", token=alice))
    event = msgspec.convert(listed["event"], CanonicalEvent)
    signature = base64.b64decode(event.signatures["localhost"]["ed25519:k1"])
    assert verify(key.public, event_hash(canonical_bytes(event)), signature)


def test_a_refused_message_is_charged_to_nobody(world: World, alice: str, channel: str) -> None:
    world.service.user_messages = SlidingWindow(1, 60)
    world.service.address_messages = SlidingWindow(2, 60)
    path = f"/channels/{channel}/messages"
    assert world.ask("POST", path, {"content": "x"}, alice).status == 200
    for _ in range(5):
        assert decoded(world.ask("POST", path, {"content": "x"}, alice))["error"] == "message_rate_limit"
    bob = world.user("bob")
    assert world.ask("POST", path, {"content": "x"}, bob).status == 404
    world.service.user_messages = SlidingWindow(10, 60)
    assert world.ask("POST", path, {"content": "x"}, alice).status == 200, "the refusals cost the address nothing"
    assert decoded(world.ask("POST", path, {"content": "x"}, alice))["error"] == "ip_rate_limit"


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.template}")
def test_a_body_over_its_route_s_limit_is_refused_unread(world: World, alice: str, route: Route) -> None:
    path = re.sub(r"{(\w+)}", "00000000-0000-4000-8000-000000000000", route.template)
    most = (
        65_536 if route.body == "PostMessage" else 2_097_152 if route.template == "/federation/transactions" else 32_768
    )
    assert route.max_body_bytes == most
    asked = request(route.method, path, {}, alice)
    longer = world.run(msgspec.structs.replace(asked, body=b"[" * (most + 1)))
    assert isinstance(longer, Response)
    assert (longer.status, decoded(longer)["error"], longer.route) == (413, "payload_too_large", route.template)
    just = world.run(msgspec.structs.replace(asked, body=b"[" * most))
    assert getattr(just, "status", 101) != 413


def test_what_the_contract_allows_fits_however_it_is_written(world: World, alice: str, channel: str) -> None:
    """Every character as a pair of escapes: twelve bytes each."""
    wide = "\U0001f600"
    body = json.dumps({"content": wide * 4_000, "nonce": "n" * 64}).encode()
    posted = request("POST", f"/channels/{channel}/messages", {}, alice)
    assert getattr(world.run(msgspec.structs.replace(posted, body=body)), "status", None) == 200
    device = {"device_id": wide * 256, "device_name": wide * 256}
    body = json.dumps({"identifier": wide * 256, "secret": wide * 1_024, "device": device}).encode()
    login = request("POST", "/sessions/login", {})
    assert getattr(world.run(msgspec.structs.replace(login, body=body)), "status", None) == 401


def test_registration_can_be_closed() -> None:
    world = World(Settings(registration_enabled=False))
    answer = world.ask("POST", "/users/register", {"username": "x", "password": PASSWORD})
    assert (answer.status, decoded(answer)["error"]) == (403, "registration_closed")


def test_d_57_a_token_of_a_deleted_account_is_refused(world: World, alice: str) -> None:
    """Its owner is gone: 401, not an empty profile."""
    user_id = decoded(world.ask("GET", "/users/me", token=alice))["user_id"]
    del world.tables._state.users[user_id]
    assert world.ask("GET", "/users/me", token=alice).status == 401


def test_a_socket_takes_its_place_last_and_beyond_the_limit_is_refused(world: World, alice: str, channel: str) -> None:
    world.service.sockets = ConnectionLimiter(1, 1, 1)
    path = f"/channels/{channel}/ws"
    for bad in (f"{path}?since=9", f"{path}?since=x", f"{path}?unknown=1"):
        world.run(request("GET", bad, token=alice, upgrade=True))
    assert world.service.sockets.total == 0
    opened = world.run(request("GET", path, token=alice, upgrade=True))
    assert isinstance(opened, OpenStream)
    assert (opened.channel_id, opened.head, opened.since) == (channel, 0, None)
    refused = world.run(request("GET", path, token=alice, upgrade=True))
    assert not isinstance(refused, OpenStream)
    assert refused.status == 429


def test_every_limit_per_address_counts_the_64_of_ipv6(world: World, alice: str, channel: str) -> None:
    """Messages, sockets and logins: who has one address of a /64 has all of them."""
    world.service.address_messages = SlidingWindow(3, 60)
    world.service.address_logins = SlidingWindow(3, 60)
    world.service.sockets = ConnectionLimiter(9, 9, 3)
    login = {"identifier": "alice", "secret": PASSWORD, "device": {"device_id": "d"}}
    for asked in (
        request("POST", f"/channels/{channel}/messages", {"content": "x"}, alice),
        request("POST", "/sessions/login", login),
        request("GET", "/notifications/ws", token=alice, upgrade=True),
    ):
        statuses = [
            getattr(world.run(msgspec.structs.replace(asked, client_address=f"2001:db8::{number}")), "status", 200)
            for number in range(5)
        ]
        assert statuses == [200, 200, 200, 429, 429], asked.path
        elsewhere = msgspec.structs.replace(asked, client_address="2001:db8:0:1::1")
        assert getattr(world.run(elsewhere), "status", 200) == 200


def test_rechecking_an_open_stream(world: World, alice: str, channel: str) -> None:
    """Whether it may stay open is what the store says now."""
    stream = world.run(request("GET", f"/channels/{channel}/ws", token=alice, upgrade=True))
    assert isinstance(stream, OpenStream)
    assert stream.guild_id is not None

    def verdict() -> CloseCode | None:
        operation = recheck_stream(stream)
        try:
            effect = next(operation)
            while True:
                effect = operation.send(world.perform(effect))
        except StopIteration as end:
            answer: CloseCode | None = end.value
            return answer

    assert verdict() is None
    world.tables._state.members[stream.guild_id]["other"] = world.tables._state.members[stream.guild_id][stream.user_id]
    world.tables.perform(RemoveMember(guild_id=stream.guild_id, user_id=stream.user_id, expected_role="owner"))
    assert world.tables.perform(FindMember(guild_id=stream.guild_id, user_id=stream.user_id)) is None
    assert verdict() is CloseCode.MEMBERSHIP_LOST
    del world.tables._state.channels[channel]
    assert verdict() is CloseCode.CHANNEL_DELETED


def test_reading_is_announced_to_the_other_devices(world: World, alice: str, channel: str) -> None:
    world.ask("POST", f"/channels/{channel}/messages", {"content": "x"}, alice)
    world.ask("POST", f"/channels/{channel}/read", {}, alice)
    (announced,) = world.announced
    assert announced.state.last_read_sequence == 1
