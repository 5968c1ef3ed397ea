"""Answers of limited routes tell their limits (PROTOCOL 9.1.4), and 429 which one was met (PROTOCOL 3.6.2)."""

from __future__ import annotations

import re

import pytest

from openguild_proto.http.headers import CORS_EXPOSED, HeaderPolicy
from openguild_proto.http.message import OpenGateway, OpenStream, Response
from openguild_proto.operations.context import Limit
from openguild_proto.operations.route import Route
from openguild_proto.operations.routes import ROUTES
from openguild_proto.policy.quotas import StreamLimiter
from openguild_proto.policy.ratelimit import SlidingWindow
from tests.support.world import PASSWORD, World, decoded, request

POLICY = r'"[a-z-]+";q=\d+;(w=[1-9]\d*|qu="concurrent-requests")'
LEFT = r'"[a-z-]+";r=\d+(;t=\d+)?'


def headers(answer: Response | OpenStream | OpenGateway) -> dict[str, str]:
    return dict(answer.headers)


def scene() -> tuple[World, str, str]:
    world = World()
    alice = world.user("alice")
    guild = decoded(world.ask("POST", "/guilds", {"name": "g"}, alice))["guild_id"]
    channel = decoded(world.ask("POST", f"/guilds/{guild}/channels", {"name": "c"}, alice))["channel_id"]
    return world, alice, channel


def test_a_post_tells_both_limits_of_messages() -> None:
    world, alice, channel = scene()
    world.service.user_messages, world.service.address_messages = SlidingWindow(2, 60), SlidingWindow(5, 30)
    path = f"/channels/{channel}/messages"
    told = headers(world.ask("POST", path, {"content": "x"}, alice))
    assert told["ratelimit-policy"] == '"messages";q=2;w=60, "messages-of-address";q=5;w=30'
    assert told["ratelimit"] == '"messages";r=1;t=60, "messages-of-address";r=4;t=30'
    world.wall_ms += 10_500
    world.ask("POST", path, {"content": "x"}, alice)
    refused = world.ask("POST", path, {"content": "x"}, alice)
    assert headers(refused)["ratelimit"] == '"messages";r=0;t=50, "messages-of-address";r=3;t=20'
    assert headers(refused)["retry-after"] == "50"
    body = decoded(refused)
    assert (body["error"], body["limit"], body["retry_after_ms"]) == ("message_rate_limit", "messages", 49_500)


def test_a_repeat_leaves_what_was_left() -> None:
    world, alice, channel = scene()
    path, post = f"/channels/{channel}/messages", {"content": "x", "nonce": "n"}
    first, again = world.ask("POST", path, post, alice), world.ask("POST", path, post, alice)
    assert first.body == again.body
    assert headers(first)["ratelimit"] == headers(again)["ratelimit"]


def test_refused_requests_tell_limits_only_to_the_authenticated() -> None:
    world, alice, _ = scene()
    assert "ratelimit" in headers(world.ask("POST", "/guilds", {"name": ""}, alice))
    assert "ratelimit" not in headers(world.ask("POST", "/guilds", {"name": "g"}, "nobody"))


def test_a_login_tells_the_limit_of_its_address_alone() -> None:
    world, _, _ = scene()
    world.service.account_logins = SlidingWindow(1, 60)
    login = {"identifier": "alice", "secret": PASSWORD, "device": {"device_id": "d"}}
    told = headers(world.ask("POST", "/sessions/login", login))
    assert re.fullmatch(r'"attempts-of-address";r=\d+;t=60', told["ratelimit"])
    refused = world.ask("POST", "/sessions/login", login)
    assert decoded(refused)["limit"] == "attempts"
    assert re.fullmatch(r'"attempts-of-address";r=\d+;t=60', headers(refused)["ratelimit"])


def test_streams_tell_their_places() -> None:
    world, alice, _ = scene()
    world.service.sockets = StreamLimiter(10, 2, 3)
    asked = request("GET", "/notifications/ws", None, alice, upgrade=True)
    opened = world.run(asked)
    assert headers(opened)["ratelimit-policy"] == (
        '"streams";q=2;qu="concurrent-requests", "streams-of-address";q=3;qu="concurrent-requests"'
    )
    assert headers(opened)["ratelimit"] == '"streams";r=1, "streams-of-address";r=2'
    world.run(asked)
    refused = world.run(asked)
    assert isinstance(refused, Response)
    assert headers(refused)["ratelimit"] == '"streams";r=0, "streams-of-address";r=1'
    assert decoded(refused)["limit"] == "streams"
    gateway = headers(world.run(request("GET", "/gateway", None, upgrade=True)))
    assert gateway["ratelimit"] == '"streams-of-address";r=0'


@pytest.mark.parametrize(
    "route",
    [route for route in ROUTES if route.client and any(limit.policies for limit in route.limits)],
    ids=lambda route: route.name,
)
def test_every_limited_route_tells_its_limits(route: Route) -> None:
    world, alice, channel = scene()
    path = route.template.replace("{channel_id}", channel)
    answer = world.run(request(route.method, path, {}, alice, upgrade=route.auth in {"socket", "gateway"}))
    names = [policy.name for limit in route.limits for policy in limit.policies]
    if route.auth == "gateway":
        names.remove("streams")  # whose socket it is is not known yet
    told = headers(answer)
    for header, item in (("ratelimit-policy", POLICY), ("ratelimit", LEFT)):
        items = told[header].split(", ")
        assert all(re.fullmatch(item, one) for one in items), told[header]
        assert [one.split('"')[1] for one in items] == names


def test_routes_without_limits_tell_none() -> None:
    world, alice, _ = scene()
    assert "ratelimit" not in headers(world.ask("GET", "/guilds", None, alice))


def test_policies_have_names_of_their_own() -> None:
    names = [policy.name for limit in Limit for policy in limit.policies]
    assert len(set(names)) == len(names)


def test_pages_of_other_origins_may_read_the_limits() -> None:
    exposed = CORS_EXPOSED.split(", ")
    assert {"ratelimit", "ratelimit-policy", "retry-after"} <= set(exposed)
    told = dict(HeaderPolicy().apply(Response(status=200), None, "r"))
    assert told[b"access-control-expose-headers"].decode() == CORS_EXPOSED
