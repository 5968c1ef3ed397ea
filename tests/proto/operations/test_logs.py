"""Logs of guilds and users by their routes, and /sync (PROTOCOL 6.9, 6.10, 7.9)."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from openguild_proto.effects.logs import FindLogs, ReadLogs
from openguild_proto.effects.roles import GrantChannelRole, GrantGuildRole, RevokeServerRole
from openguild_proto.limits import LOGS_PER_READ, MAX_PAGE_BYTES
from openguild_proto.policy.token_bucket import TokenBucket
from tests.support.world import World, decoded


class Place:
    def __init__(self) -> None:
        self.world = World()
        self.alice, self.bob = self.world.user("alice"), self.world.user("bob")
        self.alice_id, self.bob_id = (
            self.ask("GET", "/users/me", token=who)["user_id"] for who in (self.alice, self.bob)
        )
        self.guild = self.ask("POST", "/guilds", {"name": "g"})["guild_id"]
        self.channel = self.ask("POST", f"/guilds/{self.guild}/channels", {"name": "c"})["channel_id"]

    def ask(self, method: str, path: str, body: Any = None, token: str | None = None, status: int | None = None) -> Any:
        answer = self.world.ask(method, path, body, token or self.alice)
        assert answer.status == status if status is not None else answer.status < 300, answer.body
        return decoded(answer) if answer.body else None

    def events(self, path: str, token: str | None = None) -> list[tuple[str, str, dict[str, Any]]]:
        """(type, sender, content without place) of each."""
        lines = self.ask("GET", path, token=token)
        assert [line["event"]["content"].pop("place")["sequence"] for line in lines] == [
            line["sequence"] for line in lines
        ]
        return [(line["event"]["event_type"], line["event"]["sender"], line["event"]["content"]) for line in lines]


@pytest.fixture
def place() -> Place:
    return Place()


def test_a_guilds_log_tells_who_did_what_and_why(place: Place) -> None:
    guild, alice, bob = f"/guilds/{place.guild}", place.alice_id, place.bob_id
    place.ask("PATCH", f"{guild}?reason=nicer", {"name": "h"})
    place.ask("PATCH", f"/channels/{place.channel}?reason=lost", {"topic": "話題", "position": 4})
    invite = place.ask("POST", f"{guild}/invites", {"max_uses": 3})
    place.ask("POST", f"/invites/{invite['code']}/accept", token=place.bob)
    place.ask("PUT", f"{guild}/members/{bob}?reason=trusted", {"role": "maintainer"})
    second = place.ask("POST", f"{guild}/invites", {}, token=place.bob)
    place.ask("DELETE", f"/invites/{invite['code']}?reason=leaked")
    place.ask("DELETE", f"{guild}/members/{bob}?reason=spam")
    place.ask("DELETE", f"/channels/{place.channel}?reason=empty")
    channel = {"channel_id": place.channel, "name": "c"}
    assert place.events(f"{guild}/log?since=0") == [
        ("guild.created", alice, {"name": "g"}),
        ("member.joined", alice, {"user_id": alice, "username": "alice", "role": "owner"}),
        ("channel.created", alice, channel),
        ("guild.updated", alice, {"name": "h", "reason": "nicer"}),
        ("channel.updated", alice, {**channel, "topic": "話題", "position": 4, "reason": "lost"}),
        ("invite.created", alice, {"invite_id": invite["invite_id"], "max_uses": 3}),
        ("member.joined", bob, {
            "user_id": bob, "username": "bob", "role": "member", "invite_id": invite["invite_id"],
        }),
        ("member.role_set", alice, {"user_id": bob, "role": "maintainer", "reason": "trusted"}),
        ("invite.created", bob, {"invite_id": second["invite_id"]}),
        ("invite.deleted", alice, {"invite_id": invite["invite_id"], "reason": "leaked"}),
        ("member.removed", alice, {"user_id": bob, "reason": "spam"}),
        ("invite.deleted", alice, {"invite_id": second["invite_id"]}),
        ("channel.deleted", alice, {**channel, "reason": "empty"}),
    ]  # fmt: skip
    assert invite["code"] not in str(place.ask("GET", f"{guild}/log"))
    assert place.events("/users/@me/log", token=place.bob)[1:] == [
        ("guild.joined", bob, {"guild_id": place.guild, "name": "h", "role": "member"}),
        ("guild.left", alice, {"guild_id": place.guild, "removed": True, "reason": "spam"}),
    ]
    place.ask("GET", f"{guild}/log", token=place.bob, status=404)


def test_changes_of_the_operator_have_the_server_as_their_sender(place: Place) -> None:
    world = place.world
    world.perform(GrantGuildRole(guild_id=place.guild, user_id=place.bob_id, role="guest", now_ms=5))
    world.perform(GrantGuildRole(guild_id=place.guild, user_id=place.bob_id, role="admin", now_ms=6))
    world.perform(GrantChannelRole(channel_id=place.channel, user_id=place.bob_id, role="owner", now_ms=7))
    assert [(kind, sender) for kind, sender, _ in place.events(f"/guilds/{place.guild}/log?since=3")] == [
        ("member.joined", "localhost"), ("member.role_set", "localhost"), ("channel.role_set", "localhost"),
    ]  # fmt: skip
    assert [kind for kind, _, _ in place.events("/users/@me/log?since=1", token=place.bob)] == [
        "guild.joined", "channel.role_given",
    ]  # fmt: skip
    assert not world.perform(RevokeServerRole(user_id=place.bob_id, role="owner", now_ms=8))


def test_what_changes_nothing_is_not_told(place: Place) -> None:
    before = len(place.events(f"/guilds/{place.guild}/log"))
    place.ask("PATCH", f"/channels/{place.channel}", {"name": "c", "topic": " "})
    place.ask("PUT", f"/guilds/{place.guild}/members/{place.alice_id}", {"role": "owner"})
    for name in ("g", " g "):
        assert place.ask("PATCH", f"/guilds/{place.guild}?reason=again", {"name": name})["name"] == "g"
    assert len(place.events(f"/guilds/{place.guild}/log")) == before
    own = len(place.events("/users/@me/log"))
    place.ask("PATCH", "/users/@me", {"display_name": ""})
    place.ask("POST", f"/channels/{place.channel}/read", {})
    assert len(place.events("/users/@me/log")) == own


def test_ones_own_log_tells_the_other_devices(place: Place) -> None:
    place.ask("POST", f"/channels/{place.channel}/messages", {"content": "x"})
    place.ask("POST", f"/channels/{place.channel}/read", {})
    assert place.ask("PATCH", "/users/@me", {"display_name": " Алиса "})["display_name"] == "Алиса"
    login = {"identifier": "alice", "secret": "correct horse", "device": {"device_id": "phone", "device_name": "P"}}
    refresh = place.ask("POST", "/sessions/login", login)["refresh_token"]
    place.ask("POST", "/sessions/revoke", {"refresh_token": refresh})
    alice = place.alice_id
    assert place.events("/users/@me/log") == [
        ("device.logged_in", alice, {"device_id": "d"}),
        ("guild.joined", alice, {"guild_id": place.guild, "name": "g", "role": "owner"}),
        ("channel.read", alice, {"channel_id": place.channel, "last_read_sequence": 1}),
        ("profile.updated", alice, {"display_name": "Алиса"}),
        ("device.logged_in", alice, {"device_id": "phone", "device_name": "P"}),
        ("device.logged_out", alice, {"device_id": "phone"}),
    ]
    assert place.ask("GET", "/users/me")["display_name"] == "Алиса"
    (line,) = place.ask("GET", f"/guilds/{place.guild}/members")
    assert (line["username"], line["display_name"]) == ("alice", "Алиса")


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("PATCH", "/users/@me", {"display_name": "x" * 65}, "display_name"),
        ("PATCH", "/users/@me", {"display_name": "\u200b"}, "display_name"),
        ("PATCH", "/channels/{channel}", {}, "name"),
        ("PATCH", "/channels/{channel}", {"topic": "x" * 1025}, "topic"),
        ("PATCH", "/channels/{channel}", {"topic": "a\nb"}, "topic"),
        ("PATCH", "/channels/{channel}", {"position": -1}, "position"),
        ("PATCH", "/channels/{channel}?reason=", {"position": 1}, "reason"),
        ("POST", "/guilds/{guild}/channels", {"name": "c", "position": 10_000}, "position"),
        ("POST", "/sync", {"positions": [{"log": "user:x", "epoch": 1, "sequence": 0}]}, "positions[0].log"),
        ("POST", "/sync", {"positions": [{"log": "dm:{channel}", "epoch": 1, "sequence": 0}]}, "positions[0].log"),
        ("POST", "/sync", {"positions": [{"log": "guild:{guild}", "epoch": 0, "sequence": 0}]}, "positions[0].epoch"),
        ("POST", "/sync", {"positions": [{"log": "guild:{guild}", "epoch": 1, "sequence": -1}]}, "positions[0].sequence"),
        ("POST", "/sync", {"positions": 2 * [{"log": "guild:{guild}", "epoch": 1, "sequence": 0}]}, "positions[1].log"),
    ],
)  # fmt: skip
def test_bad_input_names_its_field(place: Place, method: str, path: str, body: dict[str, Any], field: str) -> None:
    names = {"{channel}": place.channel, "{guild}": place.guild}

    def filled(text: str) -> str:
        for name, value in names.items():
            text = text.replace(name, value)
        return text

    for position in body.get("positions", ()):
        position["log"] = filled(position["log"])
    refusal = place.ask(method, filled(path), body, status=400)
    assert [problem["field"] for problem in refusal["details"]] == [field]


def test_too_many_places_are_refused(place: Place) -> None:
    positions = [{"log": f"guild:{number:032x}", "epoch": 1, "sequence": 0} for number in range(1_001)]
    refusal = place.ask("POST", "/sync", {"positions": positions}, status=400)
    assert refusal["details"] == [{"field": "positions", "message": "must be at most 1000"}]
    del positions[0]
    assert {line["status"] for line in place.ask("POST", "/sync", {"positions": positions})["logs"]} == {"gone"}


def test_sync_asks_the_store_twice_however_many_logs(place: Place) -> None:
    positions = [{"log": f"channel:{number:032x}", "epoch": 1, "sequence": 0} for number in range(499)]
    positions.append({"log": f"guild:{place.guild}", "epoch": 1, "sequence": 2})
    effects: list[Any] = []
    answer = place.world.ask(
        "POST", "/sync", {"positions": positions}, place.alice, before=lambda at, effect: effects.append(effect)
    )
    assert [type(effect) for effect in effects if isinstance(effect, FindLogs | ReadLogs)] == [FindLogs, ReadLogs]
    told = decoded(answer)
    assert [line["status"] for line in told["logs"]] == ["gone"] * 499 + ["news"]
    assert [event["sequence"] for event in told["logs"][-1]["events"]] == [3]
    assert not told["more"]


def test_sync_gives_a_mib_at_most(place: Place) -> None:
    for number in range(80):
        text = "\N{GRINNING FACE}" * 3_900 + str(number)
        place.ask("POST", f"/channels/{place.channel}/messages", {"content": text})
    name, sequence, answers = f"channel:{place.channel}", 0, 0
    while True:
        body = {"positions": [{"log": name, "epoch": 1, "sequence": sequence}]}
        answer = place.world.ask("POST", "/sync", body, place.alice)
        assert len(answer.body) < MAX_PAGE_BYTES + 20_000
        told = decoded(answer)
        (line,) = told["logs"]
        assert line["events"][0]["sequence"] == sequence + 1
        sequence, answers = line["events"][-1]["sequence"], answers + 1
        if not told["more"]:
            break
    assert sequence == line["head"] == 80
    assert answers > 1


def test_a_sync_of_many_logs_counts_as_several_reads(place: Place) -> None:
    place.world.service.user_queries = TokenBucket(10, 60)
    positions = [{"log": f"channel:{uuid.uuid4()}", "epoch": 1, "sequence": 0} for _ in range(4 * LOGS_PER_READ)]
    for _ in range(2):
        place.ask("POST", "/sync", {"positions": positions}, token=place.bob)
    refused = place.ask("POST", "/sync", {"positions": positions}, token=place.bob, status=429)
    assert refused["error"] == "query_rate_limit"
    place.ask("POST", "/sync", {"positions": positions[:LOGS_PER_READ]}, token=place.bob)
    place.world.service.user_queries = TokenBucket(2, 60)
    place.ask("POST", "/sync", {"positions": positions})
