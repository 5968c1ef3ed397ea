"""`DELETE /channels/{channel_id}/events/{event_id}/reactions`, over the store in memory (PROTOCOL 6.6.10)."""

from __future__ import annotations

from urllib.parse import quote

import msgspec
import pytest

from openguild_proto.client.view import ChannelView
from openguild_proto.http.message import Response
from tests.proto.operations.test_changes import HEART, THUMB, Room, room
from tests.proto.operations.test_federated_guilds import Shared, shared, user_id
from tests.proto.operations.test_lying_owners import said, told
from tests.support.world import decoded, request

__all__ = ["room", "shared"]


def react(room: Room, posted: str, *emoji: str, token: str | None = None) -> None:
    for each in emoji:
        room.ask("POST", f"/events/{posted}/reactions", {"emoji": each}, token)


def clear(
    room: Room, posted: str, query: str = "", *, token: str | None = None, status: int = 200
) -> dict[str, object]:
    answer: dict[str, object] = room.ask("DELETE", f"/events/{posted}/reactions{query}", token=token, status=status)
    return answer


def shown(room: Room, posted: str) -> list[tuple[str, int, bool]]:
    reactions = room.message(posted).get("reactions", [])
    return [(line["emoji"], line["count"], line["me"]) for line in reactions]


def test_a_moderator_takes_one_emoji_away_or_all(room: Room) -> None:
    posted = room.post("hello", room.member)
    react(room, posted, "rude", HEART, token=room.member)
    react(room, posted, "rude", THUMB)
    cleared = clear(room, posted, "?emoji=rude&reason=a%20slur")
    event = room.log()[-1]
    assert cleared == {
        "message_id": posted, "sequence": 6, "event_id": event["event_id"], "created_at": cleared["created_at"],
    }  # fmt: skip
    assert (event["event_type"], event["content"]["target"]) == ("reactions.cleared", posted)
    assert (event["content"]["emoji"], event["content"]["reason"]) == ("rude", "a slur")
    assert event["content"]["author"] == {"id": event["sender"], "username": "owner"}
    assert shown(room, posted) == [(HEART, 1, False), (THUMB, 1, True)]
    assert room.message(posted)["content"] == "hello"
    clear(room, posted)
    assert shown(room, posted) == []
    assert not {"emoji", "reason"} & room.log()[-1]["content"].keys()


def test_members_clear_nothing_not_even_of_their_own_message(room: Room) -> None:
    posted = room.post("hello", room.member)
    react(room, posted, THUMB)
    assert clear(room, posted, token=room.member, status=403)["error"] == "forbidden"
    assert shown(room, posted) == [(THUMB, 1, True)]
    assert len(room.log()) == 2


def test_what_is_not_there_is_not_cleared(room: Room) -> None:
    posted = room.post()
    assert clear(room, posted) == {"message_id": posted}
    react(room, posted, THUMB)
    assert clear(room, posted, f"?emoji={quote(HEART)}") == {"message_id": posted}
    assert len(room.log()) == 2
    reaction = room.log()[-1]["event_id"]
    assert clear(room, reaction, status=404)["error"] == "not_found"
    room.ask("DELETE", f"/events/{posted}")
    assert clear(room, posted, status=409)["error"] == "message_redacted"


@pytest.mark.parametrize(
    ("query", "field"),
    [("emoji=", "emoji"), ("emoji=%20", "emoji"), ("emoji=" + "e" * 65, "emoji"), ("emoji=a%00b", "emoji"),
     ("reason=", "reason"), ("reason=" + "r" * 513, "reason"), ("emojis=x", "emojis")],
)  # fmt: skip
def test_what_is_no_emoji_and_no_reason_is_refused(room: Room, query: str, field: str) -> None:
    """Least of all does an empty emoji mean all of them."""
    posted = room.post()
    react(room, posted, THUMB)
    refused = room.ask("DELETE", f"/events/{posted}/reactions?{query}", status=400)
    assert [problem["field"] for problem in refused["details"]] == [field]
    assert shown(room, posted) == [(THUMB, 1, True)]


def test_an_emoji_is_found_in_each_of_its_spellings(room: Room) -> None:
    posted = room.post()
    react(room, posted, "caf\u00e9")
    clear(room, posted, f"?emoji=%20{quote('cafe' + chr(0x301))}")
    assert shown(room, posted) == []


def test_a_repeat_with_its_key_clears_once(room: Room) -> None:
    posted = room.post()

    def cleared(query: str) -> tuple[int, dict[str, object]]:
        path = f"/channels/{room.channel}/events/{posted}/reactions{query}"
        asked = request("DELETE", path, None, room.owner)
        answer = room.world.run(msgspec.structs.replace(asked, headers=(*asked.headers, ("idempotency-key", "k"))))
        assert isinstance(answer, Response)
        return answer.status, decoded(answer)

    react(room, posted, THUMB, HEART)
    first = cleared(f"?emoji={quote(THUMB)}")
    assert first[1]["sequence"] == 4
    react(room, posted, THUMB)
    assert cleared(f"?emoji={quote(THUMB)}") == first
    assert shown(room, posted) == [(HEART, 1, True), (THUMB, 1, True)]
    for other in ("", f"?reason={quote(THUMB)}", f"?emoji={quote(THUMB)}&reason=why"):
        status, answer = cleared(other)
        assert (status, answer["error"]) == (409, "nonce_reused"), other


def test_a_replay_from_any_place_ends_as_the_server_shows(room: Room) -> None:
    posted = room.post()
    for token in (room.owner, room.member):
        react(room, posted, THUMB, HEART, token=token)
    clear(room, posted, f"?emoji={quote(THUMB)}")
    react(room, posted, THUMB, token=room.member)
    clear(room, posted)
    react(room, posted, HEART, THUMB)
    view = ChannelView()
    for line in room.ask("GET", "/events?limit=200"):
        view.apply(line["sequence"], msgspec.json.encode(line["event"]))
    counted = [(emoji, len(users)) for emoji, users in view.messages[posted].reactions.items()]
    assert counted == [(emoji, count) for emoji, count, _ in shown(room, posted)] == [(HEART, 1), (THUMB, 1)]


def test_the_emoji_stays_in_the_log(room: Room) -> None:
    """As the rule says: what is cleared is what the message shows."""
    posted = room.post()
    react(room, posted, "rude")
    clear(room, posted, "?emoji=rude")
    assert [event["content"].get("emoji") for event in room.log()] == [None, "rude", "rude"]


def test_events_of_a_later_release_are_passed_on_and_change_nothing(shared: Shared) -> None:
    path = f"/channels/{shared.channel}"
    posted = shared.north.ask_for(shared.alice, "POST", f"{path}/messages", {"content": "hello"})["event_id"]
    shared.north.ask_for(shared.alice, "POST", f"{path}/events/{posted}/reactions", {"emoji": "x"})
    shared.level()
    before = shared.messages(shared.south, shared.bob)
    later = said(shared, "reactions.later", {"target": posted}, sender=user_id(shared.north, shared.alice))
    assert told(shared, shared.channel, 3, later).sequence == 4
    assert shared.messages(shared.south, shared.bob) == before
    (line,) = shared.south.ask_for(shared.bob, "GET", f"{path}/events?since=3")
    assert (line["event"]["event_type"], line["event"]["content"]["target"]) == ("reactions.later", posted)
