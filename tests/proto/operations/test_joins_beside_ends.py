"""Mirrors that begin again while it is found out that the former one has ended: they stay (PROTOCOL 16.5.11, 16.8.11)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from openguild_proto.effects.federation import AskPeer
from openguild_proto.effects.mirrors import TOLD_MS, DropMirror
from openguild_proto.federation.upkeep import UPKEEP_SECS
from openguild_proto.http.message import Request, Response
from openguild_proto.schemas.between_servers import Delivery, DeliveryAnswer, EndedGuild
from tests.proto.operations.test_federated_guilds import NORTH, SOUTH, Shared, error, shared, user_id
from tests.proto.operations.test_upkeep import greet, leave, members

__all__ = ["shared"]


@contextmanager
def before_the_answer(shared: Shared, server: str, do: Callable[[], object]) -> Iterator[list[bool]]:
    """Call `do` once, before `server` hears that the north does not know its mirror, and check that it was called."""
    done: list[bool] = []

    def meanwhile(request: Request, carry_on: Callable[[], Response]) -> Response:
        answer = carry_on()
        is_asked = request.path.endswith("/events") and request.client_address == server
        if not done and is_asked and answer.status == 404:
            done.append(True)
            do()
        return answer

    with shared.federation.on_the_way(meanwhile):
        yield done
    assert done


def removes(shared: Shared, member: str) -> None:
    shared.north.ask_for(shared.alice, "DELETE", f"/guilds/{shared.guild}/members/{member}")


def tell(shared: Shared, server: str, *ended: EndedGuild) -> list[str]:
    body = msgspec.json.encode(Delivery(ended=list(ended)))
    answer = shared.north.perform(AskPeer(server, "POST", "/federation/v1/deliveries", body))
    return list(msgspec.json.decode(answer.body, type=DeliveryAnswer).purged)


def join(shared: Shared, server: Any, token: str) -> None:
    server.ask_for(token, "POST", f"/invites/{shared.code}@{NORTH}/accept")


def test_a_purge_leaves_the_mirror_of_a_later_join(shared: Shared) -> None:
    south, bob = shared.south, shared.bob
    removes(shared, user_id(south, bob))
    with before_the_answer(shared, SOUTH, lambda: join(shared, south, bob)):
        assert tell(shared, SOUTH, EndedGuild(shared.guild, 1, 1)) == []
    assert [len(south.ask_for(bob, "GET", "/guilds")), members(shared)] == [1, {"alice", "bob"}]


def test_a_purge_that_asks_nobody_leaves_it_too(shared: Shared) -> None:
    south, bob, perform = shared.south, shared.bob, shared.south.perform
    removes(shared, user_id(south, bob))

    def performed(effect: Any) -> Any:
        if isinstance(effect, DropMirror):
            south.perform = perform  # type: ignore[method-assign]  # of this one server
            join(shared, south, bob)
        return perform(effect)

    south.perform = performed  # type: ignore[method-assign]  # of this one server
    assert tell(shared, SOUTH, EndedGuild(shared.guild, 1, 1_000)) == []
    assert [len(south.ask_for(bob, "GET", "/guilds")), members(shared)] == [1, {"alice", "bob"}]


def test_a_join_that_came_to_nothing_leaves_that_of_another_user(shared: Shared) -> None:
    east = shared.federation["east.test"]
    carol, dave = east.user("carol"), east.user("dave")

    def ending(request: Request, carry_on: Callable[[], Response]) -> Response:
        answer = carry_on()
        if request.path.endswith("/join") and not done:
            removes(shared, user_id(east, carol))
        return answer

    answering = before_the_answer(shared, east.name, lambda: join(shared, east, dave))
    with answering as done, shared.federation.on_the_way(ending):
        assert east.ask("POST", f"/invites/{shared.code}@{NORTH}/accept", token=carol).status == 404
    assert [len(east.ask_for(token, "GET", "/guilds")) for token in (carol, dave)] == [0, 1]
    assert members(shared) == {"alice", "bob", "dave"}


def test_the_upkeep_leaves_the_mirror_of_a_later_join(shared: Shared) -> None:
    south, bob = shared.south, shared.bob
    removes(shared, user_id(south, bob))

    def greet() -> None:
        for server in (shared.north, south):
            server.wall_ms += int(UPKEEP_SECS * 1_000) + 1
        tell(shared, SOUTH)

    greet()
    with before_the_answer(shared, SOUTH, lambda: join(shared, south, bob)):
        greet()  # behind its last guild
        greet()
    assert [len(south.ask_for(bob, "GET", "/guilds")), members(shared)] == [1, {"alice", "bob"}]


@pytest.mark.parametrize("is_lost", [False, True], ids=["told", "timeout"])
def test_a_join_waits_while_the_owner_is_told_of_the_leaving(shared: Shared, is_lost: bool) -> None:
    """Else the owner, where they are a member still, would remove them after it has admitted them again."""
    south, bob, answers = shared.south, shared.bob, list[Response]()
    join(shared, south, south.user("carol"))
    shared.federation.cut.add(frozenset({NORTH, SOUTH}))
    assert leave(shared, bob).status == 204
    shared.federation.cut.clear()

    def meanwhile(request: Request, carry_on: Callable[[], Response]) -> Response:
        if b"DELETE" not in request.body:
            return carry_on()
        answers.append(south.ask("POST", f"/invites/{shared.code}@{NORTH}/accept", token=bob))
        answer = carry_on()
        return Response(status=502) if is_lost else answer

    with shared.federation.on_the_way(meanwhile):
        greet(shared)
    assert [error(answer) for answer in answers] == [(503, "guild_offline")]
    assert members(shared) == {"alice", "carol"}
    south.wall_ms += TOLD_MS * is_lost
    join(shared, south, bob)
    shared.level()
    assert [len(south.ask_for(bob, "GET", "/guilds")), members(shared)] == [1, {"alice", "bob", "carol"}]
    assert not south.tables._state.pending_leaves
