"""A redacted text leaves what a replica keeps: rings, pages of the log, notifications (PROTOCOL 6.7.1)."""

from __future__ import annotations

import json

import pytest

from openguild_proto.canonical.event import build_event
from openguild_proto.effects.channels import ReadEvents
from openguild_proto.records import Edit, Redact
from openguild_proto.replica.redactions import Redaction, redacted_frame, redaction_in
from openguild_proto.schemas.payloads import channel_message_payload
from openguild_proto.ws.frames import frame_payload, text_frame
from tests.support.driven_replica import Driven, Socket
from tests.support.elsewhere import Elsewhere


def payload(event_type: str = "message", **content: str) -> tuple[str, bytes]:
    built = build_event(
        server_name="s", room_id="c", event_type=event_type, sender="u", content=content, origin_ts_ms=1, signer=None
    )
    return built.event_id, b'{"sequence":1,"channel_id":"c","event":' + built.wire + b"}"


def test_a_redaction_is_recognised_and_a_text_that_quotes_one_is_not() -> None:
    event_id, redaction = payload("message.redacted", target="$t")
    assert redaction_in(redaction) == Redaction(event_id, "$t")
    assert redaction_in(payload(content='"event_type":"message.redacted"')[1]) is None
    assert redaction_in(payload("message.edited", target="$t")[1]) is None


@pytest.mark.parametrize("size", [1, 100, 200, 70_000])
def test_the_frames_of_the_message_and_its_edits_lose_their_text(size: int) -> None:
    target, posted = payload(content="s" * size)
    redaction = Redaction("$by", target)
    for kept in (
        posted,
        channel_message_payload(posted),
        payload("message.edited", target=target, content="s" * size)[1],
    ):
        frame = redacted_frame(text_frame(kept), redaction)
        assert frame is not None
        assert b"$by" in frame_payload(frame)
        event = json.loads(frame_payload(frame))["event"]
        assert event["content"].pop("target", target) == target
        assert event["content"] == {"content": "", "redacted_by": "$by"}
        assert redacted_frame(frame, redaction) == frame


def test_other_frames_stay_as_they_are() -> None:
    target, _ = payload(content="x")
    redaction = Redaction("$by", target)
    for event_type, content in (
        ("message", {"content": f"about {target}"}),
        ("message", {"content": "a reply", "reply_to": target}),
        ("reaction.added", {"target": target, "emoji": "x"}),
    ):
        assert redacted_frame(text_frame(payload(event_type, **content)[1]), redaction) is None


class Redacted:
    """A channel whose message 1, `secret`, has been edited, `more secret`, and then taken back; nothing is sent yet."""

    def __init__(self, elsewhere: Elsewhere, user: str, channel: str) -> None:
        posted = elsewhere.append(channel, "secret", user)
        edit = Edit(target=posted.event_id, text="more secret")
        self.posted = posted
        self.edited = elsewhere.change(channel, user, "message.edited", edit, content=edit.text)
        self.redact = lambda: elsewhere.change(channel, user, "message.redacted", Redact(target=posted.event_id))


def texts(socket: Socket) -> list[str | None]:
    return [frame["event"]["content"].get("content") for frame in socket.frames]


@pytest.mark.parametrize("notified", [False, True])
def test_a_reader_who_has_not_got_the_text_yet_never_gets_it(notified: bool) -> None:
    driven = Driven()
    user = driven.elsewhere.user()
    channel = driven.elsewhere.channel(user)
    socket = driven.open(user, None if notified else channel)
    driven.flushing = False
    scene = Redacted(driven.elsewhere, user, channel)
    for event in (scene.posted, scene.edited, scene.redact()):
        driven.deliver(event)
    driven.flushing = True
    driven.flush()
    assert texts(socket) == ["", "", None]
    assert [frame["event"]["event_type"] for frame in socket.frames][-1] == "message.redacted"


def test_pages_that_were_kept_are_read_again() -> None:
    driven = Driven()
    user = driven.elsewhere.user()
    channel = driven.elsewhere.channel(user)
    scene = Redacted(driven.elsewhere, user, channel)
    first = driven.open(user, channel, since=0)
    assert texts(first) == ["secret", "more secret"]
    driven.deliver(scene.redact())
    assert texts(driven.open(user, channel, since=0)) == ["", "", None]


def test_pages_of_a_channel_that_nobody_follows_are_not_kept() -> None:
    driven = Driven()
    user = driven.elsewhere.user()
    channel = driven.elsewhere.channel(user)
    scene = Redacted(driven.elsewhere, user, channel)
    driven.leave(driven.open(user, channel, since=0))
    scene.redact()  # which this replica does not hear of
    assert texts(driven.open(user, channel, since=0)) == ["", "", None]


def test_a_page_that_is_being_read_is_read_again() -> None:
    driven = Driven()
    user = driven.elsewhere.user()
    channel = driven.elsewhere.channel(user)
    scene = Redacted(driven.elsewhere, user, channel)
    held = driven.hold(ReadEvents, early=True)
    socket = driven.open(user, channel, since=0)
    assert len(held.queries) == 1, "the store has answered, and its answer is on its way"
    driven.deliver(scene.redact())
    driven.let_pass(ReadEvents)
    assert texts(socket) == ["", "", None]
