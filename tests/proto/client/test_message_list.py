"""What a client shows of a channel: equal to the folded answer, whatever happens behind the page."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from openguild_proto.client.message_list import MessageList, ShownReaction
from openguild_proto.limits import MAX_LISTED_MESSAGES
from openguild_proto.schemas.messages import Author, Message

ME, OTHER = (f"0198c0de-0000-7000-8000-{number:012}" for number in range(2))
PAGE = [
    Message("$one", 1, "c", Author(OTHER, "other"), "t", "first", reactions=msgspec.Raw(b'[{"emoji":"x","count":2,"me":true}]')),
    Message("$two", 2, "c", Author(ME, "me"), "t"),
]  # fmt: skip


def wire(event_type: str, sender: str = OTHER, event_id: str = "$new", **content: Any) -> str:
    return json.dumps({
        "schema_version": 1, "event_id": event_id, "origin_server": "s", "room_id": "c", "event_type": event_type,
        "sender": sender, "origin_ts": 0, "prev_events": [], "auth_events": [], "signatures": {},
        "content": {"author": {"id": sender, "username": "name"}, "nonce": "n", **content},
    })  # fmt: skip


def test_what_is_in_the_page_is_not_applied_again() -> None:
    shown = MessageList(ME, PAGE, 5)
    assert shown.apply(5, wire("message.edited", target="$one", content="later")) is None
    assert [message.text for message in shown.messages.values()] == ["first", None]
    assert shown.messages["$one"].reactions == {"x": ShownReaction(2, True)}


def test_events_behind_the_page_change_what_is_shown() -> None:
    shown = MessageList(ME, PAGE, 5)
    shown.apply(6, wire("message.edited", target="$one", content="later"))
    shown.apply(7, wire("reaction.removed", ME, target="$one", emoji="x"))
    shown.apply(8, wire("reaction.added", target="$one", emoji="y"))
    shown.apply(9, wire("message.pinned", target="$one"))
    shown.apply(10, wire("message", content="an answer", reply_to="$one"))
    one = shown.messages["$one"]
    assert (one.text, one.edited, one.pinned, one.replies) == ("later", True, True, 1)
    assert one.reactions == {"x": ShownReaction(1, False), "y": ShownReaction(1, False)}
    assert list(shown.messages) == ["$one", "$two", "$new"]
    shown.apply(11, wire("reaction.removed", target="$one", emoji="x"))
    assert list(one.reactions) == ["y"]
    shown.apply(12, wire("message.redacted", target="$one"))
    assert (one.text, one.reactions, one.pinned, one.edited) == (None, {}, False, False)
    assert shown.apply(13, wire("reaction.added", target="$one", emoji="z")) is None
    assert shown.head == 13


def test_cleared_reactions_are_not_shown_until_somebody_reacts_again() -> None:
    shown = MessageList(ME, PAGE, 5)
    one = shown.messages["$one"]
    shown.apply(6, wire("reaction.added", target="$one", emoji="y"))
    assert shown.apply(7, wire("reactions.cleared", target="$one", emoji="x")) is one
    assert one.reactions == {"y": ShownReaction(1, False)}
    shown.apply(8, wire("reaction.added", target="$one", emoji="x"))
    assert one.reactions["x"] == ShownReaction(1, False)
    shown.apply(9, wire("reactions.cleared", target="$one", reason="rude"))
    shown.apply(10, wire("reaction.added", ME, target="$one", emoji="x"))
    assert one.reactions == {"x": ShownReaction(1, True)}


def test_a_message_that_was_taken_back_before_it_came_is_shown_as_in_a_page() -> None:
    shown = MessageList(ME, PAGE, 5)
    gone = {"content": "", "redacted_by": "$later"}
    new = json.loads(wire("message")) | {"content": {**gone, "reply_to": "$one"}}
    message = shown.apply(6, json.dumps(new))
    assert message is shown.messages["$new"]
    assert (message.author_id, message.author, message.text, message.sequence) == (OTHER, "", None, 6)
    assert shown.messages["$one"].replies == 1
    edit = json.loads(wire("message.edited", event_id="$edit")) | {"content": {**gone, "target": "$one"}}
    assert shown.apply(7, json.dumps(edit)) is None
    assert list(shown.messages) == ["$one", "$two", "$new"]


def test_of_many_messages_the_newest_are_kept() -> None:
    shown = MessageList(ME, PAGE, 5)
    for number in range(MAX_LISTED_MESSAGES):
        shown.apply(6 + number, wire("message", event_id=f"${number}", content="text"))
    assert len(shown.messages) == MAX_LISTED_MESSAGES
    assert list(shown.messages)[::999] == ["$0", "$999"]


def test_other_messages_and_unknown_events_are_passed_over() -> None:
    shown = MessageList(ME, PAGE, 0)
    for sequence, event in enumerate([
        wire("message.edited", target="$none", content="x"), wire("message.pinned", target="$two"), wire("later.type"),
    ], 1):  # fmt: skip
        assert shown.apply(sequence, event) is None
