"""Bans of a guild with members of other servers, also where it moves, through the cores of these servers (PROTOCOL 16.5.15)."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from msgspec.structs import replace

from openguild_proto.errors import ErrorCode
from openguild_proto.http.message import Response
from openguild_proto.mirror_records import GuildBan, Snapshot
from openguild_proto.operations.owner_claims import snapshot_problem
from openguild_proto.operations.owners import CODES
from openguild_proto.settings.sections import MAX_GUILD_BANS
from tests.support.deeds import new_id
from tests.support.homeservers import Homeserver
from tests.support.moving_guild import EAST, NORTH, SOUTH, MovingGuild, error


@pytest.fixture
def guild() -> MovingGuild:
    return MovingGuild()


def ban(guild: MovingGuild, server: Homeserver, token: str, user_id: str, reason: str = "spam") -> Response:
    return server.ask("PUT", f"/guilds/{guild.guild}/bans/{user_id}?reason={reason}", token=token)


def unban(guild: MovingGuild, server: Homeserver, token: str, user_id: str) -> Response:
    return server.ask("DELETE", f"/guilds/{guild.guild}/bans/{user_id}", token=token)


def bans(guild: MovingGuild, server: Homeserver, token: str) -> list[Any]:
    return list(server.ask_for(token, "GET", f"/guilds/{guild.guild}/bans"))


def promote(guild: MovingGuild, server: Homeserver, token: str, role: str = "moderator") -> None:
    path = f"/guilds/{guild.guild}/members/{guild.user_id(server, token)}"
    guild.north.ask_for(guild.alice, "PUT", path, {"role": role})
    guild.level(guild.north)


def rejoin(guild: MovingGuild, server: Homeserver, token: str, at: str = NORTH) -> Response:
    return server.ask("POST", f"/invites/{guild.code}@{at}/accept", token=token)


def test_the_home_tells_its_banned_user_so(guild: MovingGuild) -> None:
    bob = guild.user_id(guild.south, guild.bob)
    assert ban(guild, guild.north, guild.alice, bob).status == 200
    guild.level(guild.north)
    assert guild.south.ask("GET", f"/guilds/{guild.guild}", token=guild.bob).status == 404
    refused = rejoin(guild, guild.south, guild.bob)
    assert error(refused) == (403, "banned")
    assert CODES["banned"] is ErrorCode.BANNED
    assert not guild.south.tables._state.pending_leaves, "the refused join is not told as one that may be undone"
    assert unban(guild, guild.north, guild.alice, bob).status == 204
    assert rejoin(guild, guild.south, guild.bob).status == 200


@pytest.mark.parametrize("alone", [True, False])
def test_a_banned_member_whom_a_restored_home_has_brought_back_goes_when_they_ask(
    guild: MovingGuild, alone: bool
) -> None:
    """Its owner delivers nothing to a mirror that it has ended, so nobody else would tell."""
    if not alone:
        carol = guild.south.user("carol")
        assert rejoin(guild, guild.south, carol).status == 200
    guild.level(guild.north)
    backup = pickle.dumps(guild.south.tables._state)
    assert ban(guild, guild.north, guild.alice, guild.user_id(guild.south, guild.bob)).status == 200
    guild.level(guild.north)
    guild.south.tables._state = pickle.loads(backup)
    assert guild.south.ask("GET", f"/guilds/{guild.guild}", token=guild.bob).status == 200
    assert error(rejoin(guild, guild.south, guild.bob)) == (403, "banned")
    assert guild.south.ask("GET", f"/guilds/{guild.guild}", token=guild.bob).status == 404
    assert (guild.guild in guild.south.tables._state.guilds) is not alone
    assert not guild.south.tables._state.pending_leaves, "the owner was told"


def test_a_moderator_of_another_server_bans_through_the_owner(guild: MovingGuild) -> None:
    promote(guild, guild.south, guild.bob)
    bob, carol = guild.user_id(guild.south, guild.bob), guild.user_id(guild.east, guild.carol)
    made = guild.south.ask_for(guild.bob, "PUT", f"/guilds/{guild.guild}/bans/{carol}?reason=spam")
    assert (made["user_id"], made["username"], made["banned_by"], made["reason"]) == (carol, "carol", bob, "spam")
    guild.level(guild.north)
    assert bans(guild, guild.south, guild.bob) == bans(guild, guild.north, guild.alice) == [made]
    assert error(rejoin(guild, guild.east, guild.carol)) == (403, "banned")
    assert error(ban(guild, guild.south, guild.bob, guild.user_id(guild.north, guild.alice))) == (403, "forbidden")
    assert unban(guild, guild.south, guild.bob, carol).status == 204
    guild.level(guild.north)
    assert bans(guild, guild.south, guild.bob) == []
    assert rejoin(guild, guild.east, guild.carol).status == 200


def test_a_mirror_that_begins_later_has_the_bans(guild: MovingGuild) -> None:
    stranger = new_id()
    assert ban(guild, guild.north, guild.alice, stranger).status == 200
    dora = guild.east.user("dora")
    guild.east.ask_for(guild.carol, "DELETE", f"/guilds/{guild.guild}/members/@me")
    guild.level(guild.north)
    guild.east.ask_for(dora, "POST", f"/invites/{guild.code}@{NORTH}/accept")
    promote(guild, guild.east, dora)
    (shown,) = bans(guild, guild.east, dora)
    assert (shown["user_id"], shown["reason"], "username" in shown) == (stranger, "spam", False)


def test_bans_hold_at_the_new_owner_of_a_moved_guild(guild: MovingGuild) -> None:
    promote(guild, guild.south, guild.bob, "admin")
    carol, stranger = guild.user_id(guild.east, guild.carol), new_id()
    for user in (carol, stranger):
        ban(guild, guild.north, guild.alice, user)
    before = bans(guild, guild.north, guild.alice)
    guild.move(guild.north, SOUTH)
    guild.level(guild.south)
    assert bans(guild, guild.south, guild.bob) == before
    assert error(rejoin(guild, guild.east, guild.carol)) == (403, "banned")
    assert error(rejoin(guild, guild.east, guild.carol, at=SOUTH)) == (403, "banned")
    assert unban(guild, guild.north, guild.alice, carol).status == 204, "by way of the new owner"
    guild.level(guild.south)
    assert [line["user_id"] for line in bans(guild, guild.north, guild.alice)] == [stranger]
    assert rejoin(guild, guild.east, guild.carol).status == 200


def test_bans_that_ended_while_the_guild_was_away_do_not_come_back_with_it(guild: MovingGuild) -> None:
    promote(guild, guild.south, guild.bob, "owner")
    carol, stranger = guild.user_id(guild.east, guild.carol), new_id()
    ban(guild, guild.north, guild.alice, carol)
    guild.move(guild.north, SOUTH)
    guild.level(guild.south)
    assert unban(guild, guild.south, guild.bob, carol).status == 204
    assert ban(guild, guild.south, guild.bob, stranger).status == 200
    guild.move(guild.south, NORTH)
    guild.level(guild.north)
    assert [line["user_id"] for line in bans(guild, guild.north, guild.alice)] == [stranger]
    assert rejoin(guild, guild.east, guild.carol).status == 200


def test_bans_hold_at_the_successor_of_a_lost_owner(guild: MovingGuild) -> None:
    promote(guild, guild.south, guild.bob, "admin")
    carol = guild.user_id(guild.east, guild.carol)
    statement = guild.statement(SOUTH)
    ban(guild, guild.north, guild.alice, carol)
    guild.level(guild.north)
    guild.federation.cut |= {frozenset({NORTH, SOUTH}), frozenset({NORTH, EAST})}
    guild.pass_time()
    assert guild.succeed(guild.south, statement) is None
    assert [line["user_id"] for line in bans(guild, guild.south, guild.bob)] == [carol]
    code = guild.south.ask_for(guild.bob, "POST", f"/guilds/{guild.guild}/invites")["code"]
    refused = guild.east.ask("POST", f"/invites/{code}@{SOUTH}/accept", token=guild.carol)
    assert error(refused) == (403, "banned")


def test_the_last_member_of_a_server_who_is_banned_ends_its_mirror(guild: MovingGuild) -> None:
    bob = guild.user_id(guild.south, guild.bob)
    ban(guild, guild.north, guild.alice, bob)
    guild.level(guild.north)
    assert guild.guild not in guild.south.tables._state.guilds
    assert guild.guild not in guild.south.tables._state.bans
    row = guild.north.tables._state.peer_guilds[SOUTH, guild.guild]
    assert row.last_sequence is not None
    events = guild.north.tables._state.logs[guild.guild]
    assert b'"member.removed"' in events[row.last_sequence - 1].wire


SOME_ID = "11111111-1111-4111-8111-111111111111"
BAN = GuildBan(SOME_ID, SOME_ID, 0)
CLAIMS: dict[str, tuple[list[GuildBan], bool]] = {
    "a ban": ([replace(BAN, username="eve", reason="spam")], True),
    "one by nobody": ([replace(BAN, banned_by="eve")], False),
    "one of nobody": ([replace(BAN, user_id="eve")], False),
    "one at no time": ([replace(BAN, banned_at_ms=-1)], False),
    "one with a name without a bound": ([replace(BAN, username="x" * 65)], False),
    "one with a reason without a bound": ([replace(BAN, reason="x" * 513)], False),
    "one with a reason with NUL": ([replace(BAN, reason="a\0b")], False),
    "as many as there may be": ([BAN] * MAX_GUILD_BANS, True),
    "more than there may be": ([BAN] * (MAX_GUILD_BANS + 1), False),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_a_snapshot_with_bans_that_no_honest_owner_has_is_refused(case: str) -> None:
    bans, is_kept = CLAIMS[case]
    snapshot = Snapshot(SOME_ID, "guild", 0, 1, 1, [], [], bans=bans)
    assert (snapshot_problem(snapshot) is None) is is_kept
