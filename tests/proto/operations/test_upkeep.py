"""What a mirror settles with the owner of its guilds: who left while it was away, joins that failed, mirrors that are to go."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import msgspec
import pytest

from openguild_proto.effects import Effect
from openguild_proto.effects.federation import AskPeer, PeerUnavailable
from openguild_proto.effects.logs import ReadLogs
from openguild_proto.effects.mirrors import FindMirrorHead
from openguild_proto.federation.upkeep import MAX_KNOWN, UPKEEP_SECS, Upkeep
from openguild_proto.http.message import Request, Response
from openguild_proto.records import LogPart
from openguild_proto.schemas.between_servers import Delivery
from openguild_proto.schemas.events import parse_event
from openguild_proto.settings.sections import HttpLimits
from tests.proto.operations.test_federated_guilds import NORTH, SOUTH, Shared, error, shared, user_id

__all__ = ["shared"]

BOTH = frozenset({NORTH, SOUTH})


def greet(shared: Shared) -> None:
    """A minute later the north has something to say."""
    for server in (shared.north, shared.south):
        server.wall_ms += int(UPKEEP_SECS * 1_000) + 1
    answer = shared.north.perform(AskPeer(SOUTH, "POST", "/federation/v1/deliveries", msgspec.json.encode(Delivery())))
    assert answer.status == 200, answer.body


def members(shared: Shared) -> set[str]:
    """Of the guild, at its owner."""
    return {line["username"] for line in shared.north.ask_for(shared.alice, "GET", f"/guilds/{shared.guild}/members")}


def leave(shared: Shared, token: str) -> Response:
    answer = shared.south.ask("DELETE", f"/guilds/{shared.guild}/members/@me", token=token)
    assert isinstance(answer, Response)
    return answer


def has_mirror(shared: Shared) -> bool:
    return shared.south.perform(FindMirrorHead(NORTH, shared.guild)) is not None


def test_a_user_leaves_at_once_while_the_owner_is_away(shared: Shared) -> None:
    carol = shared.south.user("carol")
    shared.south.ask_for(carol, "POST", f"/invites/{shared.code}@{NORTH}/accept")
    shared.federation.cut.add(BOTH)
    assert leave(shared, shared.bob).status == 204
    assert shared.south.ask_for(shared.bob, "GET", "/guilds") == []
    bob = user_id(shared.south, shared.bob)
    news = shared.south.perform(ReadLogs(parts=(LogPart(bob, 0, 10),)))
    assert [parse_event(event.wire).event_type for event in news][-2:] == ["guild.joined", "guild.left"]
    assert error(leave(shared, shared.bob)) == (404, "not_found")
    assert len(shared.south.ask_for(carol, "GET", "/guilds")) == 1
    shared.federation.cut.clear()
    greet(shared)
    assert members(shared) == {"alice", "carol"}
    shared.level()
    assert not shared.south.tables._state.pending_leaves


def test_a_user_who_leaves_does_not_wait_until_their_request_must_end(shared: Shared) -> None:
    asked: list[AskPeer] = []

    def look(place: int, effect: Effect[Any]) -> None:
        del place
        if isinstance(effect, AskPeer):
            asked.append(effect)

    shared.south.ask("DELETE", f"/guilds/{shared.guild}/members/@me", token=shared.bob, before=look)
    (leaving,) = asked
    assert leaving.timeout_secs <= HttpLimits().request_timeout_secs / 2, "then they leave here"
    assert AskPeer(NORTH, "GET", "/").timeout_secs < HttpLimits().request_timeout_secs, (
        "else nobody tells which server it was"
    )


def test_the_last_one_takes_the_mirror_along_while_the_owner_is_away(shared: Shared) -> None:
    shared.federation.cut.add(BOTH)
    assert leave(shared, shared.bob).status == 204
    assert not has_mirror(shared)
    shared.federation.cut.clear()
    greet(shared)
    assert members(shared) == {"alice"}
    shared.south.ask_for(shared.bob, "POST", f"/invites/{shared.code}@{NORTH}/accept")
    greet(shared)
    assert members(shared) == {"alice", "bob"}


def test_the_only_owner_of_a_guild_does_not_leave_it(shared: Shared) -> None:
    bob = user_id(shared.south, shared.bob)
    shared.north.ask_for(shared.alice, "PUT", f"/guilds/{shared.guild}/members/{bob}", {"role": "owner"})
    shared.level()
    shared.north.ask_for(shared.alice, "DELETE", f"/guilds/{shared.guild}/members/@me")
    shared.level()
    for cut in (False, True):
        shared.federation.cut = {BOTH} if cut else set()
        assert error(leave(shared, shared.bob)) == (409, "last_owner")


def lose_answers(shared: Shared, what: str) -> AbstractContextManager[None]:
    """Lose the answers to requests with `what` in their path, which are carried out."""

    def losing(request: Request, carry_on: Callable[[], Response]) -> Response:
        answer = carry_on()
        return Response(status=502) if what in request.path else answer

    return shared.federation.on_the_way(losing)


@pytest.mark.parametrize("again", [False, True], ids=["gives up", "tries again"])
def test_a_join_whose_answer_is_lost_is_undone(shared: Shared, again: bool) -> None:
    carol = shared.south.user("carol")
    with lose_answers(shared, "/join"):
        answer = shared.south.ask("POST", f"/invites/{shared.code}@{NORTH}/accept", token=carol)
        assert error(answer) == (503, "guild_offline")
    assert members(shared) == {"alice", "bob", "carol"}
    if again:
        shared.south.ask_for(carol, "POST", f"/invites/{shared.code}@{NORTH}/accept")
    greet(shared)
    assert members(shared) == {"alice", "bob"} | ({"carol"} if again else set())
    assert len(shared.south.ask_for(carol, "GET", "/guilds")) == again


def hold_join(shared: Shared) -> tuple[str, Request]:
    """Carol asks to join, and gives up. Return her token, and the request, which is under way for a while."""
    held = []

    def holding(request: Request, carry_on: Callable[[], Response]) -> Response:
        if not request.path.endswith("/join"):
            return carry_on()
        held.append(request)
        raise PeerUnavailable(NORTH, "timeout", sent=True)

    with shared.federation.on_the_way(holding):
        carol = shared.south.user("carol")
        answer = shared.south.ask("POST", f"/invites/{shared.code}@{NORTH}/accept", token=carol)
        assert error(answer) == (503, "guild_offline")
    greet(shared)
    assert not shared.south.tables._state.pending_leaves, "the owner has heard that she has left"
    (request,) = held
    return carol, request


def hear_of_the_join(shared: Shared, how: str) -> None:
    if how == "without a mirror":
        shared.north.ask_for(shared.alice, "POST", f"/channels/{shared.channel}/messages", {"content": "anybody?"})
    elif how == "by a snapshot":
        shared.north.tables._state.epochs[shared.guild] = 7
    shared.level()


@pytest.mark.parametrize("how", ["by its event", "by a snapshot", "without a mirror"])
def test_a_join_that_arrives_when_it_was_given_up_is_undone(shared: Shared, how: str) -> None:
    if how == "without a mirror":
        leave(shared, shared.bob)
        shared.level()
    others = members(shared)
    _, request = hold_join(shared)
    assert shared.north.run(request).status == 200
    assert members(shared) == others | {"carol"}
    hear_of_the_join(shared, how)
    greet(shared)
    greet(shared)
    assert members(shared) == others
    shared.level()
    assert not shared.south.tables._state.pending_leaves
    assert has_mirror(shared) == (how != "without a mirror")


def test_a_join_that_is_asked_again_outlives_the_one_that_was_given_up(shared: Shared) -> None:
    carol, request = hold_join(shared)
    assert shared.north.run(request).status == 200
    shared.level()
    shared.south.ask_for(carol, "POST", f"/invites/{shared.code}@{NORTH}/accept")
    assert not shared.south.tables._state.pending_leaves
    greet(shared)
    assert members(shared) == {"alice", "bob", "carol"}


def test_a_refused_join_does_not_forget_the_one_before(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    carol = shared.south.user("carol")
    with lose_answers(shared, "/join"):
        shared.south.ask("POST", f"/invites/{shared.code}@{NORTH}/accept", token=carol)
    with monkeypatch.context() as full:
        full.setattr("openguild_proto.operations.peer_guilds.MAX_MIRRORED_MEMBERS", 0)
        answer = shared.south.ask("POST", f"/invites/{shared.code}@{NORTH}/accept", token=carol)
        assert error(answer) == (409, "limit_reached")
    greet(shared)
    assert members(shared) == {"alice", "bob"}


def test_a_join_that_is_refused_is_not_undone(shared: Shared) -> None:
    shared.north.ask_for(shared.alice, "DELETE", f"/guilds/{shared.guild}")
    carol = shared.south.user("carol")
    answer = shared.south.ask("POST", f"/invites/{shared.code}@{NORTH}/accept", token=carol)
    assert error(answer)[0] in {404, 410}
    assert not shared.south.tables._state.pending_leaves


def test_a_mirror_that_its_owner_does_not_know_goes(shared: Shared) -> None:
    """A backup has brought it back. The owner has to say so twice."""
    peer_guilds = shared.north.tables._state.peer_guilds
    (line,) = peer_guilds.values()
    peer_guilds.clear()
    greet(shared)
    assert has_mirror(shared)
    peer_guilds[SOUTH, shared.guild] = line
    for _ in range(3):
        greet(shared)
    peer_guilds.clear()
    rounds = 0
    while has_mirror(shared) and rounds < 6:
        greet(shared)
        rounds += 1
    assert 2 <= rounds <= 4
    assert shared.south.ask_for(shared.bob, "GET", "/guilds") == []


def test_rounds_are_a_minute_apart_and_bounded() -> None:
    upkeep = Upkeep()
    assert upkeep.begin("a.test", 0.0)
    assert not upkeep.begin("a.test", UPKEEP_SECS - 1)
    assert upkeep.begin("a.test", UPKEEP_SECS)
    for number in range(2 * MAX_KNOWN):
        upkeep.begin(f"{number}.test", UPKEEP_SECS)
        upkeep.denied(str(number), 0.0)
        upkeep.past[f"{number}.test"] = None
    assert upkeep.begin("a.test", UPKEEP_SECS), "forgotten"
    assert len(upkeep.past) <= MAX_KNOWN + 1
    assert not upkeep.denied("0", 1.0), "forgotten"
    assert upkeep.denied("0", 1.0 + UPKEEP_SECS)
    upkeep.confirmed("0")
    for number in range(2 * MAX_KNOWN):
        upkeep.unmirrored(f"{number}.test", "guild", 0.0)
    last = f"{2 * MAX_KNOWN - 1}.test"
    assert upkeep.take_unmirrored(last, 1.0) is None, "a join may be under way"
    assert upkeep.take_unmirrored("0.test", UPKEEP_SECS) is None, "forgotten"
    assert upkeep.take_unmirrored(last, UPKEEP_SECS) == "guild"
    assert upkeep.take_unmirrored(last, UPKEEP_SECS) is None, "taken"
    assert not upkeep.denied("0", UPKEEP_SECS)
