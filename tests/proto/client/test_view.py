"""What a client makes of the log is what the server answers, whatever happened (PROTOCOL 7.8.2)."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from openguild_proto.canonical.event import build_event
from openguild_proto.canonical.redaction import redacted_wire
from openguild_proto.client.view import ChannelView, SeenMessage
from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.policy.ratelimit import SlidingWindow
from tests.support.world import World, decoded

EMOJI = ["\N{THUMBS UP SIGN}", "\N{HEAVY BLACK HEART}\ufe0f", "e\u0301", "好"]
TEXTS = ["hello", "日本語のメッセージ", "רצף", "👩‍👩‍👧", "e\u0301\u0327", '"event_type":"message.redacted"']


class Histories(RuleBasedStateMachine):
    """Three users of one channel do whatever may be done; one client follows, another one comes late."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        for window in ("user_messages", "address_messages"):
            setattr(self.world.service, window, SlidingWindow(1_000_000, 60))
        self.tokens = [self.world.user(name) for name in ("owner", "one", "two")]
        self.ids = [decoded(self.world.ask("GET", "/users/me", token=token))["user_id"] for token in self.tokens]
        guild = decoded(self.world.ask("POST", "/guilds", {"name": "g"}, self.tokens[0]))["guild_id"]
        channel = decoded(self.world.ask("POST", f"/guilds/{guild}/channels", {"name": "c"}, self.tokens[0]))
        self.path = f"/channels/{channel['channel_id']}"
        for user_id in self.ids[1:]:
            self.world.perform(GrantGuildRole(guild_id=guild, user_id=user_id, role="member", now_ms=0))
        self.posted: list[str] = []
        self.view = ChannelView()

    def ask(self, user: int, method: str, path: str, body: Any = None) -> Any:
        answer = self.world.ask(method, self.path + path, body, self.tokens[user])
        assert answer.status in {200, 403, 409}, answer.body
        return decoded(answer)

    users = st.integers(0, 2)
    places = st.integers(0, 30)

    def target(self, place: int) -> str | None:
        return self.posted[place % len(self.posted)] if self.posted else None

    @rule(user=users, text=st.sampled_from(TEXTS), reply=st.none() | places)
    def post(self, user: int, text: str, reply: int | None) -> None:
        body = {"content": text}
        if reply is not None and (target := self.target(reply)) is not None:
            body["reply_to"] = target
        answer = self.ask(user, "POST", "/messages", body)
        if "event_id" in answer:
            self.posted.append(answer["event_id"])

    @rule(user=users, place=places, text=st.sampled_from(TEXTS))
    def edit(self, user: int, place: int, text: str) -> None:
        if (target := self.target(place)) is not None:
            self.ask(user, "PATCH", f"/events/{target}", {"content": text})

    @rule(user=users, place=places)
    def redact(self, user: int, place: int) -> None:
        if (target := self.target(place)) is not None:
            self.ask(user, "DELETE", f"/events/{target}?reason=why")

    @rule(user=users, place=places, emoji=st.sampled_from(EMOJI), action=st.sampled_from(["add", "remove"]))
    def react(self, user: int, place: int, emoji: str, action: str) -> None:
        if (target := self.target(place)) is not None:
            self.ask(user, "POST", f"/events/{target}/reactions", {"emoji": emoji, "action": action})

    @rule(place=places, query=st.sampled_from(["", *(f"?{urlencode({'emoji': emoji})}" for emoji in EMOJI[:2])]))
    def clear(self, place: int, query: str) -> None:
        if (target := self.target(place)) is not None:
            self.ask(0, "DELETE", f"/events/{target}/reactions{query}")

    @rule(place=places, method=st.sampled_from(["PUT", "DELETE"]))
    def pin(self, place: int, method: str) -> None:
        if (target := self.target(place)) is not None:
            self.ask(0, method, f"/pins/{target}")

    @rule()
    def follow(self) -> None:
        self.read_on(self.view)

    def read_on(self, view: ChannelView) -> None:
        while page := self.ask(0, "GET", f"/events?since={view.head}&limit=200"):
            for line in page:
                view.apply(line["sequence"], msgspec.json.encode(line["event"]))

    @invariant()
    def both_views_are_what_the_server_answers(self) -> None:
        late = ChannelView()
        self.read_on(late)
        self.read_on(self.view)
        answered = self.ask(0, "GET", "/messages?limit=200")
        for view in (self.view, late):
            assert [self.shown(message) for message in view.messages.values()] == answered_without_times(answered)
            pins = {message["event_id"] for message in self.ask(0, "GET", "/pins")}
            assert {message.event_id for message in view.pinned()} == pins

    def shown(self, message: SeenMessage) -> dict[str, Any]:
        return {
            "event_id": message.event_id, "sequence": message.sequence, "author": message.author_id, "content": message.text,
            "versions": message.versions, "edited": message.edited, "redacted_by": message.redacted_by,
            "reply_to": message.reply_to, "replies": message.replies,
            "reactions": {emoji: (len(users), self.ids[0] in users) for emoji, users in message.reactions.items()},
        }  # fmt: skip


