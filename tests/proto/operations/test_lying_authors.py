"""An owner server that lies about who wrote what: mirrors show no author but the sender (PROTOCOL 16.8.14)."""

from __future__ import annotations

from typing import Any

import pytest

from openguild_proto.canonical.event import build_event
from tests.proto.operations.test_federated_guilds import NORTH, Shared, shared, user_id
from tests.proto.operations.test_lying_owners import LONG, told

__all__ = ["shared"]

REACTORS = '"]},{"emoji":"x","count":9,"me":true,"reactors":["'


def said(shared: Shared, event_type: str, sender: str, content: Any) -> str:
    """An event of the channel that the owner has signed."""
    return build_event(
        server_name=NORTH, room_id=shared.channel, event_type=event_type, sender=sender, content=content,
        origin_ts_ms=shared.north.wall_ms, signer=shared.north.signer,
    ).wire.decode()  # fmt: skip


@pytest.mark.parametrize("event_type", ["message", "message.edited", "reaction.added", "message.pinned"])
@pytest.mark.parametrize("case", ["of this server", "long", "turns around", "no text", "no author"])
def test_authors_are_the_senders(shared: Shared, event_type: str, case: str) -> None:
    alice, bob = user_id(shared.north, shared.alice), user_id(shared.south, shared.bob)
    (before,) = shared.messages(shared.north, shared.alice)
    author: Any = {
        "of this server": {"id": bob, "username": "bob"},
        "long": {"id": alice, "username": LONG},
        "turns around": {"id": alice, "username": "bob\u202e"},
        "no text": {"id": alice, "username": 5},
        "no author": "alice",
    }[case]
    content = {"author": author, "nonce": "n", "content": "hi", "emoji": "x", "target": before["event_id"]}
    assert told(shared, shared.channel, 1, said(shared, event_type, alice, content)).status == "refused"
    content["author"] = {"id": alice, "username": "alice"}
    assert told(shared, shared.channel, 1, said(shared, event_type, alice, content)).status == "ok"


@pytest.mark.parametrize("sender", [REACTORS, "bob", NORTH])
@pytest.mark.parametrize("event_type", ["message", "reaction.added", "reaction.removed"])
def test_senders_are_users(shared: Shared, event_type: str, sender: str) -> None:
    """What is kept of reactions names them in JSON."""
    author = {"id": sender, "username": "x"}
    (before,) = shared.messages(shared.north, shared.alice)
    content = {"author": author, "nonce": "n", "content": "hi", "emoji": "x", "target": before["event_id"]}
    assert told(shared, shared.channel, 1, said(shared, event_type, sender, content)).status == "refused"


@pytest.mark.parametrize("content", [["hi"], {"content": 7}, {"content": "x" * 9_000}, {}, "hi"])
def test_messages_of_another_form_are_refused(shared: Shared, content: Any) -> None:
    alice = user_id(shared.north, shared.alice)
    assert told(shared, shared.channel, 1, said(shared, "message", alice, content)).status == "refused"
    assert [message["content"] for message in shared.messages(shared.south, shared.bob)] == ["before"]


def test_events_of_a_newer_release_keep_their_places(shared: Shared) -> None:
    alice = user_id(shared.north, shared.alice)
    assert told(shared, shared.channel, 1, said(shared, "message.framed", alice, ["hi"])).status == "ok"
