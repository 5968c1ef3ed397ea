"""Every event of a log has its type here, and what is new or strange breaks nobody."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openguild_proto.gateway.client_events import Delivered, HintReceived
from openguild_proto.schemas.events import CONTENTS
from openguild_runtime.client import (
    Client,
    MessagePosted,
    PresenceChanged,
    ReactionAdded,
    ReactionsCleared,
    TextRedacted,
    UnknownEvent,
    UserTyping,
)
from openguild_runtime.client.log_events import EVENT_TYPES, event_of_hint, log_event

USER = "0198c0de-0000-7000-8000-000000000001"
AUTHOR = {"id": USER, "username": "alice"}
CLIENT = Client("http://127.0.0.1:1")


def told(event_type: str, content: Any) -> Any:
    event = {
        "schema_version": 1, "event_id": "$" + "a" * 43, "origin_server": "s", "room_id": "c", "event_type": event_type,
        "sender": USER, "origin_ts": 0, "content": content, "prev_events": [], "auth_events": [], "signatures": {},
    }  # fmt: skip
    return log_event(CLIENT, Delivered("channel:c", 3, 7, json.dumps(event).encode()))


def test_every_type_of_the_logs_has_one_here() -> None:
    assert EVENT_TYPES.keys() == CONTENTS.keys()


def test_a_message_and_what_is_about_it() -> None:
    message = told("message", {"author": AUTHOR, "content": "hi", "nonce": "n"})
    assert isinstance(message, MessagePosted)
    assert (message.text, message.channel_id, message.message_id) == ("hi", "c", "$" + "a" * 43)
    assert (message.author.username, message.epoch, message.sequence) == ("alice", 3, 7)
    assert json.loads(message.wire)["event_type"] == "message"
    reaction = told("reaction.added", {"author": AUTHOR, "target": "$" + "b" * 43, "emoji": "👋", "nonce": "n"})
    assert isinstance(reaction, ReactionAdded)
    assert (reaction.message_id, reaction.content.emoji) == ("$" + "b" * 43, "👋")


def test_what_was_cleared_of_a_message() -> None:
    of = {"author": AUTHOR, "target": "$" + "b" * 43, "nonce": "n"}
    cleared = told("reactions.cleared", {**of, "emoji": "👋", "reason": "rude"})
    assert isinstance(cleared, ReactionsCleared)
    assert (cleared.message_id, cleared.content.emoji, cleared.content.reason) == (of["target"], "👋", "rude")
    assert told("reactions.cleared", of).content.emoji is None, "all of them"


@pytest.mark.parametrize(
    ("event_type", "content", "kind"),
    [
        ("later.type", {"any": 1}, UnknownEvent),
        ("message", {"other": "members"}, UnknownEvent),
        ("message", None, UnknownEvent),
        ("message", {"content": "", "redacted_by": "$" + "a" * 43}, TextRedacted),
        ("message.edited", {"content": "", "redacted_by": "$" + "a" * 43, "target": "$" + "b" * 43}, TextRedacted),
    ],
)
def test_what_is_new_or_taken_back(event_type: str, content: Any, kind: type[Any]) -> None:
    event = told(event_type, content)
    assert type(event) is kind
    assert event.event.event_type == event_type


def test_what_is_in_no_log() -> None:
    typing = HintReceived("channel:c", "typing", json.dumps({"user_id": USER, "preview": "he"}).encode())
    assert event_of_hint(typing) == UserTyping("c", USER, "he")
    presence = event_of_hint(
        HintReceived("guild:g", "presence", json.dumps({"user_id": USER, "status": "idle"}).encode())
    )
    assert isinstance(presence, PresenceChanged)
    assert presence.status.value == "idle"
    assert event_of_hint(HintReceived("channel:c", "later", b"{}")) is None
