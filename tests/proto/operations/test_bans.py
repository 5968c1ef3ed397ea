"""Bans of a guild over the store in memory (PROTOCOL 5.5.5 to 5.6.9)."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import pytest

from openguild_proto.http.message import Response
from openguild_proto.operations.context import Settings
from openguild_proto.settings.sections import GuildSettings
from tests.support.deeds import new_id
from tests.support.world import START_MS, World, decoded, request


class Place(NamedTuple):
    """A guild with its owner and a member, and an invite to it."""

    world: World
    guild: str
    code: str
    olga: str
    bob: str

    def id_of(self, token: str) -> str:
        return str(decoded(self.world.ask("GET", "/users/me", token=token))["user_id"])

    def bans(self, method: str, rest: str = "", token: str | None = None) -> Response:
        return self.world.ask(method, f"/guilds/{self.guild}/bans{rest}", token=token or self.olga)

    def accept(self, token: str) -> Response:
        return self.world.ask("POST", f"/invites/{self.code}/accept", token=token)

    def log(self) -> list[Any]:
        return [line["event"] for line in decoded(self.world.ask("GET", f"/guilds/{self.guild}/log", token=self.olga))]


@pytest.fixture
def place() -> Place:
    return built(World())


def built(world: World) -> Place:
    olga, bob = world.user("olga"), world.user("bob")
    guild = decoded(world.ask("POST", "/guilds", {"name": "g"}, olga))["guild_id"]
    code = decoded(world.ask("POST", f"/guilds/{guild}/invites", {}, olga))["code"]
    made = Place(world, guild, code, olga, bob)
    assert made.accept(bob).status == 200
    return made


def error(answer: Response) -> tuple[int, str]:
    return answer.status, decoded(answer)["error"]


def test_a_banned_member_is_out_and_cannot_come_back(place: Place) -> None:
    bob, olga = place.id_of(place.bob), place.id_of(place.olga)
    made = place.bans("PUT", f"/{bob}?reason=too%20much%20spam")
    assert (made.status, decoded(made)) == (200, {
        "guild_id": place.guild, "user_id": bob, "banned_by": olga, "banned_at": decoded(made)["banned_at"],
        "username": "bob", "reason": "too much spam",
    })  # fmt: skip
    assert place.world.ask("GET", f"/guilds/{place.guild}", token=place.bob).status == 404
    refused = place.accept(place.bob)
    assert error(refused) == (403, "banned")
    assert decoded(refused)["message"] == "you are banned from this guild"
    assert decoded(place.bans("GET")) == [decoded(made)]
    assert [(event["event_type"], event["sender"]) for event in place.log()[-2:]] == [
        ("member.removed", olga), ("member.banned", olga),
    ]  # fmt: skip
    left = decoded(place.world.ask("GET", "/users/@me/log", token=place.bob))[-1]["event"]
    assert (left["event_type"], left["content"]["reason"]) == ("guild.left", "too much spam")


def test_the_ban_that_is_there_is_answered_again(place: Place) -> None:
    bob = place.id_of(place.bob)
    first = decoded(place.bans("PUT", f"/{bob}?reason=one"))
    place.world.wall_ms += 1_000
    events = place.log()
    again = place.bans("PUT", f"/{bob}?reason=another")
    assert (again.status, decoded(again)) == (200, first)
    assert place.log() == events


def test_an_ended_ban_lets_the_user_in(place: Place) -> None:
    bob = place.id_of(place.bob)
    place.bans("PUT", f"/{bob}")
    assert place.bans("DELETE", f"/{bob}?reason=sorry").status == 204
    event = place.log()[-1]
    assert event["event_type"] == "member.unbanned"
    assert {**event["content"], "place": None} == {"user_id": bob, "username": "bob", "reason": "sorry", "place": None}
    assert error(place.bans("DELETE", f"/{bob}")) == (404, "not_found")
    assert decoded(place.bans("GET")) == []
    assert place.accept(place.bob).status == 200


def test_whoever_is_not_known_is_banned_without_a_name(place: Place) -> None:
    nobody = new_id()
    made = decoded(place.bans("PUT", f"/{nobody.upper()}"))
    assert (made["user_id"], "username" in made, "reason" in made) == (nobody, False, False)


def test_the_answer_to_an_earlier_join_makes_nobody_a_member(place: Place) -> None:
    carol = place.world.user("carol")
    asked = request("POST", f"/invites/{place.code}/accept", None, carol)
    keyed = msgspec.structs.replace(asked, headers=(*asked.headers, ("idempotency-key", "k")))
    first = place.world.run(keyed)
    place.bans("PUT", f"/{place.id_of(carol)}")
    again = place.world.run(keyed)
    assert isinstance(first, Response)
    assert isinstance(again, Response)
    assert (again.status, again.body) == (200, first.body)
    assert error(place.accept(carol)) == (403, "banned")
    assert place.world.ask("GET", f"/guilds/{place.guild}", token=carol).status == 404


@pytest.mark.parametrize("reason", ["", "%20", "x" * 513, "a%00b"])
def test_reasons_are_bounded(place: Place, reason: str) -> None:
    bob = place.id_of(place.bob)
    for method in ("PUT", "DELETE"):
        assert error(place.bans(method, f"/{bob}?reason={reason}")) == (400, "validation_error")
    assert decoded(place.bans("GET")) == []


def test_bans_are_for_those_who_manage_members(place: Place) -> None:
    bob = place.id_of(place.bob)
    for method, rest in (("GET", ""), ("PUT", f"/{new_id()}"), ("DELETE", f"/{bob}")):
        assert error(place.bans(method, rest, place.bob)) == (403, "forbidden")
        assert error(place.bans(method, rest, place.world.user(f"stranger{method}"))) == (404, "not_found")


def test_equals_and_oneself_are_not_banned_with_a_text_that_says_why(place: Place) -> None:
    olga, bob = place.id_of(place.olga), place.id_of(place.bob)
    place.world.ask("PUT", f"/guilds/{place.guild}/members/{bob}", {"role": "moderator"}, place.olga)
    for user, text in ((bob, "you cannot ban yourself"), (olga, "you can only ban members below your own rank")):
        refused = place.bans("PUT", f"/{user}", place.bob)
        assert (refused.status, decoded(refused)["message"]) == (403, text)


def test_the_list_is_in_pages_by_time(place: Place) -> None:
    users = [new_id() for _ in range(3)]
    for user in users:
        place.world.wall_ms += 1
        place.bans("PUT", f"/{user}")
    first = place.bans("GET", "?limit=2")
    after = dict(first.headers)["x-next-after"]
    assert [line["user_id"] for line in decoded(first)] == users[:2]
    assert dict(first.headers)["x-openguild-head"] == str(len(place.log()))
    second = place.bans("GET", f"?limit=2&after={after}")
    assert [line["user_id"] for line in decoded(second)] == users[2:]
    assert "x-next-after" not in dict(second.headers)
    assert place.bans("GET", f"?after={users[0]}").status == 200
    assert error(place.bans("GET", f"?after={new_id()}")) == (400, "validation_error")


def test_a_full_list_is_refused_with_its_bound() -> None:
    place = built(World(Settings(guilds=GuildSettings(max_bans_per_guild=1))))
    assert place.bans("PUT", f"/{new_id()}").status == 200
    refused = place.bans("PUT", f"/{place.id_of(place.bob)}")
    assert error(refused) == (409, "limit_reached")
    assert decoded(refused)["message"] == "a guild has at most 1 bans; remove some"
    assert place.world.ask("GET", f"/guilds/{place.guild}", token=place.bob).status == 200


def test_what_the_server_offers_names_bans_and_their_bound(place: Place) -> None:
    offered = decoded(place.world.ask("GET", "/client/v1"))
    assert "bans" in offered["features"]
    assert offered["counts"]["guild_bans"] == 1_000


def test_a_ban_has_the_time_of_its_request(place: Place) -> None:
    place.world.wall_ms = START_MS
    made = decoded(place.bans("PUT", f"/{new_id()}"))
    assert made["banned_at"].startswith("2023-11-14T22:13:20")
