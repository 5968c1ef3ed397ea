"""Permissions: invites, roles, and what outsiders must not learn (PROTOCOL 5)."""

from __future__ import annotations

import json

import pytest

from tests.support.chat import Chat, User
from tests.support.deeds import new_id
from tests.support.waiting import PATIENCE_SECS

ROLES = ("guest", "viewer", "contributor", "member", "maintainer", "moderator", "admin", "owner")


@pytest.fixture
def owner(chat: Chat) -> User:
    return chat.user()


@pytest.fixture
def guild(owner: User) -> str:
    return owner.guild()


def member(chat: Chat, owner: User, guild: str, role: str = "member") -> User:
    user = chat.user()
    user.join(owner.invite(guild))
    if role != "member":
        owner.ok(owner.request("PUT", f"/guilds/{guild}/members/{user.user_id}", json={"role": role}))
    return user


def test_a_stranger_gets_404_everywhere(chat: Chat, owner: User, guild: str) -> None:
    channel = owner.channel(guild)
    eve = chat.user()
    attempts = [
        ("GET", f"/guilds/{guild}"), ("PATCH", f"/guilds/{guild}"), ("DELETE", f"/guilds/{guild}"),
        ("GET", f"/guilds/{guild}/channels"), ("POST", f"/guilds/{guild}/channels"), ("GET", f"/guilds/{guild}/members"),
        ("POST", f"/guilds/{guild}/invites"), ("PUT", f"/guilds/{guild}/members/{owner.user_id}"),
        ("DELETE", f"/guilds/{guild}/members/{owner.user_id}"), ("DELETE", f"/guilds/{guild}/members/@me"),
        ("GET", f"/channels/{channel}"), ("PATCH", f"/channels/{channel}"), ("DELETE", f"/channels/{channel}"),
        ("GET", f"/channels/{channel}/events"), ("POST", f"/channels/{channel}/messages"), ("POST", f"/channels/{channel}/read"),
    ]  # fmt: skip
    body = {"name": "x", "role": "owner", "content": "x"}
    for method, path in attempts:
        seen = eve.request(method, path, json=body if method in {"POST", "PUT", "PATCH"} else None)
        unknown = eve.request(method, path.replace(guild, new_id()).replace(channel, new_id()), json=body)
        assert (seen.status_code, seen.json()["error"]) == (404, "not_found"), (method, path)
        assert unknown.json() == {**seen.json(), "request_id": unknown.json()["request_id"]}, "existence does not leak"
    assert eve.ok(eve.get("/guilds")) == []
    assert eve.get("/guilds?all=true").status_code == 403
    assert owner.history(channel) == []


@pytest.mark.parametrize("role", ROLES)
def test_what_each_role_may_do(role: str, chat: Chat, owner: User, guild: str) -> None:
    """The permissions of every role (PROTOCOL 5.2)."""
    rank = ROLES.index(role)
    channel = owner.channel(guild)
    user = member(chat, owner, guild, role)
    assert user.get(f"/channels/{channel}/events").status_code == 200
    outcomes = {
        "contributor": user.post(f"/channels/{channel}/messages", {"content": "x"}),
        "maintainer": user.post(f"/guilds/{guild}/channels", {"name": "x"}),
        "moderator": user.request("PATCH", f"/guilds/{guild}", json={"name": "x"}),
        "admin": user.request("DELETE", f"/channels/{channel}"),
    }
    for lowest, answer in outcomes.items():
        may = rank >= ROLES.index(lowest)
        assert answer.is_success is may, (role, lowest, answer.text)
        if not may:
            assert (answer.status_code, answer.json()["error"]) == (403, "forbidden")
    assert user.post(f"/guilds/{guild}/invites").is_success is (rank >= ROLES.index("maintainer"))


def test_listing_channels_changes_no_role(chat: Chat, owner: User, guild: str) -> None:
    channel = owner.channel(guild)
    before = owner.ok(owner.get("/users/me"))
    for _ in range(2):
        owner.ok(owner.get(f"/guilds/{guild}/channels"))
    assert owner.ok(owner.get("/users/me")) == before
    assert before["channels"][0]["role"] == "moderator"
    assert before["channels"][0]["effective_role"] == "owner"
    assert before["channels"][0]["channel_id"] == channel


def test_the_creator_owns_the_guild(owner: User, guild: str) -> None:
    (line,) = owner.ok(owner.get(f"/guilds/{guild}/members"))
    assert (line["user_id"], line["role"], line["username"]) == (owner.user_id, "owner", owner.name)


def test_only_members_hear_of_a_new_channel(chat: Chat, owner: User, guild: str) -> None:
    eve = chat.user()
    with eve.notifications() as stream:
        owner.channel(guild, "secret")
        own = eve.channel(eve.guild("eve's"), "mine")
        heard = json.loads(stream.recv(timeout=PATIENCE_SECS))
        assert heard["event"]["channel_id"] == own, "the first thing that eve hears is her own channel"


