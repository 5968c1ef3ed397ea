"""Posting and reading back (PROTOCOL 7)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import msgspec

from openguild_proto.canonical.event import CanonicalEvent, canonical_bytes, event_hash, event_id
from tests.support.chat import Chat, User, receive, texts, told
from tests.support.server import ServerProcess
from tests.support.waiting import PATIENCE_SECS


def test_unread_counts_are_of_the_messages_of_others(alice: User, chat: Chat) -> None:
    bob = chat.user()
    guild = alice.guild()
    channel, other = alice.channel(guild), alice.channel(guild)
    bob.join(alice.invite(guild))
    for _ in range(3):
        alice.say(channel, "x")
        alice.say(other, "y")
    bob.say(other, "z")
    bob.ok(bob.post(f"/channels/{channel}/read", {"sequence": 1}))
    unread = {line["channel_id"]: line for line in bob.ok(bob.get("/channels/unread"))}
    assert (unread[channel]["unread"], unread[other]["unread"]) == (2, 3)
    assert unread[channel]["latest_sequence"] == 3


def test_concurrent_posts_are_dense_and_in_order(alice: User, channel: str) -> None:
    with ThreadPoolExecutor(8) as posters:
        answers = list(posters.map(lambda number: alice.say(channel, str(number)), range(80)))
    assert sorted(answer["sequence"] for answer in answers) == list(range(1, 81))
    listed = alice.history(channel, limit=200)
    assert [event["sequence"] for event in listed] == list(range(1, 81))
    assert {event["event"]["event_id"] for event in listed} == {answer["event_id"] for answer in answers}


def test_a_nonce_is_stored_and_sent_once(alice: User, channel: str) -> None:
    with alice.stream(channel) as stream:
        first = alice.post(f"/channels/{channel}/messages", {"content": "hello", "nonce": "n1"})
        again = alice.post(f"/channels/{channel}/messages", {"content": "hello", "nonce": "n1"})
        by_header = alice.post(f"/channels/{channel}/messages", {"content": "hello"}, **{"idempotency-key": "n1"})
        assert first.json() == again.json() == by_header.json()
        assert again.status_code == 200
        other = alice.post(f"/channels/{channel}/messages", {"content": "other", "nonce": "n1"})
        assert (other.status_code, other.json()["error"]) == (409, "nonce_reused")
        alice.say(channel, "end")
        assert texts(receive(stream, 2)) == ["hello", "end"]
    assert texts(alice.history(channel)) == ["hello", "end"]


def test_equal_texts_are_two_events(alice: User, channel: str) -> None:
    with ThreadPoolExecutor(8) as posters:
        answers = list(posters.map(lambda _: alice.say(channel, "same"), range(40)))
    assert len({answer["event_id"] for answer in answers}) == 40


def test_since_pages_forward_and_before_pages_back(alice: User, channel: str) -> None:
    for number in range(1, 8):
        alice.say(channel, str(number))

    def page(**params: int) -> list[int]:
        return [event["sequence"] for event in alice.history(channel, **params)]

    assert page(since=2, limit=3) == [3, 4, 5]
    assert page(before=4, limit=2) == [2, 3]
    assert page(limit=2) == [6, 7]
    assert page(limit=0) == [7]
    assert page(limit=99999) == list(range(1, 8))
    assert page(since=7) == []


def test_the_stored_read_position_is_answered_and_other_devices_hear(alice: User, channel: str) -> None:
    for _ in range(5):
        alice.say(channel, "x")
    with alice.notifications() as other_device:
        assert alice.ok(alice.post(f"/channels/{channel}/read", {"sequence": 4}))["last_read_sequence"] == 4
        assert alice.ok(alice.post(f"/channels/{channel}/read", {"sequence": 2}))["last_read_sequence"] == 4
        heard = told(other_device)
        assert (heard["kind"], heard["channel_id"], heard["event"]["last_read_sequence"]) == (
            "channel_read",
            channel,
            4,
        )


def test_sender_is_me_or_refused(chat: Chat, alice: User, channel: str) -> None:
    mine = alice.user_id
    forms = (mine, mine.upper(), mine.replace("-", ""), f"{{{mine}}}", f"urn:uuid:{mine}", f" {mine} ", "", "  ")
    for sender in ({}, *({"sender": form} for form in forms)):
        alice.say(channel, "x", **sender)
    for form in (chat.user().user_id, alice.name, mine[:-1]):
        answer = alice.post(f"/channels/{channel}/messages", {"content": "x", "sender": form})
        assert (answer.status_code, answer.json()["error"]) == (403, "sender_mismatch")


def test_the_longest_message_and_every_character_come_back(alice: User, channel: str) -> None:
    longest = "\U0001f600" * 4_000
    awkward = 'quote " back\\slash / \x7f \u2028 new\nline\ttab é'
    with alice.stream(channel) as stream:
        alice.say(channel, longest)
        alice.say(channel, awkward)
        assert texts(receive(stream, 2)) == [longest, awkward]
    assert texts(alice.history(channel)) == [longest, awkward]


def test_stored_events_hash_to_their_ids(alice: User, channel: str) -> None:
    """Listed events are canonical: their ids can be recomputed from them."""
    alice.say(channel, "hash me é")
    (listed,) = alice.history(channel)
    event = msgspec.convert(listed["event"], CanonicalEvent)
    assert event_id(event_hash(canonical_bytes(event))) == listed["event"]["event_id"]


def test_an_event_is_the_same_bytes_for_every_reader(alice: User, channel: str) -> None:
    with alice.stream(channel) as one, alice.stream(channel) as two:
        alice.say(channel, "x")
        assert one.recv(timeout=PATIENCE_SECS) == two.recv(timeout=PATIENCE_SECS)


def test_openapi_describes_every_route(server: ServerProcess, alice: User) -> None:
    document = alice.ok(alice.get("/openapi.json"))
    assert document["openapi"].startswith("3.")
    assert "/client/v1/channels/{channel_id}/messages" in document["paths"]
    assert {"PostMessage", "ApiError"} <= document["components"]["schemas"].keys()
