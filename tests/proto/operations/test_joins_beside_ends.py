"""Mirrors that begin again while it is found out that the former one has ended: they stay (PROTOCOL 16.5.11, 16.8.11)."""

from __future__ import annotations

from collections.abc import Callable
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


def before_the_answer(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, server: str, do: Callable[[], object]
) -> Callable[[], bool]:
    """Before a server hears for the first time that the north does not know its mirror. Returns whether that was."""
    carry, done = type(shared.federation).carry, []

    def meanwhile(self: Any, sender: Any, peer: str, request: Request) -> Response:
        answer: Response = carry(self, sender, peer, request)
        if not done and request.path.endswith("/events") and sender.name == server and answer.status == 404:
            done.append(True)
            do()
        return answer

    monkeypatch.setattr(type(shared.federation), "carry", meanwhile)
    return lambda: bool(done)


def removes(shared: Shared, member: str) -> None:
    shared.north.ask_for(shared.alice, "DELETE", f"/guilds/{shared.guild}/members/{member}")


def tell(shared: Shared, server: str, *ended: EndedGuild) -> list[str]:
    body = msgspec.json.encode(Delivery(ended=list(ended)))
    answer = shared.north.perform(AskPeer(server, "POST", "/federation/v1/deliveries", body))
    return list(msgspec.json.decode(answer.body, type=DeliveryAnswer).purged)


def join(shared: Shared, server: Any, token: str) -> None:
    server.ask_for(token, "POST", f"/invites/{shared.code}@{NORTH}/accept")


def test_a_purge_leaves_the_mirror_of_a_later_join(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    south, bob = shared.south, shared.bob
    removes(shared, user_id(south, bob))
    was_asked = before_the_answer(shared, monkeypatch, SOUTH, lambda: join(shared, south, bob))
    assert tell(shared, SOUTH, EndedGuild(shared.guild, 1, 1)) == []
    assert was_asked()
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


def test_a_join_that_came_to_nothing_leaves_that_of_another_user(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    east, carry = shared.federation["east.test"], type(shared.federation).carry
    carol, dave = east.user("carol"), east.user("dave")
    was_asked = before_the_answer(shared, monkeypatch, east.name, lambda: join(shared, east, dave))
    asked = type(shared.federation).carry

    def ending(self: Any, sender: Any, server: str, request: Request) -> Response:
        answer: Response = asked(self, sender, server, request)
        if request.path.endswith("/join") and not was_asked():
            removes(shared, user_id(east, carol))
        return answer

    monkeypatch.setattr(type(shared.federation), "carry", ending)
    assert east.ask("POST", f"/invites/{shared.code}@{NORTH}/accept", token=carol).status == 404
    assert was_asked()
    monkeypatch.setattr(type(shared.federation), "carry", carry)
    assert [len(east.ask_for(token, "GET", "/guilds")) for token in (carol, dave)] == [0, 1]
    assert members(shared) == {"alice", "bob", "dave"}


def test_the_upkeep_leaves_the_mirror_of_a_later_join(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    south, bob = shared.south, shared.bob
    removes(shared, user_id(south, bob))

    def greet() -> None:
        for server in (shared.north, south):
            server.wall_ms += int(UPKEEP_SECS * 1_000) + 1
        tell(shared, SOUTH)

    greet()
    was_asked = before_the_answer(shared, monkeypatch, SOUTH, lambda: join(shared, south, bob))
    greet()  # behind its last guild
    greet()
    assert was_asked()
    assert [len(south.ask_for(bob, "GET", "/guilds")), members(shared)] == [1, {"alice", "bob"}]


@pytest.mark.parametrize("is_lost", [False, True], ids=["told", "timeout"])
def test_a_join_waits_while_the_owner_is_told_of_the_leaving(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, is_lost: bool
) -> None:
    """Else the owner, where they are a member still, would remove them after it has admitted them again."""
    south, bob, carry, answers = shared.south, shared.bob, type(shared.federation).carry, list[Response]()
    join(shared, south, south.user("carol"))
    shared.federation.cut.add(frozenset({NORTH, SOUTH}))
    assert leave(shared, bob).status == 204
    shared.federation.cut.clear()

    def meanwhile(self: Any, sender: Any, server: str, request: Request) -> Response:
        if b"DELETE" not in request.body:
            return carry(self, sender, server, request)
        answers.append(south.ask("POST", f"/invites/{shared.code}@{NORTH}/accept", token=bob))
        answer = carry(self, sender, server, request)
        return Response(status=502) if is_lost else answer

    monkeypatch.setattr(type(shared.federation), "carry", meanwhile)
    greet(shared)
    monkeypatch.undo()
    assert [error(answer) for answer in answers] == [(503, "guild_offline")]
    assert members(shared) == {"alice", "carol"}
    south.wall_ms += TOLD_MS * is_lost
    join(shared, south, bob)
    shared.level()
    assert [len(south.ask_for(bob, "GET", "/guilds")), members(shared)] == [1, {"alice", "bob", "carol"}]
    assert not south.tables._state.partings