def test_a_channel_made_right_after_its_guild_is_heard_of(chat: Chat) -> None:
    eve = chat.user()
    with eve.notifications() as stream:
        for number in range(40):  # the guild's members are still being read when the channel is created
            own = eve.channel(eve.guild("eve's"), f"c{number}")
            heard = json.loads(stream.recv(timeout=PATIENCE_SECS))
            assert heard["event"]["channel_id"] == own
            eve.say(own, "first")
            assert json.loads(stream.recv(timeout=PATIENCE_SECS))["kind"] == "channel_message"


def test_invites(chat: Chat, owner: User, guild: str) -> None:
    bob, carol = chat.user(), chat.user()
    created = owner.post(f"/guilds/{guild}/invites", {"max_uses": 1, "expires_in_secs": 60})
    assert created.status_code == 201
    invite = created.json()
    assert {"code", "guild_id", "max_uses", "uses", "expires_at", "created_by"} <= invite.keys()
    preview = bob.ok(bob.get(f"/invites/{invite['code']}"))
    assert preview["guild_id"] == guild
    first, again = bob.join(invite["code"]), bob.join(invite["code"])
    assert first == again
    assert first["role"] == "member"
    spent = carol.post(f"/invites/{invite['code']}/accept")
    assert (spent.status_code, spent.json()["error"]) == (410, "invite_expired")
    assert carol.get("/invites/unknown").status_code == 404
    assert bob.request("DELETE", f"/invites/{invite['code']}").status_code == 403
    assert owner.request("DELETE", f"/invites/{invite['code']}").status_code == 204
    for bad in ({"max_uses": 0}, {"expires_in_secs": -1}, {"max_uses": "many"}):
        assert owner.post(f"/guilds/{guild}/invites", bad).json()["error"] == "validation_error"


def test_nobody_grants_above_his_own_or_touches_his_betters(chat: Chat, owner: User, guild: str) -> None:
    moderator, other, admin = (member(chat, owner, guild, role) for role in ("moderator", "member", "admin"))

    def put(by: User, user: User, role: str) -> int:
        return by.request("PUT", f"/guilds/{guild}/members/{user.user_id}", json={"role": role}).status_code

    assert put(moderator, other, "maintainer") == 200
    assert put(moderator, other, "admin") == 403
    assert put(moderator, admin, "guest") == 403
    assert put(moderator, moderator, "owner") == 403
    assert put(owner, other, "emperor") == 400
    assert moderator.request("DELETE", f"/guilds/{guild}/members/{admin.user_id}").status_code == 403
    assert moderator.request("DELETE", f"/guilds/{guild}/members/{other.user_id}").status_code == 204
    assert other.get(f"/guilds/{guild}").status_code == 404


def test_the_last_owner_stays(chat: Chat, owner: User, guild: str) -> None:
    leave = owner.request("DELETE", f"/guilds/{guild}/members/@me")
    assert (leave.status_code, leave.json()["error"]) == (409, "last_owner")
    demote = owner.request("PUT", f"/guilds/{guild}/members/{owner.user_id}", json={"role": "member"})
    assert (demote.status_code, demote.json()["error"]) == (409, "last_owner")
    heir = member(chat, owner, guild, "owner")
    assert owner.request("DELETE", f"/guilds/{guild}/members/@me").status_code == 204
    assert heir.request("DELETE", f"/guilds/{guild}").status_code == 204
    assert heir.get(f"/guilds/{guild}").status_code == 404


def test_lists_are_paged(owner: User) -> None:
    guilds = [owner.guild(f"g{number}") for number in range(5)]
    first = owner.get("/guilds?limit=2")
    second = owner.get("/guilds", params={"limit": 2, "after": first.headers["x-next-after"]})
    third = owner.get("/guilds", params={"limit": 2, "after": second.headers["x-next-after"]})
    assert "x-next-after" not in third.headers
    assert [line["guild_id"] for page in (first, second, third) for line in page.json()] == guilds


@pytest.mark.parametrize("name", ["", "   ", "x" * 65, "a\x00b", "tab\there"])
def test_names_are_checked(name: str, owner: User, guild: str) -> None:
    for path in ("/guilds", f"/guilds/{guild}/channels"):
        answer = owner.post(path, {"name": name})
        assert (answer.status_code, answer.json()["error"]) == (400, "validation_error")
        assert answer.json()["details"][0]["field"] == "name"


def test_names_are_trimmed_and_counted_in_characters(owner: User) -> None:
    answer = owner.post("/guilds", {"name": "  " + "\U0001f600" * 64 + " "})
    assert answer.json()["name"] == "\U0001f600" * 64


def test_both_prefixes_answer_alike(owner: User, guild: str) -> None:
    for path in ("/users/me", "/guilds", f"/guilds/{guild}/channels", "/channels/unread", "/sessions/devices"):
        assert owner.get(path).json() == owner.get("/client/v1" + path).json()
