"""Joins of guilds of other servers that meet an end, of the invite or of the guild."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from openguild_proto.effects.federation import AskPeer
from openguild_proto.effects.mirrors import FindMirrorHead
from openguild_proto.http.message import Request, Response
from openguild_proto.mirror_records import RemoteUser
from openguild_proto.schemas.between_servers import Delivery, EndedGuild, JoinRequest
from tests.proto.operations.test_federated_guilds import NORTH, Shared, error, shared, user_id
from tests.proto.operations.test_upkeep import lose_answers, members

__all__ = ["shared"]

EAST = "east.test"


@pytest.mark.parametrize("removes", ["the guild", "the member"])
def test_a_guild_that_ends_before_the_answer_to_a_join_is_not_mirrored(shared: Shared, removes: str) -> None:
    """Its owner hears from the mirroring server that nothing is left, for nothing is there yet."""
    north, east = shared.north, shared.federation[EAST]
    carol = east.user("carol")
    carol_id = user_id(east, carol)

    def ending(request: Request, carry_on: Callable[[], Response]) -> Response:
        answer = carry_on()
        if request.path.endswith("/join"):
            member = f"/members/{carol_id}" if removes == "the member" else ""
            north.ask_for(shared.alice, "DELETE", f"/guilds/{shared.guild}{member}")
            ended = EndedGuild(shared.guild, 1, 1_000) if member else EndedGuild(shared.guild, 0, 0)
            body = msgspec.json.encode(Delivery(ended=[ended]))
            told = north.perform(AskPeer(EAST, "POST", "/federation/v1/deliveries", body))
            assert msgspec.json.decode(told.body)["purged"] == [shared.guild]
        return answer

    with shared.federation.on_the_way(ending):
        answer = east.ask("POST", f"/invites/{shared.code}@{NORTH}/accept", token=carol)
    assert error(answer) == (404, "not_found")
    assert east.perform(FindMirrorHead(NORTH, shared.guild)) is None
    assert east.ask_for(carol, "GET", "/guilds") == []


@pytest.mark.parametrize("has_mirror", [True, False])
def test_the_last_use_of_an_invite_whose_answer_is_lost_is_repeated(shared: Shared, has_mirror: bool) -> None:
    code = shared.north.ask_for(shared.alice, "POST", f"/guilds/{shared.guild}/invites", {"max_uses": 1})["code"]
    server = shared.south if has_mirror else shared.federation[EAST]
    carol, path = server.user("carol"), f"/invites/{code}@{NORTH}/accept"
    with lose_answers(shared, "/join"):
        assert error(server.ask("POST", path, token=carol)) == (503, "guild_offline")
    for _ in range(2):
        joined = server.ask_for(carol, "POST", path)
        assert (joined["user_id"], joined["guild_id"]) == (user_id(server, carol), shared.guild)
    assert len(server.ask_for(carol, "GET", "/guilds")) == 1
    assert not server.tables._state.pending_leaves
    assert members(shared) == {"alice", "bob", "carol"}


def test_an_expired_invite_admits_nobody_else(shared: Shared) -> None:
    code = shared.north.ask_for(shared.alice, "POST", f"/guilds/{shared.guild}/invites", {"max_uses": 1})["code"]
    shared.south.ask_for(shared.south.user("carol"), "POST", f"/invites/{code}@{NORTH}/accept")
    dave = shared.south.user("dave")
    for method, path in (("GET", f"/invites/{code}@{NORTH}"), ("POST", f"/invites/{code}@{NORTH}/accept")):
        assert error(shared.south.ask(method, path, token=dave)) == (410, "invite_expired")
    asked = msgspec.json.encode(JoinRequest(RemoteUser(user_id(shared.south, dave), "dave"), True))
    answer = shared.south.perform(AskPeer(NORTH, "POST", f"/federation/v1/invites/{code}/join", asked))
    assert answer.status == 410
    assert members(shared) == {"alice", "bob", "carol"}
    assert user_id(shared.south, dave) not in shared.north.tables._state.users
    assert not shared.south.tables._state.pending_leaves


def test_two_first_members_of_a_server_may_join_at_once(shared: Shared) -> None:
    """The mirror begins with the later one, before the answer to the earlier one is stored."""
    east = shared.federation[EAST]
    carol, dave, path = east.user("carol"), east.user("dave"), f"/invites/{shared.code}@{NORTH}/accept"
    carol_id = user_id(east, carol)

    def meanwhile(request: Request, carry_on: Callable[[], Response]) -> Response:
        answer = carry_on()
        if request.path.endswith("/join") and carol_id.encode() in request.body:
            east.ask_for(dave, "POST", path)
        return answer

    with shared.federation.on_the_way(meanwhile):
        assert east.ask_for(carol, "POST", path)["user_id"] == carol_id
    for token in (carol, dave):
        assert len(east.ask_for(token, "GET", "/guilds")) == 1
    assert members(shared) == {"alice", "bob", "carol", "dave"}
    assert not east.tables._state.pending_leaves
