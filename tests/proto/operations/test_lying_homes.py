"""A server that lies about what its users write in guilds of another one (PROTOCOL 16.6)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from openguild_proto.canonical.event import build_event
from openguild_proto.effects.federation import AskPeer
from openguild_proto.mirror_records import RemoteUser
from openguild_proto.schemas.between_servers import Proposal
from tests.proto.operations.test_federated_guilds import NORTH, SOUTH, Shared, shared, user_id

__all__ = ["shared"]


def proposed(shared: Shared, event_type: str, content: dict[str, Any], *, author: Any = None, nonce: str = "n1") -> int:
    """The status of what the north answers to an event of bob."""
    bob, south = user_id(shared.south, shared.bob), shared.south
    author = {"id": bob, "username": "bob"} if author is None else author
    content = {"author": author, **content, "nonce": "n"}
    built = build_event(
        server_name=SOUTH, room_id=shared.channel, event_type=event_type, sender=bob, content=content,
        origin_ts_ms=south.wall_ms, signer=south.signer,
    )  # fmt: skip
    body = msgspec.json.encode(Proposal(RemoteUser(bob, "bob"), built.wire.decode(), nonce))
    return south.perform(AskPeer(NORTH, "POST", f"/federation/v1/logs/{shared.channel}/proposals", body)).status


@pytest.mark.parametrize(
    ("name", "nonce", "status"), [("bob", "n1", 200), ("alice", "n2", 400), ("x" * 5_000, "n3", 400), ("bob", "a\0b", 400)],
    ids=["good", "the name of another", "a name without a bound", "a nonce with NUL"],
)  # fmt: skip
def test_proposals_are_of_their_user(shared: Shared, name: str, nonce: str, status: int) -> None:
    author = {"id": user_id(shared.south, shared.bob), "username": name}
    assert proposed(shared, "message", {"content": "hello"}, author=author, nonce=nonce) == status


@pytest.mark.parametrize("author", ["bob", ["bob"], {"id": 1}, {}], ids=["a text", "a list", "a number", "nobody"])
@pytest.mark.parametrize("event_type", ["message", "guild.updated"])
def test_the_author_of_a_proposal_is_a_user(shared: Shared, event_type: str, author: Any) -> None:
    assert proposed(shared, event_type, {"content": "hello", "name": "mine"}, author=author) == 400


@pytest.mark.parametrize(
    ("event_type", "content"),
    [
        ("guild.updated", {"name": "safe\u202egpj.exe"}),
        ("guild.updated", {"name": "mine"}),
        ("member.removed", {"user_id": "nobody"}),
        ("channel.deleted", {"channel_id": NORTH, "name": "general"}),
        ("device.logged_out", {"device_id": "d"}),
        ("mentioned", {"channel_id": NORTH, "message_id": "$1", "message_sequence": 1}),
    ],
)
def test_events_of_other_logs_are_not_taken_into_a_channel(
    shared: Shared, event_type: str, content: dict[str, Any]
) -> None:
    """Mirrors would refuse some of them, and so everything behind them."""
    assert proposed(shared, event_type, content) == 400
    shared.north.ask_for(shared.alice, "POST", f"/channels/{shared.channel}/messages", {"content": "after"})
    shared.level()
    assert [line["content"] for line in shared.messages(shared.south, shared.bob)] == ["before", "after"]


@pytest.mark.parametrize(
    ("members", "status"), [({}, 200), ({"emoji": ""}, 400), ({"emoji": "e" * 65}, 400), ({"emoji": "a\0b"}, 400),
                            ({"reason": ""}, 400), ({"reason": "r" * 513}, 400), ({"reason": " r"}, 400),
                            ({"reason": "a\nb"}, 400)],
    ids=["good", "no emoji", "a long emoji", "an emoji with NUL", "no reason", "a long reason", "untrimmed", "two lines"],
)  # fmt: skip
def test_proposed_clearings_are_within_their_bounds(shared: Shared, members: dict[str, Any], status: int) -> None:
    bob = user_id(shared.south, shared.bob)
    shared.north.ask_for(shared.alice, "PUT", f"/guilds/{shared.guild}/members/{bob}", {"role": "moderator"})
    (before,) = shared.messages(shared.north, shared.alice)
    assert proposed(shared, "reactions.cleared", {"target": before["event_id"], **members}) == status


@pytest.mark.parametrize("member", ["hidden", "nonce"])
@pytest.mark.parametrize("event_type", ["message", "message.edited", "reaction.added"])
def test_proposals_say_little_beside_their_text(shared: Shared, event_type: str, member: str) -> None:
    """Nothing takes away what a reaction says, and each subscriber is sent all of it."""
    bob = user_id(shared.south, shared.bob)
    mine = shared.south.ask_for(shared.bob, "POST", f"/channels/{shared.channel}/messages", {"content": "mine"})
    said = {
        "message": {"content": "\U0001f600" * 4_000},
        "message.edited": {"content": "\u0001" * 4_000, "target": mine["event_id"]},
        "reaction.added": {"emoji": "\N{THUMBS UP SIGN}", "target": mine["event_id"]},
    }[event_type]

    def status(text: str, nonce: str) -> int:
        content = {"author": {"id": bob, "username": "bob"}, "nonce": "n", **said, member: text}
        built = build_event(
            server_name=SOUTH, room_id=shared.channel, event_type=event_type, sender=bob, content=content,
            origin_ts_ms=shared.south.wall_ms, signer=shared.south.signer,
        )  # fmt: skip
        body = msgspec.json.encode(Proposal(RemoteUser(bob, "bob"), built.wire.decode(), nonce))
        return shared.south.perform(
            AskPeer(NORTH, "POST", f"/federation/v1/logs/{shared.channel}/proposals", body)
        ).status

    assert status("x" * 4_096, "n1") == 400
    assert status("x" * 2_048, "n2") == 200


def test_a_server_that_gives_out_the_ids_of_anothers_users_stops_no_mirror(shared: Shared) -> None:
    """The owner of the guild cannot know whose id it was first; where it is known nothing is shown as of that user."""
    north, south, east = shared.north, shared.south, shared.federation["east.test"]
    carol = south.user("carol")
    taken = RemoteUser(user_id(south, carol), "mallory")
    joined = east.perform(
        AskPeer(NORTH, "POST", f"/federation/v1/invites/{shared.code}/join", msgspec.json.encode({"user": taken}))
    )
    assert joined.status == 200

    def say(event_type: str, content: dict[str, Any]) -> str:
        content = {"author": {"id": taken.user_id, "username": "mallory"}, **content, "nonce": "n"}
        built = build_event(
            server_name="east.test", room_id=shared.channel, event_type=event_type, sender=taken.user_id,
            content=content, origin_ts_ms=east.wall_ms, signer=east.signer,
        )  # fmt: skip
        body = msgspec.json.encode(Proposal(taken, built.wire.decode(), event_type))
        answer = east.perform(AskPeer(NORTH, "POST", f"/federation/v1/logs/{shared.channel}/proposals", body))
        assert answer.status == 200, answer.body
        return built.event_id

    forged = say("message", {"content": "I owe mallory money"})
    say("message.edited", {"content": "I owe mallory much money", "target": forged})
    say("reaction.added", {"emoji": "\N{THUMBS UP SIGN}", "target": forged})
    north.ask_for(shared.alice, "POST", f"/channels/{shared.channel}/messages", {"content": "after"})
    shared.level()
    mirrored = f"/channels/{shared.channel}/messages?after=1"  # what was before is shown by the owner
    gone, after = south.ask_for(shared.bob, "GET", mirrored)
    assert (gone["event_id"], gone["redacted_by"], gone.get("content"), after["content"]) == (
        forged,
        forged,
        None,
        "after",
    )
    log = south.ask_for(shared.bob, "GET", f"/channels/{shared.channel}/events?since=1")
    assert [line["sequence"] for line in log] == [2, 3, 4, 5]
    assert "mallory" not in str(log)
    say("message.redacted", {"target": forged})
    shared.level()
    assert [line.get("content") for line in south.ask_for(shared.bob, "GET", mirrored)] == [None, "after"]
