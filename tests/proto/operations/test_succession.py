"""A guild whose owner server is lost goes on at the server that was named (PROTOCOL 16.10)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from openguild_proto.effects.federation import AskPeer, RuleServer, Standing
from openguild_proto.effects.handovers import ListHandovers, SilentOwner
from openguild_proto.federation.handovers import SUCCESSION, SUCCESSION_MS, signed_handover
from openguild_proto.http.message import Request, Response
from openguild_proto.mirror_records import Handover
from openguild_proto.operations.owner_changes import lost_owners, tell_of_owner
from openguild_proto.schemas.between_servers import OwnerProof
from tests.support.homeservers import Homeserver
from tests.support.moving_guild import EAST, LOST_SECS, NORTH, SOUTH, MovingGuild, error

LINKS_OF_NORTH = {frozenset({NORTH, SOUTH}), frozenset({NORTH, EAST})}


@pytest.fixture
def guild() -> MovingGuild:
    return MovingGuild()


@pytest.fixture
def lost(guild: MovingGuild) -> tuple[MovingGuild, Handover]:
    """The north is away for long enough, and the south is its successor."""
    statement = guild.statement(SOUTH)
    guild.level(guild.north)
    guild.federation.cut |= LINKS_OF_NORTH
    guild.pass_time()
    return guild, statement


def path(guild: MovingGuild) -> str:
    return f"/guilds/{guild.guild}/succession"


def test_an_owner_reads_what_they_named(guild: MovingGuild) -> None:
    assert error(guild.north.ask("GET", path(guild), token=guild.alice)) == (404, "not_found")
    statement = guild.statement(SOUTH)
    shown = guild.north.ask_for(guild.alice, "GET", path(guild))
    assert (shown["server"], msgspec.convert(shown["statement"], Handover)) == (SOUTH, statement)
    event = guild.north.ask_for(guild.alice, "GET", f"/guilds/{guild.guild}/log?limit=200")[-1]["event"]
    assert (event["event_type"], event["content"]["server"]) == ("guild.successor_set", SOUTH)
    assert event["sender"] == guild.user_id(guild.north, guild.alice)
    assert "signatures" not in event["content"]


def test_nobody_else_reads_or_names(guild: MovingGuild) -> None:
    guild.statement(SOUTH)
    guild.level(guild.north)
    bob = guild.user_id(guild.south, guild.bob)
    guild.north.ask_for(guild.alice, "PUT", f"/guilds/{guild.guild}/members/{bob}", {"role": "admin"})
    guild.level(guild.north)
    for method, body in (("GET", None), ("PUT", {"server": EAST}), ("DELETE", None)):
        assert error(guild.south.ask(method, path(guild), body, guild.bob)) == (403, "forbidden")


def test_an_owner_of_another_server_keeps_it_too(guild: MovingGuild) -> None:
    bob = guild.user_id(guild.south, guild.bob)
    guild.north.ask_for(guild.alice, "PUT", f"/guilds/{guild.guild}/members/{bob}", {"role": "owner"})
    guild.level(guild.north)
    statement = guild.statement(SOUTH, guild.bob, guild.south)
    shown = guild.south.ask_for(guild.bob, "GET", path(guild))
    assert msgspec.convert(shown["statement"], Handover) == statement


def test_only_a_server_with_members_is_named(guild: MovingGuild) -> None:
    for server in ("nowhere.test", NORTH):
        answer = guild.north.ask("PUT", path(guild), {"server": server}, guild.alice)
        assert error(answer) == (404, "not_found")


def test_the_successor_goes_on_with_what_it_has(lost: tuple[MovingGuild, Handover]) -> None:
    guild, statement = lost
    assert guild.succeed(guild.south, statement) is None
    assert guild.origin(guild.south, guild.bob) is None
    guild.post(guild.south, guild.bob, "we go on")
    assert guild.texts(guild.south, guild.bob) == ["we go on"], "what was before the mirror is lost"
    log = guild.south.ask_for(guild.bob, "GET", f"/guilds/{guild.guild}/log?limit=200")
    moved = log[-1]["event"]["content"]
    assert (moved["former"], moved["owner"], moved["lost"]) == (NORTH, SOUTH, True)
    events = guild.south.ask_for(guild.bob, "GET", f"/channels/{guild.channel}/events?since=0")
    assert [line["sequence"] for line in events] == [2]


def test_other_mirrors_follow_the_successor(lost: tuple[MovingGuild, Handover]) -> None:
    guild, statement = lost
    assert guild.succeed(guild.south, statement) is None
    guild.post(guild.south, guild.bob, "one")
    guild.level(guild.south)
    assert guild.origin(guild.east, guild.carol) == SOUTH
    guild.post(guild.east, guild.carol, "two")
    assert guild.texts(guild.east, guild.carol) == guild.texts(guild.south, guild.bob) == ["one", "two"]


def test_the_lost_owner_follows_when_it_is_back(lost: tuple[MovingGuild, Handover]) -> None:
    guild, statement = lost
    assert guild.succeed(guild.south, statement) is None
    guild.post(guild.south, guild.bob, "one")
    guild.federation.cut.clear()
    guild.post(guild.north, guild.alice, "I am the owner")
    guild.north.deliver(EAST)
    guild.north.deliver(SOUTH)
    assert guild.origin(guild.north, guild.alice) == SOUTH
    guild.level(guild.south)
    guild.post(guild.north, guild.alice, "I follow")
    guild.level(guild.south)
    for server, token in ((guild.south, guild.bob), (guild.east, guild.carol), (guild.north, guild.alice)):
        assert guild.texts(server, token)[-2:] == ["one", "I follow"]


def test_no_operator_is_warned_where_another_mirror_tells_the_former_owner_first(
    lost: tuple[MovingGuild, Handover],
) -> None:
    guild, statement = lost
    assert guild.succeed(guild.south, statement) is None
    guild.level(guild.south)
    guild.federation.cut.clear()
    told: list[bool | None] = []

    def overtaken(request: Request, carry_on: Callable[[], Response]) -> Response:
        """The north delivers to both at once."""
        if request.path == "/federation/v1/deliveries" and not told:
            told.append(None)
            told.append(guild.east.finish(tell_of_owner(guild.guild, NORTH)))
        return carry_on()

    guild.post(guild.north, guild.alice, "I am the owner")
    with guild.federation.on_the_way(overtaken):
        guild.north.deliver(SOUTH)
    assert told == [None, True]
    assert guild.south.finish(tell_of_owner(guild.guild, NORTH)) is True, "it follows already"
    assert guild.origin(guild.north, guild.alice) == SOUTH
    assert guild.south.warned == []


def test_a_mirror_that_hears_the_owner_asks_it(guild: MovingGuild) -> None:
    statement = guild.statement(SOUTH)
    guild.level(guild.north)
    guild.federation.cut |= {frozenset({NORTH, SOUTH})}
    guild.pass_time()
    guild.post(guild.north, guild.alice, "still here")
    guild.north.deliver(EAST)
    assert guild.succeed(guild.south, statement) is None, "it cannot know"
    guild.south.deliver(EAST)
    assert guild.origin(guild.east, guild.carol) == NORTH
    guild.federation.cut.clear()
    guild.north.deliver(SOUTH)
    assert guild.origin(guild.north, guild.alice) == SOUTH
    guild.south.deliver(EAST)
    assert guild.origin(guild.east, guild.carol) == SOUTH


# --- what does not count ---------------------------------------------------------------------------


def forged(guild: MovingGuild, signer: Homeserver, **changed: Any) -> Handover:
    now_ms = guild.north.wall_ms
    members = {
        "kind": SUCCESSION, "guild_id": guild.guild, "owner": NORTH, "to": SOUTH, "term": 2, "issued_at_ms": now_ms,
        "expires_at_ms": now_ms + SUCCESSION_MS, "serial": now_ms * 2,
    }  # fmt: skip
    return signed_handover(Handover(**{**members, **changed}), (signer.signer,))


def test_an_owner_that_is_heard_of_is_not_lost(guild: MovingGuild) -> None:
    statement = guild.statement(SOUTH)
    guild.level(guild.north)
    assert f"lost after {LOST_SECS} s" in (guild.succeed(guild.south, statement) or "")
    guild.pass_time(LOST_SECS - 120)
    assert guild.succeed(guild.south, statement) is not None


@pytest.mark.parametrize(
    ("signer", "changed", "reason"),
    [
        (SOUTH, {}, "not signed with a known key"),
        (EAST, {}, "not signed with a known key"),
        (NORTH, {"owner": EAST}, "not from the owner"),
        (SOUTH, {"owner": SOUTH}, "not from the owner"),
        (NORTH, {"to": EAST}, "does not name this server"),
        (NORTH, {"kind": "move"}, "does not name this server"),
        (NORTH, {"kind": "gift"}, "does not name this server"),
        (NORTH, {"term": 1}, "another term"),
        (NORTH, {"term": 3}, "another term"),
        (NORTH, {"expires_at_ms": 1}, "expired"),
        (NORTH, {"serial": 0}, "revoked"),
        (NORTH, {"issued_at_ms": 2**50}, "not signed with a known key"),
        (NORTH, {"term": 2**60}, "another term"),
        (NORTH, {"guild_id": "00000000-0000-4000-8000-000000000000"}, "does not mirror"),
    ],
)
def test_statements_that_do_not_count(
    lost: tuple[MovingGuild, Handover], signer: str, changed: dict[str, Any], reason: str
) -> None:
    guild, _ = lost
    if changed.get("term") == 2**60:
        statement = msgspec.structs.replace(forged(guild, guild.north), term=2**60)
    else:
        statement = forged(guild, guild.federation[signer], **changed)
    assert reason in (guild.succeed(guild.south, statement) or "")
    assert guild.origin(guild.south, guild.bob) == NORTH


def test_a_changed_statement_does_not_count(lost: tuple[MovingGuild, Handover]) -> None:
    guild, statement = lost
    longer = msgspec.structs.replace(statement, expires_at_ms=statement.expires_at_ms + 1)
    assert "not signed with a known key" in (guild.succeed(guild.south, longer) or "")


def test_a_statement_counts_for_a_year(lost: tuple[MovingGuild, Handover]) -> None:
    guild, statement = lost
    guild.pass_time(SUCCESSION_MS / 1_000)
    assert "expired" in (guild.succeed(guild.south, statement) or "")


def test_a_revoked_statement_does_not_count(guild: MovingGuild) -> None:
    revoked = guild.statement(SOUTH)
    guild.north.ask_for(guild.alice, "DELETE", path(guild))
    assert error(guild.north.ask("GET", path(guild), token=guild.alice)) == (404, "not_found")
    guild.level(guild.north)
    guild.federation.cut |= LINKS_OF_NORTH
    guild.pass_time()
    assert "revoked" in (guild.succeed(guild.south, revoked) or "")


def test_a_mirror_that_began_later_knows_what_was_revoked(guild: MovingGuild) -> None:
    revoked = guild.statement(SOUTH)
    guild.statement(EAST)
    guild.level(guild.north)
    guild.south.ask_for(guild.bob, "DELETE", f"/guilds/{guild.guild}/members/@me")
    guild.level(guild.north)
    guild.south.ask_for(guild.bob, "POST", f"/invites/{guild.code}@{NORTH}/accept")
    guild.federation.cut |= LINKS_OF_NORTH
    guild.pass_time()
    assert "revoked" in (guild.succeed(guild.south, revoked) or "")


def test_a_statement_from_before_a_move_does_not_count(guild: MovingGuild) -> None:
    old = guild.statement(EAST)
    guild.level(guild.north)
    guild.move(guild.north, SOUTH)
    guild.level(guild.south)
    guild.pass_time()
    assert "not from the owner" in (guild.succeed(guild.east, old) or "")
    guild.move(guild.south, NORTH)
    guild.level(guild.north)
    guild.federation.cut |= LINKS_OF_NORTH
    guild.pass_time()
    assert "another term" in (guild.succeed(guild.east, old) or "")


def test_a_statement_is_of_no_use_to_others(lost: tuple[MovingGuild, Handover]) -> None:
    guild, statement = lost
    assert "does not name this server" in (guild.succeed(guild.east, statement) or "")


def test_a_mirror_believes_no_self_made_owner(lost: tuple[MovingGuild, Handover]) -> None:
    """The east says to the south that it owns the guild, with statements of all kinds."""
    guild, statement = lost
    for handover in (
        forged(guild, guild.east, to=EAST),
        forged(guild, guild.east, to=EAST, owner=EAST),
        forged(guild, guild.east, to=EAST, kind="move"),
        msgspec.structs.replace(statement, to=EAST),
    ):
        body = msgspec.json.encode(OwnerProof([handover]))
        asked = AskPeer(SOUTH, "POST", f"/federation/v1/guilds/{guild.guild}/owner", body)
        assert guild.east.perform(asked).status == 404
    assert guild.origin(guild.south, guild.bob) == NORTH
    assert guild.south.perform(ListHandovers(guild_id=guild.guild)) == ()


# --- what the operator of a mirror sees ------------------------------------------------------------


def test_an_owner_is_shown_as_lost_until_its_guild_goes_on(lost: tuple[MovingGuild, Handover]) -> None:
    guild, statement = lost
    assert lost_at(guild.east) == lost_at(guild.south) == (SilentOwner(NORTH, 1),)
    assert lost_at(guild.north) == ()
    assert guild.succeed(guild.south, statement) is None
    assert lost_at(guild.south) == ()


def test_a_denied_owner_is_not_shown_as_lost(lost: tuple[MovingGuild, Handover]) -> None:
    guild, _ = lost
    guild.south.perform(RuleServer(NORTH, None, Standing.DENY, "does not come back", guild.south.wall_ms))
    guild.pass_time(2)
    assert lost_at(guild.south) == ()


def lost_at(server: Homeserver) -> tuple[SilentOwner, ...]:
    found = server.finish(lost_owners(server.context()))
    assert isinstance(found, tuple)
    return found
