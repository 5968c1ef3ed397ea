"""What a server says of itself without a login is what it does (PROTOCOL 13.1.4)."""

from __future__ import annotations

import msgspec
import pytest

from openguild_proto.federation.policy import FederationPolicy, Mode
from openguild_proto.gateway.frames import Hello
from openguild_proto.http.message import Response
from openguild_proto.operations.context import Service, Settings
from openguild_proto.settings.sections import MessagingSettings, PresenceSettings, RegistrationSettings
from tests.support.gateway import Replica, Socket
from tests.support.world import World, decoded, request


def ask(world: World) -> Response:
    answer = world.ask("GET", "/client/v1")
    assert answer.status == 200
    return answer


def test_anybody_is_told_and_may_keep_it_for_a_minute() -> None:
    answer = ask(World(Settings(server_name="chat.example", version="1.2.3")))
    assert dict(answer.headers)["cache-control"] == "public, max-age=60"
    told = decoded(answer)
    assert (told["server_name"], told["version"], told["api_versions"]) == ("chat.example", "1.2.3", ["v1"])
    assert told["gateway"]["subprotocols"] == ["openguild.v2", "openguild.v2.msgpack"]
    assert (told["characters"]["message"], told["pages"]["events"]) == (4_000, 200)


def test_settings_are_told_as_they_are_now() -> None:
    world = World()
    before = decoded(ask(world))
    assert before["registration_open"]
    assert "presence" in before["features"]
    world.service.apply(
        msgspec.structs.replace(
            world.service.settings,
            registration=RegistrationSettings(enabled=False),
            presence=PresenceSettings(enabled=False),
            messaging=MessagingSettings(replay_window=7, max_messages_per_user_per_window=3),
        )
    )
    now = decoded(ask(world))
    assert not now["registration_open"]
    assert "presence" not in now["features"]
    assert now["streams"]["replay_events"] == 7
    [messages] = [policy for policy in now["rate_limits"] if policy["name"] == "messages"]
    assert messages == {"name": "messages", "limit": "messages", "of": "account", "quota": 3, "window_secs": 60}


def test_federation_is_a_feature_where_it_is_on() -> None:
    assert "federation" not in decoded(ask(World()))["features"]
    for mode in (Mode.PINNED, Mode.OPEN):
        world = World(Settings(federation=FederationPolicy(mode=mode)))
        assert "federation" in decoded(ask(world))["features"]


def test_policies_are_those_of_the_headers() -> None:
    world = World()
    fresh = Service.create(Settings(), world.service.tokens)
    told = {policy["name"]: policy for policy in decoded(ask(world))["rate_limits"]}
    alice = world.user("alice")
    world.service = fresh
    answers = [
        world.ask("POST", "/guilds", {"name": "g"}, alice),
        world.run(request("GET", "/notifications/ws", None, alice, upgrade=True)),
    ]
    for answer in answers:
        for item in dict(answer.headers)["ratelimit-policy"].split(", "):
            name = item.split('"')[1]
            assert f"q={told[name]['quota']};" in item
            assert ("w=60" in item) == ("window_secs" in told[name])


def test_the_gateway_greets_with_the_same_numbers() -> None:
    replica = Replica()
    (hello,) = Socket(replica).heard()
    assert isinstance(hello, Hello)
    told = decoded(ask(World()))["gateway"]
    assert (hello.heartbeat_ms, hello.auth_ms) == (told["heartbeat_ms"], told["auth_ms"])
    assert (hello.limits.logs, hello.limits.held_frames) == (told["logs"], told["held_frames"])
    assert hello.capabilities == told["capabilities"]


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_it_is_only_read(method: str) -> None:
    answer = World().ask(method, "/client/v1")
    assert (answer.status, dict(answer.headers)["allow"]) == (405, "GET, HEAD, OPTIONS")
