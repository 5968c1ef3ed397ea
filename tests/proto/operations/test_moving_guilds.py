"""A guild that moves to another server, through the cores of three servers (PROTOCOL 16.10)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from openguild_proto.effects.federation import AskPeer, PeerUnavailable
from openguild_proto.effects.handovers import EndMove, ListHandovers, ListMoves
from openguild_proto.http.message import Request, Response
from openguild_proto.limits import RENEWAL_SECS
from openguild_proto.mirror_records import TransferredInvite
from openguild_proto.policy.moves import MOVING, NO_GUILD, NO_MEMBER
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.schemas.between_servers import HandoverStep
from tests.support.moving_guild import EAST, NORTH, SOUTH, MovingGuild, error
from tests.support.world import PASSWORD


@pytest.fixture
def guild() -> MovingGuild:
    return MovingGuild()


def test_a_moved_guild_is_whole_on_its_new_server(guild: MovingGuild) -> None:
    first = guild.post(guild.north, guild.alice, "to edit")
    guild.north.ask_for(
        guild.alice, "PATCH", f"/channels/{guild.channel}/events/{first['event_id']}", {"content": "edited"}
    )
    guild.post(guild.east, guild.carol, "from the east")
    before = guild.texts(guild.north, guild.alice)
    guild.move(guild.north, SOUTH)
    assert [guild.origin(*each) for each in ((guild.north, guild.alice), (guild.south, guild.bob))] == [SOUTH, None]
    guild.federation.cut.add(frozenset({NORTH, SOUTH}))
    guild.federation.cut.add(frozenset({SOUTH, EAST}))
    assert guild.texts(guild.south, guild.bob) == before
    names = {
        line["username"]: line.get("origin")
        for line in guild.south.ask_for(guild.bob, "GET", f"/guilds/{guild.guild}/members")
    }
    assert names == {"alice": NORTH, "bob": None, "carol": EAST}
    log = guild.south.ask_for(guild.bob, "GET", f"/guilds/{guild.guild}/log?limit=200")
    assert log[0]["event"]["event_type"] == "guild.created"
    moved = log[-1]["event"]
    assert (moved["event_type"], moved["origin_server"]) == ("guild.moved", SOUTH)
    assert {**moved["content"], "place": None} == {"former": NORTH, "owner": SOUTH, "term": 2, "place": None}


def test_a_moved_guild_that_is_deleted_leaves_nothing_of_its_logs(guild: MovingGuild) -> None:
    guild.move(guild.north, SOUTH)
    bob = guild.user_id(guild.south, guild.bob)
    guild.north.ask_for(guild.alice, "PUT", f"/guilds/{guild.guild}/members/{bob}", {"role": "owner"})
    state = guild.south.tables._state
    assert guild.guild in state.epochs
    guild.south.ask_for(guild.bob, "DELETE", f"/guilds/{guild.guild}")
    left = {*state.epochs, *state.bases, *state.histories}
    assert not left & {guild.guild, guild.channel}


def test_all_servers_follow_a_moved_guild(guild: MovingGuild) -> None:
    guild.move(guild.north, SOUTH)
    guild.level(guild.south)
    for server, token in ((guild.north, guild.alice), (guild.east, guild.carol)):
        assert guild.origin(server, token) == SOUTH
    guild.post(guild.north, guild.alice, "from the north")
    guild.post(guild.east, guild.carol, "from the east")
    guild.post(guild.south, guild.bob, "from the south")
    guild.level(guild.south)
    expected = ["before", "from the north", "from the east", "from the south"]
    for server, token in ((guild.north, guild.alice), (guild.south, guild.bob), (guild.east, guild.carol)):
        assert guild.texts(server, token) == expected


def test_the_former_owner_sends_servers_on(guild: MovingGuild) -> None:
    guild.move(guild.north, SOUTH)
    assert error(guild.try_post(guild.east, guild.carol, "hello", nonce="n")) == (503, "guild_offline")
    assert guild.origin(guild.east, guild.carol) == SOUTH
    assert guild.try_post(guild.east, guild.carol, "hello", nonce="n").status == 200
    assert guild.texts(guild.south, guild.bob) == ["before", "hello"]


def test_other_requests_are_sent_on_as_well(guild: MovingGuild) -> None:
    guild.move(guild.north, SOUTH)
    assert guild.east.ask("GET", f"/guilds/{guild.guild}/invites", token=guild.carol).status == 403
    assert guild.east.ask("DELETE", f"/guilds/{guild.guild}/members/@me", token=guild.carol).status == 204
    assert ("east.test", "north.test", "POST /federation/v1/requests") in guild.federation.carried


def test_a_mirror_that_the_new_owner_does_not_know_goes(guild: MovingGuild) -> None:
    guild.move(guild.north, SOUTH)
    guild.level(guild.south)
    del guild.south.tables._state.peer_guilds[EAST, guild.guild]
    asked = guild.east.perform(AskPeer(SOUTH, "GET", f"/federation/v1/logs/{guild.guild}/events"))
    assert asked.status == 404, "it is the owner, and names no other"
    asked = guild.east.perform(AskPeer(NORTH, "GET", f"/federation/v1/logs/{guild.guild}/events"))
    assert asked.status == 421
    for _ in range(4):
        guild.greet(guild.south, guild.east)
    assert guild.east.ask_for(guild.carol, "GET", "/guilds") == []


def test_invites_go_on_to_the_new_owner(guild: MovingGuild) -> None:
    guild.move(guild.north, SOUTH)
    dora, erik = guild.north.user("dora"), guild.east.user("erik")
    shown = guild.north.ask_for(dora, "GET", f"/invites/{guild.code}")
    assert (shown["origin"], shown["code"]) == (SOUTH, f"{guild.code}@{SOUTH}")
    guild.level(guild.south)
    guild.north.ask_for(dora, "POST", f"/invites/{guild.code}@{SOUTH}/accept")
    guild.east.ask_for(erik, "POST", f"/invites/{guild.code}@{NORTH}/accept")
    guild.level(guild.south)
    assert len(guild.south.ask_for(guild.bob, "GET", f"/guilds/{guild.guild}/members")) == 5


def test_invites_come_back_as_the_last_owner_had_them(guild: MovingGuild) -> None:
    once = guild.north.ask_for(guild.alice, "POST", f"/guilds/{guild.guild}/invites", {"max_uses": 1})["code"]
    guild.move(guild.north, SOUTH)
    guild.level(guild.south)
    dora, erik = guild.east.user("dora"), guild.north.user("erik")
    guild.east.ask_for(dora, "POST", f"/invites/{once}@{SOUTH}/accept")
    guild.north.ask_for(guild.alice, "DELETE", f"/invites/{guild.code}@{SOUTH}")
    guild.level(guild.south)
    guild.move(guild.south, NORTH)
    assert error(guild.north.ask("POST", f"/invites/{guild.code}/accept", token=erik)) == (404, "not_found")
    assert error(guild.north.ask("POST", f"/invites/{once}/accept", token=erik)) == (410, "invite_expired")


def test_a_former_owner_that_succeeds_begins_without_its_former_invites(guild: MovingGuild) -> None:
    kept = guild.north.ask_for(guild.alice, "POST", f"/guilds/{guild.guild}/invites")["code"]
    guild.move(guild.north, SOUTH)
    guild.level(guild.south)
    guild.north.ask_for(guild.alice, "DELETE", f"/invites/{guild.code}@{SOUTH}")
    role = {"role": "owner"}
    guild.north.ask_for(
        guild.alice, "PUT", f"/guilds/{guild.guild}/members/{guild.user_id(guild.south, guild.bob)}", role
    )
    statement = guild.statement(NORTH, guild.bob, guild.south)
    guild.level(guild.south)
    guild.federation.cut |= {frozenset({NORTH, SOUTH}), frozenset({EAST, SOUTH})}
    guild.pass_time()
    assert guild.succeed(guild.north, statement) is None
    erik = guild.north.user("erik")
    for code in (guild.code, kept):  # deleted at the other owner, or used there, which nobody can tell any more
        assert error(guild.north.ask("POST", f"/invites/{code}/accept", token=erik)) == (404, "not_found")


def test_a_repeat_after_the_move_is_known_by_its_nonce(guild: MovingGuild) -> None:
    posted = {
        "north": guild.post(guild.north, guild.alice, "once", nonce="a"),
        "south": guild.post(guild.south, guild.bob, "once", nonce="b"),
        "east": guild.post(guild.east, guild.carol, "once", nonce="c"),
    }
    guild.move(guild.north, SOUTH)
    guild.level(guild.south)
    assert guild.post(guild.north, guild.alice, "once", nonce="a") == posted["north"]
    assert guild.post(guild.south, guild.bob, "once", nonce="b") == posted["south"]
    assert guild.post(guild.east, guild.carol, "once", nonce="c") == posted["east"]
    assert error(guild.try_post(guild.east, guild.carol, "twice", nonce="c")) == (409, "nonce_reused")
    assert guild.texts(guild.south, guild.bob) == ["before", "once", "once", "once"]


def test_a_guild_moves_on_and_back(guild: MovingGuild) -> None:
    guild.move(guild.north, SOUTH)
    guild.level(guild.south)
    guild.post(guild.south, guild.bob, "in the south")
    guild.move(guild.south, EAST)
    guild.level(guild.east)
    guild.post(guild.east, guild.carol, "in the east")
    guild.move(guild.east, NORTH)
    guild.level(guild.north)
    guild.post(guild.south, guild.bob, "at home")
    assert [each.term for each in guild.north.perform(ListHandovers(guild_id=guild.guild))] == [2, 3, 4]
    guild.federation.cut |= {frozenset({NORTH, SOUTH}), frozenset({NORTH, EAST})}
    assert guild.texts(guild.north, guild.alice) == ["before", "in the south", "in the east", "at home"]


def test_mirrors_begin_anew_with_each_owner_within_a_minute(guild: MovingGuild) -> None:
    for server in guild.servers:
        server.service.mirror_renewals = SlidingWindow(1, RENEWAL_SECS)
    guild.move(guild.north, SOUTH)
    guild.level(guild.south)
    guild.move(guild.south, EAST)
    guild.level(guild.east)
    guild.post(guild.south, guild.bob, "from the south")
    guild.level(guild.east)
    expected = ["before", "from the south"]
    for server, token in ((guild.north, guild.alice), (guild.south, guild.bob), (guild.east, guild.carol)):
        assert guild.texts(server, token) == expected


def test_a_server_that_joined_later_knows_former_owners(guild: MovingGuild) -> None:
    guild.east.ask_for(guild.carol, "DELETE", f"/guilds/{guild.guild}/members/@me")
    guild.level(guild.north)
    guild.move(guild.north, SOUTH)
    guild.level(guild.south)
    guild.post(guild.south, guild.bob, "in the south")
    guild.east.ask_for(guild.carol, "POST", f"/invites/{guild.code}@{SOUTH}/accept")
    guild.move(guild.south, EAST)
    assert guild.texts(guild.east, guild.carol) == ["before", "in the south"]
    assert [each.term for each in guild.east.perform(ListHandovers(guild_id=guild.guild))] == [2, 3]
    guild.federation.cut.add(frozenset({NORTH, SOUTH}))
    guild.level(guild.east)
    assert guild.origin(guild.north, guild.alice) == EAST


def test_a_server_without_members_keeps_nothing_of_a_moved_guild(guild: MovingGuild) -> None:
    bob = guild.user_id(guild.south, guild.bob)
    guild.north.ask_for(guild.alice, "PUT", f"/guilds/{guild.guild}/members/{bob}", {"role": "owner"})
    guild.north.ask_for(guild.alice, "DELETE", f"/guilds/{guild.guild}/members/@me")
    guild.level(guild.north)
    guild.move(guild.north, SOUTH)
    state = guild.north.tables._state
    assert guild.guild not in state.guilds
    assert guild.channel not in state.channels
    assert error(guild.try_post(guild.east, guild.carol, "hello"))[0] in {404, 503}
    guild.level(guild.south)
    assert guild.origin(guild.east, guild.carol) == SOUTH


def test_what_cannot_be_moved_is_said(guild: MovingGuild) -> None:
    assert guild.begin(guild.north, "nowhere.test") == NO_MEMBER
    assert guild.begin(guild.south, EAST) == NO_GUILD
    assert guild.begin(guild.north, SOUTH) is None
    assert guild.begin(guild.north, SOUTH) is None
    assert guild.begin(guild.north, EAST) == MOVING
    assert guild.north.perform(EndMove(guild_id=guild.guild, done=False))
    assert guild.north.perform(ListMoves()) == ()


def test_the_other_operator_must_agree(guild: MovingGuild) -> None:
    settings = guild.south.service.settings
    policy = msgspec.structs.replace(settings.federation, take_guilds_from=frozenset())
    guild.south.service.settings = msgspec.structs.replace(settings, federation=policy)
    assert guild.begin(guild.north, SOUTH) is None
    assert "federation.take_guilds_from" in (guild.drive(guild.north) or "")
    assert guild.origin(guild.north, guild.alice) is None


@pytest.mark.parametrize(
    "change",
    [
        {"code": "a b"}, {"code": "x" * 65}, {"created_by": "alice"}, {"created_at_ms": 2**60}, {"uses": 2**31},
        {"uses": -1}, {"max_uses": 0}, {"max_uses": 2**40}, {"expires_at_ms": -1}, {"expires_at_ms": 2**62},
    ],
    ids=str,
)  # fmt: skip
def test_invites_that_cannot_be_kept_are_not_taken(guild: MovingGuild, change: dict[str, Any]) -> None:
    assert guild.begin(guild.north, SOUTH) is None
    good = TransferredInvite("code", guild.user_id(guild.north, guild.alice), guild.north.wall_ms, 2**31 - 1, 1, 1)
    target = f"/federation/v1/guilds/{guild.guild}/handover"
    for invite, status in ((good, 200), (msgspec.structs.replace(good, **change), 400)):
        body = msgspec.json.encode(HandoverStep(invites=[invite]))
        assert guild.north.perform(AskPeer(SOUTH, "POST", target, body)).status == status


def test_a_server_that_is_behind_reads_what_it_lacks(guild: MovingGuild) -> None:
    guild.north.ask_for(guild.alice, "PATCH", f"/guilds/{guild.guild}", {"name": "renamed"})
    guild.post(guild.north, guild.alice, "not delivered")
    assert guild.begin(guild.north, SOUTH) is None
    assert guild.drive_to(guild.north, "never") is None
    shown = guild.south.ask_for(guild.bob, "GET", f"/guilds/{guild.guild}")
    assert (shown["name"], shown.get("origin")) == ("renamed", None)
    assert guild.texts(guild.south, guild.bob) == ["before", "not delivered"]


def test_nobody_writes_between_the_owners(guild: MovingGuild) -> None:
    assert guild.begin(guild.north, SOUTH) is None

    def cut_at_the_last_step(request: Request, carry_on: Callable[[], Response]) -> Response:
        if b'"owner":"north.test"' in request.body and request.path.endswith("/handover"):
            guild.federation.cut.add(frozenset({NORTH, SOUTH}))
        return carry_on()

    with guild.federation.on_the_way(cut_at_the_last_step):
        assert "connect" in (guild.drive_to(guild.north, "connect") or "")
    assert guild.origin(guild.north, guild.alice) == SOUTH
    assert guild.origin(guild.south, guild.bob) == NORTH
    for server, token in ((guild.north, guild.alice), (guild.south, guild.bob), (guild.east, guild.carol)):
        assert error(guild.try_post(server, token, "now", nonce=server.name)) == (503, "guild_offline")
    assert not guild.north.perform(EndMove(guild_id=guild.guild, done=False)), "it cannot be taken back any more"
    guild.federation.cut.clear()
    assert guild.drive(guild.north) is None
    guild.level(guild.south)
    for server, token in ((guild.north, guild.alice), (guild.south, guild.bob), (guild.east, guild.carol)):
        assert guild.try_post(server, token, "now", nonce=server.name).status == 200
    assert guild.texts(guild.south, guild.bob) == ["before", "now", "now", "now"]


def lose_the_statement(request: Request, carry_on: Callable[[], Response]) -> Response:
    if b'"owner":"north.test"' in request.body and request.path.endswith("/handover"):
        raise PeerUnavailable(SOUTH, "timeout")
    return carry_on()


def test_mirrors_outlive_an_owner_that_does_not_know_yet_that_it_is(guild: MovingGuild) -> None:
    assert guild.begin(guild.north, SOUTH) is None
    with guild.federation.on_the_way(lose_the_statement):
        assert "timeout" in (guild.drive_to(guild.north, "timeout") or "")
        guild.try_post(guild.east, guild.carol, "now")
        for _ in range(4):
            for server in (guild.north, guild.east):
                guild.greet(guild.south, server)
    for server, token in ((guild.north, guild.alice), (guild.east, guild.carol)):
        assert guild.origin(server, token) == SOUTH
    assert guild.drive(guild.north) is None
    guild.level(guild.south)
    for server, token in ((guild.north, guild.alice), (guild.south, guild.bob), (guild.east, guild.carol)):
        assert guild.texts(server, token) == ["before"]


def test_history_is_for_the_server_that_takes_the_guild(guild: MovingGuild) -> None:
    def status(server: str) -> int:
        asker = guild.federation[server]
        return asker.perform(AskPeer(NORTH, "GET", f"/federation/v1/logs/{guild.channel}/history?since=0")).status

    assert [status(SOUTH), status(EAST)] == [404, 404]
    assert guild.begin(guild.north, SOUTH) is None
    assert [status(SOUTH), status(EAST)] == [200, 404]


def test_nobody_leaves_a_guild_between_its_owners(guild: MovingGuild) -> None:
    assert guild.begin(guild.north, SOUTH) is None
    assert guild.drive(guild.north) is not None
    guild.federation.cut.add(frozenset({NORTH, SOUTH}))
    path = f"/guilds/{guild.guild}/members/@me"
    assert error(guild.south.ask("DELETE", path, token=guild.bob)) == (503, "guild_offline")
    assert guild.origin(guild.south, guild.bob) == NORTH


def test_a_move_that_was_taken_back_keeps_nobodys_account(guild: MovingGuild) -> None:
    assert guild.begin(guild.north, SOUTH) is None
    assert guild.drive(guild.north) is not None
    assert guild.north.perform(EndMove(guild.guild, done=False))

    def delete() -> Response:
        return guild.south.ask("POST", "/users/@me/delete", {"current_password": PASSWORD}, guild.bob)

    assert error(delete()) == (503, "guild_offline")
    guild.level(guild.north)
    assert delete().status == 204


@pytest.mark.parametrize("has_mirror", [True, False], ids=["mirror", "no mirror"])
def test_who_left_while_the_guild_moved_is_no_member(guild: MovingGuild, has_mirror: bool) -> None:
    if has_mirror:
        guild.east.ask_for(guild.east.user("dora"), "POST", f"/invites/{guild.code}@{NORTH}/accept")
        guild.level(guild.north)
    guild.federation.cut.add(frozenset({NORTH, EAST}))
    assert guild.east.ask("DELETE", f"/guilds/{guild.guild}/members/@me", token=guild.carol).status == 204
    guild.move(guild.north, SOUTH)
    guild.federation.cut.clear()
    pending_leaves = guild.east.tables._state.pending_leaves
    guild.greet(guild.north, guild.east)
    assert [owner for owner, _, _ in pending_leaves] == ([SOUTH] if has_mirror else []), (
        "the former owner is told no more"
    )
    for _ in range(3):
        guild.level(guild.south)
        guild.greet(guild.south, guild.east)
    names = {line["username"] for line in guild.south.ask_for(guild.bob, "GET", f"/guilds/{guild.guild}/members")}
    assert names == {"alice", "bob"} | ({"dora"} if has_mirror else set())
    assert not pending_leaves


def test_nobody_takes_the_guild_along_between_its_owners(guild: MovingGuild) -> None:
    bob = guild.user_id(guild.south, guild.bob)
    guild.north.ask_for(guild.alice, "PUT", f"/guilds/{guild.guild}/members/{bob}", {"role": "owner"})
    guild.level(guild.north)
    assert guild.begin(guild.north, SOUTH) is None
    path = f"/guilds/{guild.guild}/members/@me"
    with guild.federation.on_the_way(lose_the_statement):
        assert "timeout" in (guild.drive_to(guild.north, "timeout") or "")
        assert error(guild.north.ask("DELETE", path, token=guild.alice)) == (503, "guild_offline")
    assert guild.drive(guild.north) is None
    assert guild.north.ask("DELETE", path, token=guild.alice).status == 204
    assert guild.texts(guild.south, guild.bob) == ["before"]
