"""Mentions: who gets them, who may make them, how they are counted and cleared (PROTOCOL 6.11, 7.10)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from openguild_proto.effects.roles import GrantChannelRole, GrantGuildRole, GrantServerRole, RevokeServerRole
from openguild_proto.policy.permissions import RANKS
from openguild_proto.policy.ratelimit import SlidingWindow
from tests.support.world import World, decoded

NAMES = ("owner", "mod", "member", "guest", "stranger")
ROLES = {"mod": "moderator", "member": "member", "guest": "guest"}


class Place:
    def __init__(self) -> None:
        self.world = World()
        for window in ("user_messages", "address_messages"):
            setattr(self.world.service, window, SlidingWindow(1_000_000, 60))
        self.tokens = {name: self.world.user(name) for name in NAMES}
        self.ids = {name: self.ask(name, "GET", "/users/me")["user_id"] for name in NAMES}
        self.guild = self.ask("owner", "POST", "/guilds", {"name": "g"})["guild_id"]
        self.channel = self.ask("owner", "POST", f"/guilds/{self.guild}/channels", {"name": "c"})["channel_id"]
        for name, role in ROLES.items():
            self.grant(name, role)

    def grant(self, name: str, role: str) -> None:
        self.world.perform(
            GrantGuildRole(guild_id=self.guild, user_id=self.ids[name], role=role, now_ms=self.world.wall_ms)
        )

    def ask(self, name: str, method: str, path: str, body: Any = None, status: int = 0) -> Any:
        self.world.wall_ms += 1
        answer = self.world.ask(method, path, body, self.tokens[name])
        assert answer.status == status if status else answer.status < 300, answer.body
        return decoded(answer) if answer.body else None

    def post(self, name: str, text: str, **more: Any) -> str:
        for who in NAMES:
            text = text.replace(f"<@{who}>", f"<@{self.ids[who]}>")
        if "allowed_mentions" in more and "users" in (allowed := more["allowed_mentions"]):
            allowed["users"] = [self.ids[who] for who in allowed["users"]]
        return str(self.ask(name, "POST", f"/channels/{self.channel}/messages", {"content": text, **more})["event_id"])

    def inbox(self, name: str, query: str = "") -> list[str]:
        return [line["event_id"] for line in self.ask(name, "GET", f"/inbox{query}")]

    def count(self, name: str) -> int:
        return sum(line["mentions"] for line in self.ask(name, "GET", "/channels/unread"))


@pytest.fixture
def place() -> Place:
    return Place()


def test_a_user_is_told_in_their_own_log_and_inbox(place: Place) -> None:
    event_id = place.post("member", "<@guest> e\u0301 好 <@stranger> <@member>")
    (line,) = place.ask("guest", "GET", "/inbox")
    assert line.pop("created_at")
    assert line == {
        "channel_id": place.channel, "guild_id": place.guild, "event_id": event_id, "sequence": 1,
        "author": {"id": place.ids["member"], "username": "member"},
        "content": f"<@{place.ids['guest']}> e\u0301 好 <@{place.ids['stranger']}> <@{place.ids['member']}>",
        "direct": True, "unread": True,
    }  # fmt: skip
    told = place.ask("guest", "GET", "/users/@me/log")[-1]["event"]
    assert told["event_type"] == "mentioned"
    assert (told["sender"], told["content"]["message_id"]) == (place.ids["member"], event_id)
    assert place.inbox("stranger") == place.inbox("member") == []
    (event,) = place.ask("guest", "GET", f"/channels/{place.channel}/events")
    assert set(event["event"]["content"]["mentions"]["users"]) == {
        place.ids[n] for n in ("guest", "stranger", "member")
    }
    assert place.count("guest") == 1
    assert place.ask("guest", "POST", f"/channels/{place.channel}/read", {})["mentions"] == 0
    assert place.count("guest") == 0
    assert place.inbox("guest") == [event_id]
    assert place.inbox("guest", "?unread=true") == []


def test_roles_and_everyone_need_the_right(place: Place) -> None:
    place.post("member", "@everyone <@&guest>")
    assert place.inbox("guest") == []
    first, second = place.post("mod", "@everyone"), place.post("mod", "<@&guest> <@&owner>")
    assert place.inbox("guest") == [second, first]
    assert place.inbox("member") == [first]
    assert place.inbox("mod") == []
    assert [line["direct"] for line in place.ask("owner", "GET", "/inbox")] == [False, False]
    assert [place.count(name) for name in NAMES] == [2, 0, 1, 2, 0]


def test_an_author_may_mention_less_than_the_text_names(place: Place) -> None:
    place.post(
        "mod", "@everyone <@guest> <@member> <@&owner>", allowed_mentions={"users": ["guest"], "everyone": False}
    )
    assert [len(place.inbox(name)) for name in NAMES] == [1, 0, 0, 1, 0]
    place.post("mod", "@everyone <@guest>", allowed_mentions={"users": [], "roles": [], "everyone": False})
    assert len(place.inbox("guest")) == 1


def test_whoever_joins_later_was_not_mentioned(place: Place) -> None:
    place.post("mod", "@everyone <@&member> <@stranger>")
    place.ask("stranger", "GET", f"/channels/{place.channel}", status=404)
    place.grant("stranger", "member")
    assert place.inbox("stranger") == []
    later = place.post("mod", "@everyone")
    assert place.inbox("stranger") == [later]


def test_what_is_taken_back_mentions_nobody_and_what_is_edited_mentions_the_same(place: Place) -> None:
    gone, edited = place.post("mod", "@everyone <@guest>"), place.post("mod", "<@guest>")
    place.ask("mod", "DELETE", f"/channels/{place.channel}/events/{gone}")
    place.ask("mod", "PATCH", f"/channels/{place.channel}/events/{edited}", {"content": "never mind, @everyone"})
    (line,) = place.ask("guest", "GET", "/inbox")
    assert (line["event_id"], line["content"]) == (edited, "never mind, @everyone")
    assert place.inbox("member") == []
    assert place.count("guest") == 1


def test_a_repeat_mentions_nobody_again(place: Place) -> None:
    first = place.post("mod", "<@guest>", nonce="n")
    assert place.post("mod", "<@guest>", nonce="n") == first
    assert place.inbox("guest") == [first]
    assert [line["event"]["event_type"] for line in place.ask("guest", "GET", "/users/@me/log")].count("mentioned") == 1


def test_the_right_is_decided_again_where_the_message_is_stored(place: Place) -> None:
    def demote(at: int, effect: Any) -> None:
        if type(effect).__name__ == "AppendEvent":
            place.grant("mod", "member")

    path = f"/channels/{place.channel}/messages"
    answer = place.world.ask("POST", path, {"content": "@everyone"}, place.tokens["mod"], before=demote)
    assert answer.status == 403
    assert place.ask("guest", "GET", f"/channels/{place.channel}/events") == []


def test_the_inbox_comes_in_pages(place: Place) -> None:
    posted = [place.post("mod", f"<@guest> {number}") for number in range(7)]
    found: list[str] = []
    after = ""
    while True:
        answer = place.world.ask("GET", f"/inbox?limit=3{after}", token=place.tokens["guest"])
        found += [line["event_id"] for line in decoded(answer)]
        following = dict(answer.headers).get("x-next-after")
        if following is None:
            break
        after = f"&after={following.replace('$', '%24')}"
    assert found == posted[::-1]


class Histories(RuleBasedStateMachine):
    """Every count and inbox against a brute-force oracle over random histories."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Place()
        self.messages: list[dict[str, Any]] = []  # event id, author, users, roles, everyone, readers at that time
        self.read = dict.fromkeys(NAMES, 0)
        self.roles: dict[str, str | None] = {"owner": "owner", **ROLES, "stranger": None}
        self.joined = dict.fromkeys(NAMES, -1)
        self.head = 0

    names = st.sampled_from(NAMES)

    @rule(
        name=st.sampled_from(["owner", "mod", "member"]),
        users=st.sets(names),
        roles=st.sets(st.sampled_from([*ROLES.values(), "owner"])),
        everyone=st.booleans(),
    )  # fmt: skip
    def post(self, name: str, users: set[str], roles: set[str], everyone: bool) -> None:
        role = self.roles[name]
        if role is None or RANKS[role] < RANKS["contributor"]:
            return
        text = " ".join(
            ["x", *(f"<@{user}>" for user in users), *(f"<@&{of}>" for of in roles), *["@everyone"] * everyone]
        )
        event_id, self.head = self.place.post(name, text), self.head + 1
        many = RANKS[role] >= RANKS["moderator"]
        self.messages.append({
            "id": event_id, "at": self.head, "by": name, "everyone": everyone and many, "roles": roles if many else set(),
            "users": {user for user in users if self.roles[user] is not None and user != name},
        })  # fmt: skip

    @rule(place=st.integers(0, 20))
    def redact(self, place: int) -> None:
        if self.messages:
            message = self.messages.pop(place % len(self.messages))
            path = f"/channels/{self.place.channel}/events/{message['id']}?reason=x"
            self.place.ask("owner", "DELETE", path)
            self.head += 1

    @rule(name=names, back=st.integers(0, 3))
    def mark_read(self, name: str, back: int) -> None:
        if self.roles[name] is not None:
            sequence = max(self.head - back, 0)
            self.place.ask(name, "POST", f"/channels/{self.place.channel}/read", {"sequence": sequence})
            self.read[name] = max(self.read[name], sequence)

    @rule(name=st.sampled_from(["mod", "member", "guest"]), role=st.sampled_from([*ROLES.values(), "owner"]))
    def set_role(self, name: str, role: str) -> None:
        if self.roles[name] is None:
            self.joined[name] = self.head
        self.place.world.wall_ms += 1
        self.place.grant(name, role)
        self.roles[name] = role

    @rule(name=st.sampled_from(["mod", "member", "guest", "stranger"]))
    def leave(self, name: str) -> None:
        if self.roles[name] not in {None, "owner"}:
            self.place.ask(name, "DELETE", f"/guilds/{self.place.guild}/members/@me")
            self.roles[name] = None

    @invariant()
    def inboxes_and_counts_are_those_of_the_oracle(self) -> None:
        for name, role in self.roles.items():
            expected = [
                message
                for message in self.messages
                if role is not None and message["by"] != name and (
                    name in message["users"]
                    or (message["at"] > self.joined[name] and (message["everyone"] or role in message["roles"]))
                )
            ]  # fmt: skip
            assert self.place.inbox(name) == [message["id"] for message in reversed(expected)]
            unread = [message for message in expected if message["at"] > self.read[name]]
            assert self.place.inbox(name, "?unread=true") == [message["id"] for message in reversed(unread)]
            assert self.place.count(name) == len(unread)


Histories.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestHistories = Histories.TestCase


def test_a_role_in_the_channel_or_on_the_server_counts(place: Place) -> None:
    world = place.world
    world.perform(GrantChannelRole(channel_id=place.channel, user_id=place.ids["stranger"], role="viewer", now_ms=1))
    first = place.post("mod", "<@&viewer>")
    assert place.inbox("stranger") == [first]
    world.perform(GrantServerRole(user_id=place.ids["stranger"], role="admin", now_ms=2))
    second = place.post("mod", "<@&admin>")
    assert place.inbox("stranger") == [second], "the effective role is the highest"
    world.perform(RevokeServerRole(user_id=place.ids["stranger"], role="admin", now_ms=3))
    assert place.inbox("stranger") == [first]


@pytest.mark.parametrize("after", ["zz", "0.zz", "0.$0", f"%24{'1' * 44}", "9" * 20 + ".%241"])
def test_only_what_a_page_named_leads_to_the_next_one(place: Place, after: str) -> None:
    answer = place.world.ask("GET", f"/inbox?after={after}", token=place.tokens["mod"])
    assert answer.status == 400
    assert decoded(answer)["details"] == [{"field": "after", "message": "must be the X-Next-After header of a page"}]
