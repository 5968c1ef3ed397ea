"""Edits, redactions, reactions, pins and replies, over the store in memory (PROTOCOL 6.6, 6.7, 7.8)."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.limits import MAX_CHANNEL_PINS, MAX_MESSAGE_EMOJI, MAX_MESSAGE_VERSIONS
from openguild_proto.policy.ratelimit import SlidingWindow
from tests.support.world import World, decoded

THUMB, HEART = "\N{THUMBS UP SIGN}", "\N{HEAVY BLACK HEART}\ufe0f"


class Room(NamedTuple):
    """A channel with its owner and a member."""

    world: World
    channel: str
    owner: str
    member: str

    def ask(self, method: str, path: str, body: Any = None, token: str | None = None, status: int = 200) -> Any:
        answer = self.world.ask(method, f"/channels/{self.channel}{path}", body, token or self.owner)
        assert answer.status == status, answer.body
        return decoded(answer)

    def post(self, text: str = "hello", token: str | None = None, **more: Any) -> str:
        return str(self.ask("POST", "/messages", {"content": text, **more}, token)["event_id"])

    def message(self, event_id: str, token: str | None = None) -> Any:
        return self.ask("GET", f"/messages/{event_id}", token=token)

    def log(self) -> list[Any]:
        return [line["event"] for line in self.ask("GET", "/events?limit=200")]


@pytest.fixture
def room() -> Room:
    world = World()
    for window in ("user_messages", "address_messages"):
        setattr(world.service, window, SlidingWindow(1_000_000, 60))
    owner, member = world.user("owner"), world.user("member")
    guild = decoded(world.ask("POST", "/guilds", {"name": "g"}, owner))["guild_id"]
    channel = decoded(world.ask("POST", f"/guilds/{guild}/channels", {"name": "c"}, owner))["channel_id"]
    member_id = decoded(world.ask("GET", "/users/me", token=member))["user_id"]
    world.perform(GrantGuildRole(guild_id=guild, user_id=member_id, role="member", now_ms=0))
    return Room(world, channel, owner, member)


def test_an_edit_gives_the_newest_text_and_keeps_the_versions(room: Room) -> None:
    posted = room.post("first", room.member)
    changed = room.ask("PATCH", f"/events/{posted}", {"content": "second"}, room.member)
    assert (changed["message_id"], changed["sequence"]) == (posted, 2)
    message = room.message(posted)
    assert (message["content"], message["versions"], "edited_at" in message) == ("second", 2, True)
    versions = room.ask("GET", f"/messages/{posted}/versions")
    assert [version["content"] for version in versions] == ["first", "second"]
    assert [event["event_type"] for event in room.log()] == ["message", "message.edited"]


def test_only_the_author_edits(room: Room) -> None:
    posted = room.post("mine", room.member)
    assert room.ask("PATCH", f"/events/{posted}", {"content": "x"}, room.owner, 403)["error"] == "forbidden"


def test_a_message_has_so_many_versions_at_most(room: Room) -> None:
    posted = room.post()
    for number in range(MAX_MESSAGE_VERSIONS - 1):
        room.ask("PATCH", f"/events/{posted}", {"content": f"{number}"})
    refused = room.ask("PATCH", f"/events/{posted}", {"content": "one more"}, status=409)
    assert refused["error"] == "limit_reached"
    assert room.message(posted)["versions"] == MAX_MESSAGE_VERSIONS


def test_a_redaction_leaves_no_text(room: Room) -> None:
    posted = room.post("a secret text", room.member)
    room.ask("PATCH", f"/events/{posted}", {"content": "another secret text"}, room.member)
    room.ask("POST", f"/events/{posted}/reactions", {"emoji": THUMB})
    reply = room.post("a reply", reply_to=posted)
    redaction = room.ask("DELETE", f"/events/{posted}", token=room.member)["event_id"]
    everything = str([room.log(), room.ask("GET", "/messages"), room.ask("GET", f"/messages/{posted}/versions")])
    assert "secret" not in everything
    message = room.message(posted)
    assert (message["redacted_by"], "content" in message, message.get("reactions")) == (redaction, False, None)
    assert room.message(reply)["reply_preview"] == {
        "event_id": posted, "sequence": 1, "author": {"id": message["author"]["id"]},
    }  # fmt: skip


def test_moderators_redact_with_a_reason_and_members_do_not(room: Room) -> None:
    posted = room.post("mine", room.owner)
    room.ask("DELETE", f"/events/{posted}", token=room.member, status=403)
    other = room.post("rude", room.member)
    refused = room.ask("DELETE", f"/events/{other}", token=room.owner, status=400)
    assert refused["details"][0]["field"] == "reason"
    room.ask("DELETE", f"/events/{other}?reason=rude", token=room.owner)
    assert room.log()[-1]["content"]["reason"] == "rude"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/events/{}", {"content": "x"}),
        ("POST", "/events/{}/reactions", {"emoji": THUMB}),
        ("PUT", "/pins/{}", None),
        ("POST", "/messages", {"content": "x", "reply_to": "{}"}),
    ],
)
def test_nothing_more_happens_to_a_redacted_message(room: Room, method: str, path: str, body: Any) -> None:
    posted = room.post()
    room.ask("DELETE", f"/events/{posted}")
    body = {key: value.format(posted) for key, value in body.items()} if body else None
    refused = room.ask(method, path.format(posted), body, status=409)
    assert refused["error"] == "message_redacted"
    assert len(room.log()) == 2


def test_what_is_so_already_stores_nothing(room: Room) -> None:
    posted = room.post()
    for method, path, body in (
        ("POST", f"/events/{posted}/reactions", {"emoji": THUMB}),
        ("POST", f"/events/{posted}/reactions", {"emoji": THUMB, "action": "remove"}),
        ("PUT", f"/pins/{posted}", None),
        ("DELETE", f"/pins/{posted}", None),
        ("DELETE", f"/events/{posted}", None),
    ):
        assert "sequence" in room.ask(method, path, body)
        before = len(room.log())
        assert room.ask(method, path, body) == {"message_id": posted}
        assert len(room.log()) == before


def test_reactions_are_counted_once_for_each_user(room: Room) -> None:
    posted = room.post()
    for token in (room.owner, room.member):
        room.ask("POST", f"/events/{posted}/reactions", {"emoji": HEART}, token)
    room.ask("POST", f"/events/{posted}/reactions", {"emoji": THUMB}, room.member)
    (heart, thumb) = room.message(posted, room.owner)["reactions"]
    assert (heart["emoji"], heart["count"], heart["me"], len(heart["reactors"])) == (HEART, 2, True, 2)
    assert (thumb["emoji"], thumb["count"], thumb["me"]) == (THUMB, 1, False)
    room.ask("POST", f"/events/{posted}/reactions", {"emoji": HEART, "action": "remove"}, room.owner)
    assert [(line["count"], line["me"]) for line in room.message(posted)["reactions"]] == [(1, False), (1, False)]


def test_a_message_has_so_many_different_emoji(room: Room) -> None:
    posted = room.post()
    for number in range(MAX_MESSAGE_EMOJI):
        room.ask("POST", f"/events/{posted}/reactions", {"emoji": chr(0x1F600 + number)})
    refused = room.ask("POST", f"/events/{posted}/reactions", {"emoji": THUMB}, room.member, 409)
    assert refused["error"] == "limit_reached"
    room.ask("POST", f"/events/{posted}/reactions", {"emoji": chr(0x1F600)}, room.member)


NO_EMOJI = [
    "", " ", "a b", "x" * 65, "\n", "\u202e", "a\u200db", "\0", "\ufe0f", "\u3164", "\u2800", "\u034f", "\u0301",
    "\U000e0061\U000e0062", "a\U000e0061",
]  # fmt: skip


@pytest.mark.parametrize("emoji", NO_EMOJI)
def test_what_is_no_emoji_is_refused(room: Room, emoji: str) -> None:
    posted = room.post()
    refused = room.ask("POST", f"/events/{posted}/reactions", {"emoji": emoji}, status=400)
    assert refused["details"][0]["field"] == "emoji"


FAMILY = "\N{MAN}\u200d\N{WOMAN}\u200d\N{GIRL}\u200d\N{BOY}"
SCOTLAND = "\N{WAVING BLACK FLAG}\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"


@pytest.mark.parametrize("emoji", [THUMB, HEART, FAMILY, SCOTLAND, "1\ufe0f\u20e3", "\U0001fae9", "party_parrot", "好"])
def test_what_people_react_with_is_an_emoji(room: Room, emoji: str) -> None:
    posted = room.post()
    room.ask("POST", f"/events/{posted}/reactions", {"emoji": emoji})
    assert room.message(posted)["reactions"][0]["emoji"] == emoji


def test_two_spellings_of_one_emoji_count_together(room: Room) -> None:
    posted = room.post()
    room.ask("POST", f"/events/{posted}/reactions", {"emoji": "e\u0301"}, room.owner)
    room.ask("POST", f"/events/{posted}/reactions", {"emoji": "\u00e9"}, room.member)
    assert [line["count"] for line in room.message(posted)["reactions"]] == [2]


def test_pins_are_listed_newest_first(room: Room) -> None:
    first, second = room.post("one"), room.post("two")
    for posted in (second, first):
        room.world.wall_ms += 1
        room.ask("PUT", f"/pins/{posted}")
    assert [message["event_id"] for message in room.ask("GET", "/pins")] == [first, second]
    room.ask("DELETE", f"/pins/{first}")
    assert [message["event_id"] for message in room.ask("GET", "/pins")] == [second]
    room.ask("PUT", f"/pins/{first}", token=room.member, status=403)


@pytest.mark.parametrize("limit", ["", "limit=2", "limit=1"])
def test_pins_come_in_pages_of_a_bound_in_bytes(room: Room, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    posts = [room.post("x" * 100) for _ in range(5)]
    for number, posted in enumerate(posts):
        room.world.wall_ms += number % 2  # some are pinned at one time
        room.ask("PUT", f"/pins/{posted}")
    one = len(room.world.ask("GET", f"/channels/{room.channel}/pins?limit=1", None, room.owner).body)
    monkeypatch.setattr("openguild_proto.operations.timeline.MAX_PAGE_BYTES", 4 * one - one // 2)
    pages, cursor = list[list[str]](), ""
    while cursor is not None:
        query = "&".join(part for part in (limit, cursor and f"cursor={cursor}") if part)
        answer = room.world.ask("GET", f"/channels/{room.channel}/pins?{query}", None, room.owner)
        pages.append([message["event_id"] for message in decoded(answer)])
        cursor = dict(answer.headers).get("x-next-cursor")
    assert [len(page) for page in pages] == {"": [3, 2], "limit=2": [2, 2, 1], "limit=1": [1] * 5}[limit]
    assert [posted for page in pages for posted in page] == posts[::-1]


@pytest.mark.parametrize("cursor", ["1", "x.y", "1.", "1.99999999999999999999", "9999999999999999.1", "1.-1"])
def test_a_cursor_of_pins_that_is_none_is_refused(room: Room, cursor: str) -> None:
    (problem,) = room.ask("GET", f"/pins?cursor={cursor}", status=400)["details"]
    assert problem["field"] == "cursor"


def test_a_channel_has_so_many_pins(room: Room) -> None:
    posted = [room.post(str(number)) for number in range(MAX_CHANNEL_PINS + 1)]
    for event_id in posted[:-1]:
        room.ask("PUT", f"/pins/{event_id}")
    assert room.ask("PUT", f"/pins/{posted[-1]}", status=409)["error"] == "limit_reached"
    assert len(room.ask("GET", "/pins")) == MAX_CHANNEL_PINS


def test_a_reply_names_what_it_answers(room: Room) -> None:
    question = room.post("x" * 300)
    answer = room.post("because", room.member, reply_to=question)
    message = room.message(answer)
    assert (message["reply_to"], message["reply_preview"]["content"]) == (question, "x" * 200)
    assert room.message(question)["reply_count"] == 1


@pytest.mark.parametrize("target", ["$1", "$" + "z" * 44])
def test_a_target_that_is_no_message_here_gets_404(room: Room, target: str) -> None:
    room.post()
    room.ask("PATCH", f"/events/{target}", {"content": "x"}, status=404)
    room.ask("POST", "/messages", {"content": "x", "reply_to": target}, status=404)
    assert len(room.log()) == 1


def test_an_event_that_is_no_message_is_no_target(room: Room) -> None:
    posted = room.post()
    reaction = room.ask("POST", f"/events/{posted}/reactions", {"emoji": THUMB})["event_id"]
    room.ask("POST", f"/events/{reaction}/reactions", {"emoji": THUMB}, status=404)
    room.ask("GET", f"/messages/{reaction}", status=404)


@pytest.mark.parametrize("target", ["x", "$", "$0OIl", "$" + "1" * 45])
def test_what_can_be_no_event_id_gets_400(room: Room, target: str) -> None:
    room.ask("PATCH", f"/events/{target}", {"content": "x"}, status=400)


def test_a_change_with_a_nonce_happens_once(room: Room) -> None:
    posted = room.post()
    first = room.ask("PATCH", f"/events/{posted}", {"content": "y", "nonce": "n"})
    assert room.ask("PATCH", f"/events/{posted}", {"content": "y", "nonce": "n"}) == first
    assert room.ask("PATCH", f"/events/{posted}", {"content": "z", "nonce": "n"}, status=409)["error"] == "nonce_reused"
    assert len(room.log()) == 2


def test_a_change_that_changed_nothing_is_decided_anew(room: Room) -> None:
    """It has stored nothing, its nonce neither (PROTOCOL 6.6.3, 7.5.3)."""
    posted = room.post()
    reactions = f"/events/{posted}/reactions"
    room.ask("POST", reactions, {"emoji": THUMB})
    again = {"emoji": THUMB, "nonce": "n"}
    assert room.ask("POST", reactions, again) == {"message_id": posted}
    room.ask("POST", reactions, {"emoji": THUMB, "action": "remove"})
    stored = room.ask("POST", reactions, again)
    assert stored["sequence"] == len(room.log()) == 4
    room.ask("POST", reactions, {"emoji": THUMB, "action": "remove"})
    assert room.ask("POST", reactions, again) == stored, "now it is a repeat"


def test_a_repeat_after_a_redaction_is_still_a_repeat(room: Room) -> None:
    posted = room.post("secret", nonce="n")
    room.ask("DELETE", f"/events/{posted}")
    assert room.post("secret", nonce="n") == posted
    assert len(room.log()) == 2


def test_after_a_redaction_its_nonce_serves_no_other_request(room: Room) -> None:
    """Whoever sends it would be told of something that was not done (PROTOCOL 6.7.4, 7.4.2)."""
    redacted, kept = room.post("secret", nonce="n"), room.post("kept")
    room.ask("PATCH", f"/events/{redacted}", {"content": "more", "nonce": "edit"})
    room.ask("DELETE", f"/events/{redacted}")
    for nonce in ("n", "edit"):
        for method, path, body in (
            ("PATCH", f"/events/{kept}", {"content": "x", "nonce": nonce}),
            ("POST", f"/events/{kept}/reactions", {"emoji": THUMB, "nonce": nonce}),
            ("POST", "/messages", {"content": "x", "reply_to": kept, "nonce": nonce}),
        ):
            assert room.ask(method, path, body, status=409)["error"] == "nonce_reused"
    assert room.ask("PATCH", f"/events/{redacted}", {"content": "again", "nonce": "edit"})["sequence"] == 3
    assert room.message(kept)["content"] == "kept"


def test_pages_of_messages_leave_out_what_is_no_message(room: Room) -> None:
    posted = []
    for number in range(6):
        posted.append(room.post(str(number)))
        room.ask("POST", f"/events/{posted[-1]}/reactions", {"emoji": THUMB})

    def page(query: str) -> list[int]:
        return [posted.index(message["event_id"]) for message in room.ask("GET", f"/messages{query}")]

    assert page("") == [0, 1, 2, 3, 4, 5]
    assert page("?limit=2") == [4, 5]
    assert page("?after=3&limit=2") == [2, 3]
    assert page("?before=9&limit=2") == [2, 3]
    assert page("?around=5&limit=3") == [1, 2, 3]
    assert room.ask("GET", "/messages?after=1&before=3", status=400)["details"][0]["field"] == "before"


def test_reactions_and_own_posts_make_nothing_unread(room: Room) -> None:
    posted = room.post("one", room.owner)
    room.post("two", room.owner)
    room.ask("POST", f"/events/{posted}/reactions", {"emoji": THUMB}, room.member)
    room.post("mine", room.member)

    def unread(token: str) -> list[int]:
        return [line["unread"] for line in decoded(room.world.ask("GET", "/channels/unread", token=token))]

    assert unread(room.member) == [2]
    assert unread(room.owner) == [1]
    room.ask("POST", "/read", {"sequence": 1}, room.member)
    assert unread(room.member) == [1]
    room.ask("POST", "/read", token=room.member)
    assert unread(room.member) == [0]
