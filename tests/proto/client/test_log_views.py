"""What a client makes of a guild's and of its own log is what the server answers, whatever happened (PROTOCOL 7.9)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from openguild_proto.client.log_views import GuildView, LogView, UserView
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.schemas.guilds import Channel, Guild, Member
from tests.support.world import PASSWORD, World, decoded

NAMES = ["one", "два", "三", "رابع", "👩‍👩‍👧"]


class Follower:
    """A client that follows a guild's log and its own by /sync."""

    def __init__(self, world: World, token: str, user_id: str, guild: str) -> None:
        self.world, self.token = world, token
        self.logs: dict[str, LogView] = {f"guild:{guild}": GuildView(), f"user:{user_id}": UserView()}
        self.gone: set[str] = set()

    def sync(self, limit: int) -> bool:
        """One request; whether there is more."""
        positions = [{"log": name, "epoch": 1, "sequence": view.head} for name, view in self.logs.items()]
        answer = decoded(self.world.ask("POST", "/sync", {"positions": positions, "limit": limit}, self.token))
        self.gone = {line["log"] for line in answer["logs"] if line["status"] == "gone"}
        for line in answer["logs"]:
            assert line["status"] in {"news", "gone"}
            for event in line.get("events", ()):
                self.logs[line["log"]].apply(event["sequence"], msgspec.json.encode(event["event"]))
        return bool(answer["more"])

    def level(self) -> None:
        while self.sync(limit=3):
            pass


def members_of(view: GuildView) -> dict[str, tuple[str, str, str | None]]:
    """Return names, roles, and time-outs that count."""
    return {
        user_id: (member.username, member.role, member.timed_out_until if member.role != "owner" else None)
        for user_id, member in view.members.items()
    }


