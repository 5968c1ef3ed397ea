"""Deleting one's account (PROTOCOL 4.9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from openguild_proto.effects import Effect
from openguild_proto.effects.accounts import ChangePassword, DeleteAccount
from openguild_proto.effects.federation import AskPeer
from openguild_proto.effects.guilds import RemoveMember
from openguild_proto.effects.logs import FindLogHead
from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.http.message import Request, Response
from openguild_proto.operations.account_deletion import delete_by_operator
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.records import Author
from openguild_proto.settings.sections import HttpLimits
from tests.proto.operations.test_federated_guilds import Shared, shared, user_id
from tests.proto.operations.test_upkeep import BOTH, greet, members
from tests.support.world import PASSWORD, World, decoded

__all__ = ["shared"]

PATH = "/users/@me/delete"


def delete(world: World, token: str, password: str = PASSWORD, **hooks: Any) -> Response:
    return world.ask("POST", PATH, {"current_password": password}, token, **hooks)


def told(answer: Response) -> tuple[int, str]:
    return answer.status, decoded(answer)["error"] if answer.body else ""


class Club:
    """A guild of Alice with a channel and a message of Bob, who is a member, and a guild of Bob alone."""

    def __init__(self) -> None:
        self.world = world = World()
        self.alice, self.bob = world.user("alice"), world.user("bob")
        self.bob_id = str(decoded(world.ask("GET", "/users/me", token=self.bob))["user_id"])
        self.guild = self.make("POST", "/guilds", {"name": "club"})["guild_id"]
        self.channel = self.make("POST", f"/guilds/{self.guild}/channels", {"name": "general"})["channel_id"]
        code = self.make("POST", f"/guilds/{self.guild}/invites", {})["code"]
        self.make("POST", f"/invites/{code}/accept", who=self.bob)
        self.make("POST", f"/channels/{self.channel}/messages", {"content": "hello"}, who=self.bob)

    def make(self, method: str, path: str, body: Any = None, who: str | None = None) -> Any:
        answer = self.world.ask(method, path, body, who or self.alice)
        assert answer.status < 300, answer.body
        return decoded(answer) if answer.body else None

    def member_ids(self) -> set[str]:
        return {line["user_id"] for line in self.make("GET", f"/guilds/{self.guild}/members")}


@pytest.fixture
def club() -> Club:
    return Club()


def at(kind: type[Effect[Any]], act: Callable[[], object], times: int = 1) -> Callable[[int, Effect[Any]], None]:
    """A hook that acts before the first `times` effects of a kind."""
    left = [times]

    def hook(place: int, effect: Effect[Any]) -> None:
        if isinstance(effect, kind) and left[0]:
            left[0] -= 1
            act()

    return hook


def test_the_account_is_gone_and_its_messages_stay(club: Club) -> None:
    assert told(delete(club.world, club.bob)) == (204, "")
    assert [warned.fields for warned in club.world.warned] == [(("user_id", club.bob_id),)]
    assert told(club.world.ask("GET", "/users/me", token=club.bob)) == (401, "unauthorized")
    login = {"identifier": "bob", "secret": PASSWORD, "device": {"device_id": "d"}}
    assert told(club.world.ask("POST", "/sessions/login", login)) == (401, "invalid_credentials")
    assert club.bob_id not in club.member_ids()
    assert [line["content"] for line in club.make("GET", f"/channels/{club.channel}/messages")] == ["hello"]
    news = [line["event"]["event_type"] for line in club.make("GET", f"/guilds/{club.guild}/log")]
    assert news[-1] == "member.left"


def test_nothing_names_the_user_but_the_logs_of_others(club: Club) -> None:
    club.make("POST", f"/channels/{club.channel}/read", {"sequence": 1}, club.bob)
    assert delete(club.world, club.bob).status == 204
    kept = {
        name: getattr(club.world.tables._state, name)
        for name in club.world.tables._state.__dataclass_fields__
        if name not in {"writer", "logs", "grown", "control", "channels", "event_places"}
    }
    assert club.bob_id not in repr(kept)
    (channel,) = club.world.tables._state.channels.values()
    assert club.bob_id not in channel.reads


def test_the_name_is_free_again_and_another_account_is_another_user(club: Club) -> None:
    assert delete(club.world, club.bob).status == 204
    bob = club.world.user("bob")
    assert decoded(club.world.ask("GET", "/users/me", token=bob))["user_id"] != club.bob_id
    assert club.world.ask("GET", f"/channels/{club.channel}/messages", token=bob).status == 404


def test_all_sessions_end(club: Club) -> None:
    login = {"identifier": "bob", "secret": PASSWORD, "device": {"device_id": "laptop"}}
    laptop = decoded(club.world.ask("POST", "/sessions/login", login))
    assert delete(club.world, club.bob).status == 204
    assert club.world.ask("GET", "/guilds", token=laptop["access_token"]).status == 401
    refreshed = club.world.ask("POST", "/sessions/refresh", {"refresh_token": laptop["refresh_token"]})
    assert told(refreshed) == (401, "invalid_refresh_token")


def test_a_wrong_password_is_refused_and_is_an_attempt(club: Club) -> None:
    club.world.service.account_logins = SlidingWindow(4, 60)  # after a registration and a login
    assert told(delete(club.world, club.bob, "a wrong guess")) == (403, "wrong_password")
    assert told(delete(club.world, club.bob, "another guess")) == (403, "wrong_password")
    assert told(delete(club.world, club.bob)) == (429, "login_rate_limit")
    assert club.bob_id in club.member_ids()


@pytest.mark.parametrize("body", [{}, {"current_password": " "}, {"current_password": "x" * 1_025}])
def test_an_impossible_password_is_a_problem_of_its_field(club: Club, body: dict[str, str]) -> None:
    answer = club.world.ask("POST", PATH, body, club.bob)
    assert told(answer) == (400, "validation_error")
    assert [problem["field"] for problem in decoded(answer)["details"]] == ["current_password"]


def test_the_only_owner_of_a_guild_keeps_everything(club: Club) -> None:
    code = club.make("POST", f"/guilds/{club.guild}/invites", {})["code"]
    own = club.make("POST", "/guilds", {"name": "den"}, who=club.bob)["guild_id"]
    answer = delete(club.world, club.bob)
    assert told(answer) == (409, "last_owner")
    assert decoded(answer)["details"] == [{"field": own, "message": "you are the only owner of den"}]
    assert club.bob_id in club.member_ids(), "no guild is left where not all can be"
    club.make("DELETE", f"/guilds/{own}", who=club.bob)
    assert delete(club.world, club.bob).status == 204
    assert club.make("GET", f"/invites/{code}")["guild_id"] == club.guild


def test_an_owner_beside_another_may_go(club: Club) -> None:
    club.make("PUT", f"/guilds/{club.guild}/members/{club.bob_id}", {"role": "owner"})
    assert delete(club.world, club.bob).status == 204
    assert told(delete(club.world, club.alice)) == (409, "last_owner")


def test_who_is_removed_meanwhile_is_deleted_all_the_same(club: Club) -> None:
    alice = Author(str(decoded(club.world.ask("GET", "/users/me", token=club.alice))["user_id"]))
    kick = RemoveMember(author=alice, guild_id=club.guild, user_id=club.bob_id, now_ms=club.world.wall_ms)
    assert delete(club.world, club.bob, before=at(RemoveMember, lambda: club.world.perform(kick))).status == 204


def join(club: Club) -> Callable[[], object]:
    grant = GrantGuildRole(guild_id=club.guild, user_id=club.bob_id, role="member", now_ms=club.world.wall_ms)
    return lambda: club.world.perform(grant)


def test_a_guild_that_is_joined_meanwhile_is_left_too(club: Club) -> None:
    assert delete(club.world, club.bob, before=at(DeleteAccount, join(club))).status == 204
    assert club.bob_id not in club.member_ids()


def test_who_never_ceases_to_join_is_refused(club: Club) -> None:
    answer = delete(club.world, club.bob, before=at(DeleteAccount, join(club), times=100))
    assert told(answer) == (503, "overloaded")
    assert delete(club.world, club.bob).status == 204


def test_a_password_that_was_changed_meanwhile_deletes_nothing(club: Club) -> None:
    change = ChangePassword(
        author=Author(club.bob_id), checked_hash=f"hashed {PASSWORD}", password_hash="new", now_ms=club.world.wall_ms
    )
    answer = delete(club.world, club.bob, before=at(DeleteAccount, lambda: club.world.perform(change)))
    assert told(answer) == (401, "unauthorized"), "the change has ended this session"
    assert club.bob_id in club.world.tables._state.users


def test_an_owner_server_learns_of_the_end_and_nothing_else(shared: Shared) -> None:
    bob = user_id(shared.south, shared.bob)
    carried: list[Request] = []

    def listening(request: Request, carry_on: Callable[[], Response]) -> Response:
        carried.append(request)
        return carry_on()

    with shared.federation.on_the_way(listening):
        assert shared.south.ask("POST", PATH, {"current_password": PASSWORD}, shared.bob).status == 204
    assert members(shared) == {"alice"}
    assert shared.north.tables._state.users[bob].username == "deleted"
    assert not shared.south.tables._state.pending_leaves
    assert carried
    assert not any(PASSWORD.encode() in request.body or b"bob" in request.body for request in carried)


def test_an_owner_server_that_does_not_answer_is_asked_once_and_told_later(shared: Shared) -> None:
    second = shared.north.ask_for(shared.alice, "POST", "/guilds", {"name": "second"})["guild_id"]
    code = shared.north.ask_for(shared.alice, "POST", f"/guilds/{second}/invites", {})["code"]
    shared.south.ask_for(shared.bob, "POST", f"/invites/{code}@north.test/accept")
    asked: list[AskPeer] = []

    def look(place: int, effect: Effect[Any]) -> None:
        del place
        if isinstance(effect, AskPeer):
            asked.append(effect)

    shared.federation.cut.add(BOTH)
    answer = shared.south.ask("POST", PATH, {"current_password": PASSWORD}, shared.bob, before=look)
    assert answer.status == 204
    assert [effect.timeout_secs < HttpLimits().request_timeout_secs / 2 for effect in asked] == [True]
    shared.federation.cut.clear()
    assert members(shared) == {"alice", "bob"}
    greet(shared)
    assert members(shared) == {"alice"}
    assert not shared.south.tables._state.pending_leaves


def test_an_owner_server_that_was_restored_is_told_again(shared: Shared) -> None:
    bob = user_id(shared.south, shared.bob)
    carol = shared.south.user("carol")
    shared.south.ask_for(carol, "POST", f"/invites/{shared.code}@north.test/accept")
    member = shared.north.tables._state.members[shared.guild][bob]
    assert shared.south.ask("POST", PATH, {"current_password": PASSWORD}, shared.bob).status == 204
    greet(shared)
    shared.north.tables._state.members[shared.guild][bob] = member  # as before the account was deleted
    state = shared.north.tables._state
    state.epochs[shared.guild] = shared.north.perform(FindLogHead(shared.guild)).epoch + 1
    shared.level()
    assert members(shared) == {"alice", "deleted", "carol"}
    greet(shared)
    assert members(shared) == {"alice", "carol"}
    assert not shared.south.tables._state.pending_leaves


def test_only_an_operator_deletes_the_only_owner_of_a_guild_elsewhere(shared: Shared) -> None:
    bob = user_id(shared.south, shared.bob)
    shared.north.ask_for(shared.alice, "PUT", f"/guilds/{shared.guild}/members/{bob}", {"role": "owner"})
    shared.north.ask_for(shared.alice, "DELETE", f"/guilds/{shared.guild}/members/@me")
    shared.level()
    shared.federation.cut.add(BOTH)
    answer = shared.south.ask("POST", PATH, {"current_password": PASSWORD}, shared.bob)
    assert told(answer) == (409, "last_owner")
    deleted = shared.south.finish(delete_by_operator(bob, shared.south.wall_ms))
    assert deleted is not None
    assert deleted.username == "bob"
    assert bob not in shared.south.tables._state.users
    shared.federation.cut.clear()
    greet(shared)
    assert not shared.south.tables._state.pending_leaves, "the owner has decided that they stay"


def test_a_join_that_ends_after_the_account_is_undone_at_the_owner(shared: Shared) -> None:
    carol = shared.south.user("carol")

    def deleting(request: Request, carry_on: Callable[[], Response]) -> Response:
        answer = carry_on()
        if request.path.endswith("/join"):
            assert shared.south.ask("POST", PATH, {"current_password": PASSWORD}, carol).status == 204
        return answer

    with shared.federation.on_the_way(deleting):
        answer = shared.south.ask("POST", f"/invites/{shared.code}@north.test/accept", token=carol)
    assert told(answer) == (401, "unauthorized")
    assert members(shared) == {"alice", "bob", "carol"}
    shared.south.wall_ms += 600_000
    shared.north.wall_ms += 600_000
    greet(shared)
    assert members(shared) == {"alice", "bob"}
    assert msgspec.json.decode(shared.south.ask("GET", f"/guilds/{shared.guild}/members", token=shared.bob).body)
