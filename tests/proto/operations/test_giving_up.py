"""A guild that two servers own, each by its own account, until one gives it up (PROTOCOL 16.10.12)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from openguild_proto.effects.federation import AskPeer
from openguild_proto.effects.handovers import FindOwnership, ListHandovers
from openguild_proto.federation.handovers import MOVE, MOVE_MS, SUCCESSION, chain_to, signed_handover
from openguild_proto.mirror_records import Handover
from openguild_proto.operations.giving_up import TWO_OWNERS
from openguild_proto.schemas.between_servers import OwnerProof
from tests.support.homeservers import Homeserver
from tests.support.moving_guild import EAST, NORTH, SOUTH, MovingGuild

CUT = frozenset({NORTH, SOUTH})


@pytest.fixture
def guild() -> MovingGuild:
    """The north was cut off from the south, which went on by a statement that was revoked meanwhile; the link is back.

    The east has heard of the north all the time.
    """
    guild = MovingGuild()
    revoked = guild.statement(SOUTH)
    guild.level(guild.north)
    guild.federation.cut.add(CUT)
    guild.north.ask_for(guild.alice, "DELETE", f"/guilds/{guild.guild}/succession")
    guild.level(guild.north)
    guild.pass_time()
    assert guild.succeed(guild.south, revoked) is None
    guild.post(guild.south, guild.bob, "of the south")
    guild.post(guild.north, guild.alice, "of the north")
    guild.level(guild.north)
    guild.federation.cut.clear()
    return guild


def members(guild: MovingGuild) -> tuple[tuple[Homeserver, str], ...]:
    return (guild.north, guild.alice), (guild.south, guild.bob), (guild.east, guild.carol)


def owners(guild: MovingGuild) -> list[str]:
    return [guild.origin(server, token) or server.name for server, token in members(guild)]


def settle(guild: MovingGuild, owner: Homeserver) -> None:
    """Deliver as often as it takes, a minute apart: a mirror begins anew at most once a minute."""
    for _ in range(3):
        guild.pass_time(61)
        guild.level(owner)


def assert_all_talk(guild: MovingGuild, owner: Homeserver, before: str) -> None:
    for server, token in members(guild):
        guild.post(server, token, f"from {server.name}")
        settle(guild, owner)
    for server, token in members(guild):
        assert guild.texts(server, token)[-4:] == [before, *(f"from {each.name}" for each in guild.servers)]


def terms(guild: MovingGuild) -> set[int]:
    return {server.perform(FindOwnership(guild_id=guild.guild)).term for server in guild.servers}


def tell(guild: MovingGuild, sender: Homeserver, to: str, *handovers: Handover) -> int:
    body = msgspec.json.encode(OwnerProof(list(handovers)))
    return int(sender.perform(AskPeer(to, "POST", f"/federation/v1/guilds/{guild.guild}/owner", body)).status)


def test_neither_steps_back_by_itself_and_both_operators_are_warned(guild: MovingGuild) -> None:
    for _ in range(2):
        settle(guild, guild.south)
        settle(guild, guild.north)
    assert owners(guild) == [NORTH, SOUTH, NORTH]
    for server, rival in ((guild.north, SOUTH), (guild.south, NORTH)):
        warned = {(warning.message, warning.fields) for warning in server.warned}
        assert warned == {(TWO_OWNERS, (("guild_id", guild.guild), ("server", rival)))}


def test_the_successor_gives_it_back(guild: MovingGuild) -> None:
    for _ in range(2):
        assert guild.give_up(guild.south, NORTH) is None
    assert owners(guild) == [NORTH, NORTH, NORTH]
    settle(guild, guild.north)
    assert_all_talk(guild, guild.north, "of the north")
    assert terms(guild) == {3}
    moved = guild.north.ask_for(guild.alice, "GET", f"/guilds/{guild.guild}/log?limit=200")[-1]["event"]["content"]
    assert (moved["former"], moved["owner"], moved.get("lost")) == (SOUTH, NORTH, None)


def test_the_former_owner_leaves_it_to_the_successor(guild: MovingGuild) -> None:
    assert guild.give_up(guild.north, SOUTH) is None
    settle(guild, guild.south)
    assert owners(guild) == [SOUTH, SOUTH, SOUTH]
    assert_all_talk(guild, guild.south, "of the south")
    assert terms(guild) == {2}


def test_mirrors_that_followed_the_successor_come_back(guild: MovingGuild) -> None:
    """The east heard nothing of the north, neither."""
    other = MovingGuild()
    revoked = other.statement(SOUTH)
    other.level(other.north)
    other.federation.cut |= {CUT, frozenset({NORTH, EAST})}
    other.north.ask_for(other.alice, "DELETE", f"/guilds/{other.guild}/succession")
    other.pass_time()
    assert other.succeed(other.south, revoked) is None
    other.post(other.south, other.bob, "of the south")
    other.level(other.south)
    other.federation.cut.clear()
    other.post(other.north, other.alice, "of the north")
    assert owners(other) == [NORTH, SOUTH, SOUTH]
    assert other.give_up(other.south, NORTH) is None
    settle(other, other.north)
    assert_all_talk(other, other.north, "of the north")
    assert terms(other) == {3}


@pytest.mark.parametrize("is_moved", [False, True])
def test_two_successors_of_one_owner(is_moved: bool) -> None:
    """The north, cut off from the south, names the east instead, or moves the guild there; both own it in the second term."""
    guild = MovingGuild()
    first = guild.statement(SOUTH)
    guild.level(guild.north)
    guild.federation.cut |= {CUT, frozenset({EAST, SOUTH})}
    guild.pass_time()
    assert guild.succeed(guild.south, first) is None
    guild.post(guild.south, guild.bob, "of the south")
    if is_moved:
        guild.move(guild.north, EAST)
    else:
        second = guild.statement(EAST)
        guild.level(guild.north)
        guild.federation.cut.add(frozenset({NORTH, EAST}))
        guild.pass_time()
        assert guild.succeed(guild.east, second) is None
    guild.post(guild.east, guild.carol, "of the east")
    guild.federation.cut.clear()
    settle(guild, guild.south)
    settle(guild, guild.east)
    assert owners(guild) == [EAST, SOUTH, EAST]
    assert guild.south.warned
    assert guild.give_up(guild.south, EAST) is None
    settle(guild, guild.east)
    assert_all_talk(guild, guild.east, "of the east")
    assert terms(guild) == {3}


def test_one_that_gave_up_tells_again_at_the_next_delivery(guild: MovingGuild) -> None:
    """The other side had not heard of it: the request was lost."""
    guild.federation.lost.add(f"POST /federation/v1/guilds/{guild.guild}/owner")
    assert guild.give_up(guild.south, NORTH) is None
    assert guild.north.perform(FindOwnership(guild_id=guild.guild)).term == 1
    guild.federation.lost.clear()
    settle(guild, guild.north)
    assert terms(guild) == {3}
    assert_all_talk(guild, guild.north, "of the north")


def test_a_mirror_takes_an_earlier_term_of_an_owner_that_knows_no_better(guild: MovingGuild) -> None:
    """Its database was restored, and the mirror has no statement that tells of the terms since."""
    state = guild.east.tables._state
    state.ownerships[guild.guild] = (3, state.ownerships[guild.guild][1])
    guild.north.tables._state.epochs[guild.guild] = 9
    guild.post(guild.north, guild.alice, "restored")
    settle(guild, guild.north)
    assert guild.east.perform(FindOwnership(guild_id=guild.guild)).term == 1
    assert guild.texts(guild.east, guild.carol)[-1] == "restored"


def test_a_guild_that_came_back_moves_on(guild: MovingGuild) -> None:
    """With its history, although two servers owned it in one term."""
    assert guild.give_up(guild.south, NORTH) is None
    settle(guild, guild.north)
    guild.move(guild.north, EAST)
    settle(guild, guild.east)
    assert owners(guild) == [EAST, EAST, EAST]
    assert guild.texts(guild.east, guild.carol) == ["before", "of the north"]
    statement = guild.statement(SOUTH)
    assert statement.term == 5


def test_the_revoked_statement_is_of_no_use_afterwards(guild: MovingGuild) -> None:
    (revoked,) = guild.south.perform(ListHandovers(guild_id=guild.guild))
    assert guild.give_up(guild.south, NORTH) is None
    settle(guild, guild.north)
    guild.federation.cut.add(CUT)
    guild.pass_time()
    assert guild.origin(guild.south, guild.bob) == NORTH
    assert tell(guild, guild.south, EAST, revoked) == 404
    assert owners(guild) == [NORTH, NORTH, NORTH]


@pytest.mark.parametrize(
    ("name", "to", "reason"),
    [
        (EAST, SOUTH, "does not own the guild"),
        (NORTH, NORTH, "no other server"),
        (NORTH, EAST, "does not confirm that it owns"),
        (NORTH, "nowhere.test", "does not confirm that it owns"),
    ],
)
def test_it_is_given_to_another_owner_only(guild: MovingGuild, name: str, to: str, reason: str) -> None:
    assert reason in (guild.give_up(guild.federation[name], to) or "")
    assert owners(guild) == [NORTH, SOUTH, NORTH]


def signed(guild: MovingGuild, signer: Homeserver, owner: str, to: str, term: int, **more: Any) -> Handover:
    now_ms = guild.north.wall_ms
    return signed_handover(
        Handover(MOVE, guild.guild, owner, to, term, now_ms, more.pop("until", now_ms + MOVE_MS), **more),
        (signer.signer,),
    )


def test_what_others_say_of_a_guild_changes_nothing(guild: MovingGuild) -> None:
    """The east never owned it, and has no statement that it does."""
    (s,) = guild.south.perform(ListHandovers(guild_id=guild.guild))
    for told in (
        (signed(guild, guild.east, EAST, NORTH, 2),),
        (signed(guild, guild.east, EAST, NORTH, 2**53 - 1),),
        (s, signed(guild, guild.east, SOUTH, NORTH, 3)),
        (msgspec.structs.replace(s, to=EAST), signed(guild, guild.east, EAST, NORTH, 3)),
        (s, signed(guild, guild.south, SOUTH, NORTH, 4)),
        (s, signed(guild, guild.south, SOUTH, NORTH, 3, until=1)),
        (s, msgspec.structs.replace(signed(guild, guild.south, SOUTH, NORTH, 3), kind=SUCCESSION)),
        (s, signed_handover(msgspec.structs.replace(s, owner=SOUTH, to=NORTH, term=3), (guild.south.signer,))),
    ):
        assert tell(guild, guild.east, NORTH, *told) == 404
    assert guild.north.perform(FindOwnership(guild_id=guild.guild)).term == 1
    assert guild.north.perform(ListHandovers(guild_id=guild.guild)) == ()


def test_a_claim_that_nobody_has_signed_warns_nobody(guild: MovingGuild) -> None:
    """The east has a guild of the same id, and statements of its own for it."""
    guild.east.tables._state.handovers[guild.guild] = {2: signed(guild, guild.east, NORTH, EAST, 2)}
    guild.east.tables._state.guilds[guild.guild] = msgspec.structs.replace(
        guild.east.tables._state.guilds[guild.guild], origin=None
    )
    guild.east.tables._state.peer_guilds[NORTH, guild.guild] = guild.north.tables._state.peer_guilds[EAST, guild.guild]
    guild.east.deliver(NORTH)
    assert guild.north.warned == []


def test_chains_of_statements() -> None:
    def at(term: int, owner: str, to: str) -> Handover:
        return Handover(MOVE, "g", owner, to, term, 0, 1)

    first, second, third = at(2, "a", "b"), at(3, "b", "c"), at(4, "c", "a")
    told = [third, first, second]
    assert chain_to("a", told, {1: "a"}) == (first, second, third)
    assert chain_to("a", told, {1: "a", 3: "c"}) == (third,), "from the newest owner that is known"
    assert chain_to("c", told, {1: "a"}) == (first, second)
    assert chain_to("a", [first, third], {1: "a"}) == (), "one is missing"
    assert chain_to("a", told, {1: "b"}) == chain_to("d", told, {1: "a"}) == chain_to("a", [], {1: "a"}) == ()
