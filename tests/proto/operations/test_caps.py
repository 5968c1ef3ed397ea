"""What one account may change in a minute, and how much there may be of what it makes (`guilds.*`)."""

from __future__ import annotations

import re
import uuid

import pytest

from openguild_proto.operations.context import Limit, Settings
from openguild_proto.operations.route import Route
from openguild_proto.operations.routes import ROUTES
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.settings.sections import GuildSettings
from tests.support.world import World, decoded

CHANGES = [route for route in ROUTES if Limit.WRITES in route.limits]


@pytest.mark.parametrize("route", CHANGES, ids=lambda route: f"{route.method} {route.template}")
def test_every_change_counts_against_the_user_s_window(route: Route) -> None:
    world = World()
    world.service.user_writes = SlidingWindow(1, 60)
    alice, bob = world.user("alice"), world.user("bob")
    path = re.sub(r"\{\w+\}", str(uuid.uuid4()), route.template)
    assert world.ask(route.method, path, {}, alice).status != 429
    refused = world.ask(route.method, path, {}, alice)
    assert (refused.status, decoded(refused)["error"], refused.rejection) == (
        429,
        "write_rate_limit",
        "write_rate_limit",
    )
    assert 0 < int(dict(refused.headers)["retry-after"]) <= 61
    assert world.ask(route.method, path, {}, bob).status != 429
    assert world.ask("GET", "/guilds", token=alice).status == 200, "reading goes on"
    world.wall_ms += 61_000
    assert world.ask(route.method, path, {}, alice).status != 429


def test_messages_have_limits_of_their_own() -> None:
    world = World()
    alice = world.user("alice")
    guild = decoded(world.ask("POST", "/guilds", {"name": "g"}, alice))["guild_id"]
    channel = decoded(world.ask("POST", f"/guilds/{guild}/channels", {"name": "c"}, alice))["channel_id"]
    world.service.user_writes = SlidingWindow(1, 60)
    for _ in range(3):
        assert world.ask("POST", f"/channels/{channel}/messages", {"content": "x"}, alice).status == 200


def test_reading_takes_nothing_from_what_one_may_change() -> None:
    world = World()
    alice = world.user("alice")
    guild = decoded(world.ask("POST", "/guilds", {"name": "g"}, alice))["guild_id"]
    channel = decoded(world.ask("POST", f"/guilds/{guild}/channels", {"name": "c"}, alice))["channel_id"]
    world.service.user_writes, world.service.user_reads = SlidingWindow(1, 60), SlidingWindow(3, 60)
    answers = [world.ask("POST", f"/channels/{channel}/read", {}, alice) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert decoded(answers[-1])["error"] == "read_rate_limit"
    assert world.ask("POST", "/guilds", {"name": "g"}, alice).status == 200


def test_guilds_that_one_may_be_in_are_counted_and_leaving_one_makes_room() -> None:
    world = World(Settings(guilds=GuildSettings(max_joined_per_user=2)))
    alice, bob = world.user("alice"), world.user("bob")
    world.ask("POST", "/guilds", {"name": "bob's own"}, bob)
    guilds = [decoded(world.ask("POST", "/guilds", {"name": "g"}, alice))["guild_id"] for _ in range(2)]
    paths = []
    for guild in guilds:
        code = decoded(world.ask("POST", f"/guilds/{guild}/invites", {"max_uses": 1}, alice))["code"]
        paths.append(f"/invites/{code}/accept")
    assert world.ask("POST", paths[0], {}, bob).status == 200
    refused = world.ask("POST", paths[1], {}, bob)
    assert (refused.status, decoded(refused)["error"]) == (409, "limit_reached")
    assert world.ask("POST", paths[0], {}, bob).status == 200, "a member already"
    assert world.ask("DELETE", f"/guilds/{guilds[0]}/members/@me", token=bob).status == 204
    assert world.ask("POST", paths[1], {}, bob).status == 200, "the refusal used nothing up"


def test_a_cap_is_said_and_what_was_removed_makes_room() -> None:
    world = World(
        Settings(guilds=GuildSettings(max_owned_per_user=2, max_channels_per_guild=1, max_invites_per_guild=1))
    )
    alice = world.user("alice")
    guild = decoded(world.ask("POST", "/guilds", {"name": "g"}, alice))["guild_id"]
    for path, body in (
        ("/guilds", {"name": "g"}),
        (f"/guilds/{guild}/channels", {"name": "c"}),
        (f"/guilds/{guild}/invites", {}),
    ):
        made = world.ask("POST", path, body, alice)
        assert made.status in {200, 201}
        refused = world.ask("POST", path, body, alice)
        assert (refused.status, decoded(refused)["error"], refused.rejection) == (409, "limit_reached", "limit_reached")
        assert "at most" in decoded(refused)["message"]
        thing = decoded(made)
        name = "invites" if "code" in thing else "channels" if "channel_id" in thing else "guilds"
        key = thing.get("code") or thing.get("channel_id") or thing["guild_id"]
        assert world.ask("DELETE", f"/{name}/{key}", token=alice).status == 204
        assert world.ask("POST", path, body, alice).status in {200, 201}
