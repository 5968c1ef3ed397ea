"""Pages of the log are bounded in bytes: paging both ways finds every event once (PROTOCOL 7.6)."""

from __future__ import annotations

import json

import pytest

from openguild_proto.limits import MAX_MESSAGE_CHARS, MAX_PAGE_BYTES
from tests.support.world import World, decoded

COUNT = 120


@pytest.fixture
def world() -> World:
    return World()


def page(world: World, path: str, token: str) -> list[int]:
    answer = world.ask("GET", path, token=token)
    assert answer.status == 200
    assert len(answer.body) < MAX_PAGE_BYTES * 1.1
    return [line["sequence"] for line in json.loads(answer.body)]


def test_pages_of_long_messages_are_short_and_leave_nothing_out(world: World) -> None:
    alice = world.user("alice")
    guild = decoded(world.ask("POST", "/guilds", {"name": "g"}, alice))["guild_id"]
    channel = decoded(world.ask("POST", f"/guilds/{guild}/channels", {"name": "c"}, alice))["channel_id"]
    path = f"/channels/{channel}/events?limit=200"
    for _ in range(COUNT):
        body = {"content": "\x01" * MAX_MESSAGE_CHARS}  # six bytes each in JSON
        assert world.ask("POST", f"/channels/{channel}/messages", body, alice).status == 200
    everything = list(range(1, COUNT + 1))

    newest = page(world, path, alice)
    assert 0 < len(newest) < COUNT / 2
    assert newest == everything[-len(newest) :]

    forward: list[int] = []
    while found := page(world, f"{path}&since={forward[-1] if forward else 0}", alice):
        forward += found
    assert forward == everything

    back = newest
    while found := page(world, f"{path}&before={back[0]}", alice):
        back = found + back
    assert back == everything


def test_one_event_is_given_however_long(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openguild_proto.operations.paging.MAX_PAGE_BYTES", 1)
    alice = world.user("alice")
    guild = decoded(world.ask("POST", "/guilds", {"name": "g"}, alice))["guild_id"]
    channel = decoded(world.ask("POST", f"/guilds/{guild}/channels", {"name": "c"}, alice))["channel_id"]
    for _ in range(3):
        world.ask("POST", f"/channels/{channel}/messages", {"content": "x"}, alice)
    for query, expected in (("", 3), ("?since=0", 1), ("?since=1", 2), ("?before=3", 2)):
        assert page(world, f"/channels/{channel}/events{query}", alice) == [expected]


def test_pages_of_long_messages_as_they_are_now_are_short_and_leave_nothing_out(world: World) -> None:
    alice = world.user("alice")
    guild = decoded(world.ask("POST", "/guilds", {"name": "g"}, alice))["guild_id"]
    channel = decoded(world.ask("POST", f"/guilds/{guild}/channels", {"name": "c"}, alice))["channel_id"]
    path = f"/channels/{channel}/messages?limit=200"
    for _ in range(COUNT):
        body = {"content": "\N{PARTY POPPER}" * MAX_MESSAGE_CHARS}
        assert world.ask("POST", f"/channels/{channel}/messages", body, alice).status == 200
    everything = list(range(1, COUNT + 1))
    newest = page(world, path, alice)
    assert 0 < len(newest) < COUNT
    assert newest == everything[-len(newest) :]

    forward: list[int] = []
    while found := page(world, f"{path}&after={forward[-1] if forward else 0}", alice):
        forward += found
    assert forward == everything

    back = newest
    while found := page(world, f"{path}&before={back[0]}", alice):
        back = found + back
    assert back == everything

    middle = page(world, f"{path}&around={COUNT // 2}", alice)
    assert middle == list(range(middle[0], middle[-1] + 1))
    upto = sum(sequence <= COUNT // 2 for sequence in middle)
    assert abs(len(middle) - 2 * upto) <= 1


def test_one_message_is_given_however_long(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openguild_proto.operations.timeline.MAX_PAGE_BYTES", 1)
    alice = world.user("alice")
    guild = decoded(world.ask("POST", "/guilds", {"name": "g"}, alice))["guild_id"]
    channel = decoded(world.ask("POST", f"/guilds/{guild}/channels", {"name": "c"}, alice))["channel_id"]
    for _ in range(3):
        world.ask("POST", f"/channels/{channel}/messages", {"content": "x"}, alice)
    for query, expected in (
        ("", 3),
        ("?after=0", 1),
        ("?after=1", 2),
        ("?before=3", 2),
        ("?around=2", 2),
        ("?around=9", 3),
    ):
        assert page(world, f"/channels/{channel}/messages{query}", alice) == [expected]
    assert page(world, f"/channels/{channel}/messages?after=3", alice) == []