class Histories(RuleBasedStateMachine):
    """Three users change a guild and themselves; the owner's device follows from the beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        for window in ("address_logins", "account_logins"):
            setattr(self.world.service, window, SlidingWindow(1_000_000, 60))
        self.tokens = [self.world.user(name) for name in ("owner", "one", "two")]
        self.ids = [decoded(self.world.ask("GET", "/users/me", token=token))["user_id"] for token in self.tokens]
        self.guild = decoded(self.world.ask("POST", "/guilds", {"name": "g"}, self.tokens[0]))["guild_id"]
        self.channels: list[str] = []
        self.codes: list[str] = []
        self.follower = Follower(self.world, self.tokens[0], self.ids[0], self.guild)

    def ask(self, user: int, method: str, path: str, body: Any = None) -> Any:
        answer = self.world.ask(method, path, body, self.tokens[user])
        assert answer.status in {200, 201, 204, 403, 404, 409}, answer.body
        return decoded(answer) if answer.body and answer.status < 300 else {}

    users, places, names = st.integers(0, 2), st.integers(0, 30), st.sampled_from(NAMES)

    def one_of(self, things: list[str], place: int) -> str:
        return things[place % len(things)] if things else "00000000-0000-4000-8000-000000000000"

    @rule(user=users, name=names)
    def rename_guild(self, user: int, name: str) -> None:
        self.ask(user, "PATCH", f"/guilds/{self.guild}?reason=because", {"name": name})

    @rule(user=users, name=names, position=st.none() | st.integers(0, 9))
    def make_channel(self, user: int, name: str, position: int | None) -> None:
        made = self.ask(user, "POST", f"/guilds/{self.guild}/channels", {"name": name, "position": position})
        if made:
            self.channels.append(made["channel_id"])

    @rule(user=users, place=places, name=st.none() | names, topic=st.sampled_from(["", "news", "話題"]))
    def change_channel(self, user: int, place: int, name: str | None, topic: str) -> None:
        change = {"topic": topic} if name is None else {"name": name, "topic": topic}
        self.ask(user, "PATCH", f"/channels/{self.one_of(self.channels, place)}", change)

    @rule(user=users, place=places)
    def delete_channel(self, user: int, place: int) -> None:
        self.ask(user, "DELETE", f"/channels/{self.one_of(self.channels, place)}")

    @rule(user=users)
    def invite(self, user: int) -> None:
        made = self.ask(user, "POST", f"/guilds/{self.guild}/invites", {})
        if made:
            self.codes.append(made["code"])

    @rule(user=users, place=places)
    def join(self, user: int, place: int) -> None:
        self.ask(user, "POST", f"/invites/{self.one_of(self.codes, place)}/accept")

    @rule(user=users, place=places)
    def delete_invite(self, user: int, place: int) -> None:
        self.ask(user, "DELETE", f"/invites/{self.one_of(self.codes, place)}")

    @rule(user=users)
    def leave(self, user: int) -> None:
        self.ask(user, "DELETE", f"/guilds/{self.guild}/members/@me")

    @rule(user=users, other=users)
    def kick(self, user: int, other: int) -> None:
        self.ask(user, "DELETE", f"/guilds/{self.guild}/members/{self.ids[other]}?reason=spam")

    @rule(user=users, other=users)
    def ban(self, user: int, other: int) -> None:
        self.ask(user, "PUT", f"/guilds/{self.guild}/bans/{self.ids[other]}?reason=spam")

    @rule(user=users, other=users)
    def unban(self, user: int, other: int) -> None:
        self.ask(user, "DELETE", f"/guilds/{self.guild}/bans/{self.ids[other]}")

    @rule(user=users, other=users, secs=st.sampled_from([60, 600]))
    def time_out(self, user: int, other: int, secs: int) -> None:
        self.ask(user, "PUT", f"/guilds/{self.guild}/members/{self.ids[other]}/timeout?reason=spam", {"secs": secs})

    @rule(user=users, other=users)
    def end_timeout(self, user: int, other: int) -> None:
        self.ask(user, "DELETE", f"/guilds/{self.guild}/members/{self.ids[other]}/timeout")

    @rule(
        user=users, other=users, role=st.sampled_from(["guest", "member", "maintainer", "moderator", "admin", "owner"])
    )
    def set_role(self, user: int, other: int, role: str) -> None:
        self.ask(user, "PUT", f"/guilds/{self.guild}/members/{self.ids[other]}", {"role": role})

    @rule(user=users, place=places)
    def post_and_read(self, user: int, place: int) -> None:
        channel = self.one_of(self.channels, place)
        self.ask((user + 1) % 3, "POST", f"/channels/{channel}/messages", {"content": "x"})
        self.ask(user, "POST", f"/channels/{channel}/read", {})

    @rule(name=st.sampled_from(["", *NAMES]))
    def show_another_name(self, name: str) -> None:
        self.ask(0, "PATCH", "/users/@me", {"display_name": name})

    @rule(device=st.sampled_from(["phone", "tablet"]))
    def log_in(self, device: str) -> None:
        login = {"identifier": "owner", "secret": PASSWORD, "device": {"device_id": device}}
        assert self.world.ask("POST", "/sessions/login", login).status == 200

    @rule(device=st.sampled_from(["phone", "tablet"]))
    def log_out(self, device: str) -> None:
        self.ask(0, "DELETE", f"/sessions/devices/{device}")

    @rule(limit=st.integers(1, 9))
    def follow(self, limit: int) -> None:
        self.follower.sync(limit)

    @invariant()
    def a_level_client_knows_what_the_server_answers(self) -> None:
        follower = self.follower
        follower.level()
        guild, own = follower.logs.values()
        assert isinstance(guild, GuildView)
        assert isinstance(own, UserView)
        is_member = any(line["guild_id"] == self.guild for line in self.ask(0, "GET", "/guilds"))
        assert follower.gone == (set() if is_member else {f"guild:{self.guild}"})
        assert own.guilds == ({self.guild} if is_member else set())
        assert own.devices == {line["device_id"] for line in self.ask(0, "GET", "/sessions/devices")}
        unread = self.ask(0, "GET", "/channels/unread")
        assert all(own.read.get(line["channel_id"], 0) <= line["last_read_sequence"] for line in unread)
        me = self.ask(0, "GET", "/users/me")
        assert (own.display_name or "owner") == me["display_name"]
        if is_member:
            later = self.folded()
            assert (guild.head, guild.name, guild.channels) == (later.head, later.name, later.channels)
            assert members_of(guild) == members_of(later)
            _, role, until = members_of(guild)[self.ids[0]]
            if until is not None:
                role = "member"  # or less: it opens none of what follows
            if role not in {"guest", "member"}:
                invites = {line["invite_id"] for line in self.ask(0, "GET", f"/guilds/{self.guild}/invites")}
                assert invites == guild.invites
            if role in {"moderator", "admin", "owner"}:
                assert {line["user_id"] for line in self.ask(0, "GET", f"/guilds/{self.guild}/bans")} == guild.banned
            assert not guild.banned & guild.members.keys()

    def folded(self) -> GuildView:
        """The view of a client that begins with the folded answers."""
        shown = self.world.ask("GET", f"/guilds/{self.guild}", token=self.tokens[0])
        head = int(dict(shown.headers)["x-openguild-head"])
        channels = self.ask(0, "GET", f"/guilds/{self.guild}/channels")
        members = self.ask(0, "GET", f"/guilds/{self.guild}/members")
        return GuildView.start(
            head,
            msgspec.convert(decoded(shown), Guild),
            msgspec.convert(channels, list[Channel]),
            msgspec.convert(members, list[Member]),
        )


Histories.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestHistories = Histories.TestCase


def test_a_hole_is_not_passed_over() -> None:
    view = GuildView()
    with pytest.raises(ValueError, match="event 1 is missing"):
        view.apply(2, b"{}")


def test_an_unknown_event_is_passed_over() -> None:
    world = World()
    alice = world.user("alice")
    guild = decoded(world.ask("POST", "/guilds", {"name": "g"}, alice))["guild_id"]
    first, second = decoded(world.ask("GET", f"/guilds/{guild}/log", token=alice))
    view = GuildView()
    view.apply(1, msgspec.json.encode(first["event"]))
    view.apply(2, msgspec.json.encode({**second["event"], "event_type": "guild.moon_phase"}))
    assert (view.head, view.name, view.members) == (2, "g", {})


def test_who_joins_again_is_still_known_as_timed_out() -> None:
    histories = Histories()
    histories.invite(0)
    histories.join(1, 0)
    histories.time_out(0, 1, 600)
    histories.leave(1)
    histories.a_level_client_knows_what_the_server_answers()
    histories.join(1, 0)
    histories.a_level_client_knows_what_the_server_answers()
    guild = histories.follower.logs[f"guild:{histories.guild}"]
    assert isinstance(guild, GuildView)
    assert guild.members[histories.ids[1]].timed_out_until is not None
