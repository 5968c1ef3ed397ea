"""Rules of single operations that need no server: limits, signatures, registration, closed sockets."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import msgspec
import pytest

from openguild_proto.canonical.event import CanonicalEvent, canonical_bytes, event_hash
from openguild_proto.canonical.keys import EventSigner
from openguild_proto.canonical.signing import SigningKey, verify
from openguild_proto.effects import Effect
from openguild_proto.effects.guilds import FindMember, RemoveMember
from openguild_proto.hints import ReadHint
from openguild_proto.http.message import OpenStream, Response
from openguild_proto.operations.context import Settings
from openguild_proto.operations.route import Route
from openguild_proto.operations.router import BadParameter
from openguild_proto.operations.routes import ROUTES, match
from openguild_proto.operations.streams import recheck_stream
from openguild_proto.policy.quotas import StreamLimiter
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.records import Author
from openguild_proto.schemas.messages import EditMessage, PostMessage
from openguild_proto.settings.sections import RegistrationSettings
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


def test_events_are_signed_when_there_is_a_key(world: World, alice: str, channel: str) -> None:
    """PROTOCOL 6.3.3."""
    key = SigningKey(bytes(range(32)))
    world.service.signer = EventSigner("localhost", "k1", key)
    world.ask("POST", f"/channels/{channel}/messages", {"content": "signed"}, alice)
    (listed,) = decoded(world.ask("GET", f"/channels/{channel}/events", token=alice))
    event = msgspec.convert(listed["event"], CanonicalEvent)
    signature = base64.b64decode(event.signatures["localhost"]["ed25519:k1"])
    assert verify(key.public, event_hash(canonical_bytes(event)), signature)


def test_a5_the_repeat_of_an_acknowledged_post_is_answered_at_the_limit(world: World, alice: str, channel: str) -> None:
    """Whoever lost the answer to their last admitted post gets it, not 429."""
    world.service.user_messages = SlidingWindow(1, 60)
    path = f"/channels/{channel}/messages"
    first = world.ask("POST", path, {"content": "x", "nonce": "n"}, alice)
    again = world.ask("POST", path, {"content": "x", "nonce": "n"}, alice)
    assert (again.status, again.body) == (200, first.body)
    assert decoded(world.ask("POST", path, {"content": "other", "nonce": "n"}, alice))["error"] == "nonce_reused"
    assert decoded(world.ask("POST", path, {"content": "x", "nonce": "new"}, alice))["error"] == "message_rate_limit"
    assert decoded(world.ask("POST", path, {"content": "x"}, alice))["error"] == "message_rate_limit"


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"])
def test_a5_a_repeat_counts_for_no_limit(world: World, alice: str, channel: str, address: str) -> None:
    world.service.user_messages = SlidingWindow(2, 60)
    world.service.address_messages = SlidingWindow(2, 60)

    def post(body: dict[str, str]) -> int:
        asked = request("POST", f"/channels/{channel}/messages", body, alice)
        answer = world.run(msgspec.structs.replace(asked, client_address=address))
        assert isinstance(answer, Response)
        return answer.status

    assert [post({"content": "x", "nonce": "n"}) for _ in range(5)] == [200] * 5
    assert [post({"content": text}) for text in "yz"] == [200, 429]


def test_a_message_over_a_limit_is_charged_to_nobody(world: World, alice: str, channel: str) -> None:
    world.service.user_messages = SlidingWindow(1, 60)
    world.service.address_messages = SlidingWindow(2, 60)
    path = f"/channels/{channel}/messages"
    assert world.ask("POST", path, {"content": "x"}, alice).status == 200
    for _ in range(5):
        assert decoded(world.ask("POST", path, {"content": "x"}, alice))["error"] == "message_rate_limit"
    assert world.ask("POST", path, {"content": " "}, alice).status == 400
    world.service.user_messages = SlidingWindow(10, 60)
    assert world.ask("POST", path, {"content": "x"}, alice).status == 200, "the refusals cost the address nothing"
    assert decoded(world.ask("POST", path, {"content": "x"}, alice))["error"] == "ip_rate_limit"


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.template}")
def test_a_body_over_its_route_s_limit_is_refused_unread(world: World, alice: str, route: Route) -> None:
    path = re.sub(r"{(\w+)}", "00000000-0000-4000-8000-000000000000", route.template)
    most = (
        65_536
        if route.body in {PostMessage, EditMessage}
        else 2_097_152
        if route.template == "/federation/transactions"
        else 131_072
        if route.template == "/sync"
        else route.max_body_bytes
        if route.auth == "server"
        else 32_768
    )
    assert route.max_body_bytes == most
    asked = request(route.method, path, {}, alice)
    longer = world.run(msgspec.structs.replace(asked, body=b"[" * (most + 1)))
    assert isinstance(longer, Response)
    assert (longer.status, decoded(longer)["error"], longer.route) == (413, "payload_too_large", route.template)
    just = world.run(msgspec.structs.replace(asked, body=b"[" * most))
    assert getattr(just, "status", 101) != 413


def test_the_longest_bodies_fit_however_they_are_written(world: World, alice: str, channel: str) -> None:
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
    world = World(Settings(registration=RegistrationSettings(enabled=False)))
    answer = world.ask("POST", "/users/register", {"username": "x", "password": PASSWORD})
    assert (answer.status, decoded(answer)["error"]) == (403, "registration_closed")


def test_a_token_of_a_deleted_account_is_refused(world: World, alice: str) -> None:
    """Its owner is gone: 401, not an empty profile."""
    user_id = decoded(world.ask("GET", "/users/me", token=alice))["user_id"]
    del world.tables._state.users[user_id]
    assert world.ask("GET", "/users/me", token=alice).status == 401


def test_a_socket_takes_its_place_last_and_beyond_the_limit_is_refused(world: World, alice: str, channel: str) -> None:
    world.service.sockets = StreamLimiter(1, 1, 1)
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


ENDS = [2**63 - 1, 2**63, 2**64, 10**3_999, -(2**63), -(2**63) - 1, -(10**3_999)]


@pytest.mark.parametrize("number", ENDS, ids=lambda number: f"{number:.0e}" if abs(number) < 2**65 else "4000 digits")
def test_no_number_of_a_client_is_more_than_a_store_can_hold(
    world: World, alice: str, channel: str, number: int
) -> None:
    """PostgreSQL's bigint; memory would take them all. A read position is clamped (PROTOCOL 7.7.1), the rest refused or clamped."""
    guild = decoded(world.ask("GET", "/guilds", token=alice))[0]["guild_id"]
    digits = str(number)

    def in_range(place: int, effect: Effect[Any]) -> None:
        for name in effect.__struct_fields__:
            value = getattr(effect, name)
            assert not isinstance(value, int) or -(2**63) <= value < 2**63, (effect, name)

    for method, path, body, statuses in (
        ("POST", f"/channels/{channel}/read", f'{{"sequence":{digits}}}', {200}),
        ("POST", f"/guilds/{guild}/invites", f'{{"max_uses":{digits}}}', {400}),
        ("POST", f"/guilds/{guild}/invites", f'{{"expires_in_secs":{digits}}}', {400}),
        ("GET", f"/channels/{channel}/events?since={digits}", "", {200, 400}),
        ("GET", f"/channels/{channel}/events?before={digits}", "", {200, 400}),
        ("GET", f"/channels/{channel}/events?limit={digits}", "", {200, 400}),
        ("GET", f"/guilds?limit={digits}", "", {200, 400}),
        ("GET", f"/channels/{channel}/ws?since={digits}", "", {400}),
    ):
        asked = request(method, path, {} if body else None, alice, upgrade=path.endswith(f"/ws?since={digits}"))
        answer = world.run(msgspec.structs.replace(asked, body=body.encode()), before=in_range)
        assert isinstance(answer, Response)
        assert answer.status in statuses, path
        assert answer.status == 200 or "details" in decoded(answer)


