"""The main use: Alice and Bob chat over HTTP and WebSocket, on real parts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openguild_runtime.embedded import EmbeddedNats
from tests.support.chat import Chat, receive, texts
from tests.support.server import ServerProcess
from tests.support.waiting import PATIENCE_SECS


def test_alice_and_bob_chat(chat: Chat) -> None:
    alice, bob = chat.user(), chat.user()
    guild = alice.guild("Wonderland")
    channel = alice.channel(guild, "tea-party")
    assert bob.get(f"/channels/{channel}/events").status_code == 404  # the answer hides that the channel exists
    bob.join(alice.invite(guild))
    with bob.stream(channel) as stream:
        posted = alice.say(channel, "Why is a raven like a writing desk?")
        (frame,) = receive(stream, 1)
        assert frame["sequence"] == posted["sequence"] == 1
        assert frame["channel_id"] == channel
        assert frame["event"]["event_id"] == posted["event_id"]
        assert frame["event"]["content"]["author"] == {"id": alice.user_id, "username": alice.name}
        bob.say(channel, "I give it up.")
        assert texts(receive(stream, 1)) == ["I give it up."]
    assert texts(alice.history(channel)) == ["Why is a raven like a writing desk?", "I give it up."]
    unread = {line["channel_id"]: line["unread"] for line in alice.ok(alice.get("/channels/unread"))}
    assert unread == {channel: 1}, "one's own messages are not unread"
    assert alice.ok(alice.post(f"/channels/{channel}/read"))["unread"] == 0


@pytest.mark.parametrize("since", [0, 2, 5])
def test_a_stream_resumes_after_since(chat: Chat, since: int) -> None:
    alice = chat.user()
    channel = alice.channel(alice.guild())
    for number in range(1, 6):
        alice.say(channel, str(number))
    with alice.stream(channel, since=since) as stream:
        assert texts(receive(stream, 5 - since)) == [str(number) for number in range(since + 1, 6)]
        alice.say(channel, "live")
        assert texts(receive(stream, 1)) == ["live"]


def test_notifications_reach_a_member_who_has_no_channel_open(chat: Chat) -> None:
    alice, bob = chat.user(), chat.user()
    guild = alice.guild()
    bob.join(alice.invite(guild))
    with bob.notifications() as stream:
        channel = alice.channel(guild, "news")
        created = json.loads(stream.recv(timeout=PATIENCE_SECS))
        assert created["kind"] == "channel_created"
        assert created["event"]["name"] == "news"
        alice.say(channel, "first")
        message = json.loads(stream.recv(timeout=PATIENCE_SECS))
        assert (message["kind"], message["channel_id"], message["sequence"]) == ("channel_message", channel, 1)


def test_everything_is_there_after_a_restart(database_url: str, nats_server: EmbeddedNats, tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, DATABASE_URL=database_url, NATS__URL=nats_server.url)
    with server.start():
        alice = server.chat().user("alice")
        channel = alice.channel(alice.guild("kept"))
        alice.say(channel, "before")
        assert server.stop() == 0
        server.start()
        assert texts(alice.history(channel)) == ["before"]  # the token is still valid
        assert [guild["name"] for guild in alice.ok(alice.get("/guilds"))] == ["kept"]
        with alice.stream(channel, since=0) as stream:
            assert texts(receive(stream, 1)) == ["before"]
        assert server.stop() == 0