def answered_without_times(answered: list[Any]) -> list[dict[str, Any]]:
    return [
        {
            "event_id": message["event_id"], "sequence": message["sequence"], "author": message["author"]["id"],
            "content": message.get("content"), "versions": message.get("versions", 1), "edited": "edited_at" in message,
            "redacted_by": message.get("redacted_by"), "reply_to": message.get("reply_to"),
            "replies": message.get("reply_count", 0),
            "reactions": {line["emoji"]: (line["count"], line["me"]) for line in message.get("reactions", [])},
        }
        for message in answered
    ]  # fmt: skip


Histories.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestHistories = Histories.TestCase


def test_a_hole_is_refused_and_a_repeat_does_nothing() -> None:
    view = ChannelView()
    with pytest.raises(ValueError, match="event 1 is missing"):
        view.apply(2, b"{}")
    view.apply(0, b"{}")
    assert view.head == 0


def test_an_edit_that_comes_whole_behind_its_redacted_message_is_counted_and_not_shown() -> None:
    """One was read from the log after the redaction, the other one was on its way before it."""
    built = {
        event_type: build_event(
            server_name="s", room_id="c", event_type=event_type, sender="u", origin_ts_ms=1, signer=None,
            content={"author": {"id": "u", "username": "n"}, "nonce": "n", **content},
        )
        for event_type, content in (("message", {"content": "former"}), ("message.edited", {"content": "new", "target": "$m"}))
    }  # fmt: skip
    message = built["message"]
    view = ChannelView()
    view.apply(1, redacted_wire(message.wire, "$by"))
    view.apply(2, built["message.edited"].wire.replace(b"$m", message.event_id.encode()))
    (seen,) = view.messages.values()
    assert (seen.text, seen.versions, seen.redacted_by) == (None, 2, "$by")


@pytest.mark.parametrize(("event_type", "versions"), [("message.edited", 2), ("reactions.cleared", 1)])
def test_of_changes_whose_content_is_gone_only_edits_are_versions(event_type: str, versions: int) -> None:
    author = {"author": {"id": "u", "username": "n"}, "nonce": "n"}
    fixed: dict[str, Any] = {"server_name": "s", "room_id": "c", "sender": "u", "origin_ts_ms": 1, "signer": None}
    message = build_event(event_type="message", content={**author, "content": "hi"}, **fixed)
    change = build_event(event_type=event_type, content={**author, "content": "x", "target": message.event_id}, **fixed)
    view = ChannelView()
    view.apply(1, message.wire)
    view.apply(2, redacted_wire(change.wire, "$by"))
    assert [seen.versions for seen in view.messages.values()] == [versions]


def test_an_unknown_event_breaks_nothing() -> None:
    view = ChannelView()
    members = {
        "schema_version": 1, "event_id": "$1", "origin_server": "s", "room_id": "c", "event_type": "poll.opened",
        "sender": "u", "origin_ts": 1, "content": {"new": [1]}, "prev_events": [], "auth_events": [], "signatures": {},
    }  # fmt: skip
    view.apply(1, msgspec.json.encode(members))
    view.apply(2, msgspec.json.encode({**members, "event_type": "reaction.added", "content": {"emoji": 7}}))
    assert (view.head, view.messages) == (2, {})