def test_every_limit_per_address_counts_the_64_of_ipv6(world: World, alice: str, channel: str) -> None:
    """Messages, sockets and logins: who has one address of a /64 has all of them."""
    world.service.address_messages = SlidingWindow(3, 60)
    world.service.address_logins = SlidingWindow(3, 60)
    world.service.sockets = StreamLimiter(9, 9, 3)
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


def test_everybody_s_own_page_shows_the_channels_of_his_guilds(world: World, alice: str, channel: str) -> None:
    """The highest rank of the three scopes is effective (PROTOCOL 5.1.2)."""
    (guild,) = decoded(world.ask("GET", "/guilds", token=alice))
    code = decoded(world.ask("POST", f"/guilds/{guild['guild_id']}/invites", {}, alice))["code"]
    bob = world.user("bob")
    world.ask("POST", f"/invites/{code}/accept", token=bob)
    (line,) = decoded(world.ask("GET", "/users/me", token=bob))["channels"]
    assert (line["channel_id"], line["role"], line["effective_role"]) == (channel, "member", "member")
    (line,) = decoded(world.ask("GET", "/users/me", token=alice))["channels"]
    assert (line["role"], line["effective_role"]) == ("moderator", "owner")


def test_a13_registering_is_limited_per_account_too(world: World) -> None:
    """From one address, and with ten times as many from all of them."""
    world.service.account_logins = SlidingWindow(2, 60)

    def register(number: int, name: str) -> int:
        asked = request("POST", "/users/register", {"username": name, "password": PASSWORD})
        answer = world.run(msgspec.structs.replace(asked, client_address=f"198.51.100.{number}"))
        assert isinstance(answer, Response)
        return answer.status

    assert [register(1, name) for name in ("Carol", "carol", "CAROL")] == [201, 409, 429]
    assert register(1, "dave") == 201, "another name is another account"
    assert [register(number // 2, "carol") for number in range(10, 40)] == [409] * 18 + [429] * 12


@pytest.mark.parametrize("since", [1, 2**63 - 1, 2**63, 10**25, 10**3_999])
def test_a_since_beyond_the_head_is_one_however_far(world: World, alice: str, channel: str, since: int) -> None:
    answer = world.run(request("GET", f"/channels/{channel}/ws?since={since}", token=alice, upgrade=True))
    assert isinstance(answer, Response)
    assert (answer.status, decoded(answer)["error"]) == (400, "invalid_since")


@pytest.mark.parametrize("leaf", ["events", "ws"])
def test_since_is_refused_with_another_epoch_but_not_without_one(
    world: World, alice: str, channel: str, leaf: str
) -> None:
    def ask(query: str) -> Response | OpenStream:
        return world.run(request("GET", f"/channels/{channel}/{leaf}?{query}", token=alice, upgrade=leaf == "ws"))

    world.ask("POST", f"/channels/{channel}/messages", {"content": "one"}, alice)
    described = decoded(world.ask("GET", f"/channels/{channel}", token=alice))
    assert described["epoch"] == 1
    for query in ("", "since=1", "since=0&epoch=1", "since=1&epoch=01"):
        answer = ask(query)
        assert isinstance(answer, OpenStream) or answer.status == 200
        assert dict(answer.headers)["x-openguild-epoch"] == "1"
    stored = world.tables._state.channels[channel]
    stored.record = msgspec.structs.replace(stored.record, epoch=2**53 - 1)  # as after a restore
    for query in ("since=0&epoch=1", "since=1&epoch=1", f"since=1&epoch={2**63 - 1}"):
        answer = ask(query)
        assert isinstance(answer, Response)
        assert (answer.status, decoded(answer)["error"]) == (400, "invalid_since")
        assert [line["field"] for line in decoded(answer)["details"]] == ["epoch"]
    assert dict(ask(f"since=1&epoch={2**53 - 1}").headers)["x-openguild-epoch"] == str(2**53 - 1)
    assert dict(ask("since=1").headers)["x-openguild-epoch"] == str(2**53 - 1)


@pytest.mark.parametrize("leaf", ["events", "ws"])
@pytest.mark.parametrize(
    "query",
    ["epoch=1", "since=0&epoch=0", "since=0&epoch=-1", "since=0&epoch=", "since=0&epoch=x", f"since=0&epoch={2**63}"],
)
def test_an_epoch_that_is_none(world: World, alice: str, channel: str, leaf: str, query: str) -> None:
    answer = world.run(request("GET", f"/channels/{channel}/{leaf}?{query}", token=alice, upgrade=leaf == "ws"))
    assert isinstance(answer, Response)
    assert (answer.status, decoded(answer)["error"]) == (400, "validation_error")
    assert [line["field"] for line in decoded(answer)["details"]] == ["epoch"]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "path", ["/guilds/x/channels", "/channels/x/ws", "/invites/%ff/accept", "/channels/x/messages"]
)
def test_a3_who_is_nobody_is_told_so_before_anything_about_the_path(
    world: World, alice: str, method: str, path: str
) -> None:
    if not isinstance(match(method, path), BadParameter):
        return  # the path is another method's
    for token, status in ((None, 401), ("x", 401), (alice, 400)):
        answer = world.run(request(method, path, {}, token, upgrade=path.endswith("/ws")))
        assert isinstance(answer, Response)
        assert answer.status == status
        assert ("www-authenticate" in dict(answer.headers)) == (status == 401)


@pytest.mark.parametrize("path", ["/notifications/ws?unknown=1", "/notifications/ws?since=1&since=2"])
def test_a3_a_socket_s_query_is_read_for_who_is_somebody(world: World, alice: str, path: str) -> None:
    for token, status in ((None, 401), (alice, 400)):
        answer = world.run(request("GET", path, token=token, upgrade=True))
        assert isinstance(answer, Response)
        assert answer.status == status


def test_who_am_i_is_no_rejection(world: World) -> None:
    """Clients ask it to see whether their token still lives (PROTOCOL 3.6.5)."""
    assert (world.ask("GET", "/users/me").status, world.ask("GET", "/users/me").rejection) == (401, None)
    assert world.ask("GET", "/guilds").rejection == "unauthorized"


def test_rechecking_an_open_stream(world: World, alice: str, channel: str) -> None:
    """Whether it may stay open is what the store says now."""
    stream = world.run(request("GET", f"/channels/{channel}/ws", token=alice, upgrade=True))
    assert isinstance(stream, OpenStream)
    assert stream.guild_id is not None
    assert verdict(world, stream) is None
    world.tables._state.members[stream.guild_id]["other"] = world.tables._state.members[stream.guild_id][stream.user_id]
    world.tables.perform(
        RemoveMember(author=Author(stream.user_id), guild_id=stream.guild_id, user_id=stream.user_id, now_ms=1)
    )
    assert world.tables.perform(FindMember(guild_id=stream.guild_id, user_id=stream.user_id)) is None
    assert verdict(world, stream) is CloseCode.MEMBERSHIP_LOST
    del world.tables._state.channels[channel]
    assert verdict(world, stream) is CloseCode.CHANNEL_DELETED


@pytest.mark.parametrize(("query", "ended"), [("", None), ("?since=0", CloseCode.SERVICE_RESTART)])
def test_a_stream_that_was_opened_in_another_log_ends(
    world: World, alice: str, channel: str, query: str, ended: CloseCode | None
) -> None:
    """The epochs were renewed between the look at its place and its joining; without a place nothing can be skipped."""
    stream = world.run(request("GET", f"/channels/{channel}/ws{query}", token=alice, upgrade=True))
    assert isinstance(stream, OpenStream)
    assert verdict(world, stream) is None
    assert verdict(world, msgspec.structs.replace(stream, epoch=7)) is ended


def verdict(world: World, stream: OpenStream) -> CloseCode | None:
    operation = recheck_stream(stream)
    try:
        effect = next(operation)
        while True:
            effect = operation.send(world.perform(effect))
    except StopIteration as end:
        answer: CloseCode | None = end.value
        return answer


def test_reading_is_announced_to_the_other_devices(world: World, alice: str, channel: str) -> None:
    world.ask("POST", f"/channels/{channel}/messages", {"content": "x"}, alice)
    world.ask("POST", f"/channels/{channel}/read", {}, alice)
    (announced,) = world.announced
    assert isinstance(announced, ReadHint)
    assert announced.state.last_read_sequence == 1
