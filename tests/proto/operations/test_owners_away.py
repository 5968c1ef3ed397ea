"""Pages of a mirror while its owner cannot be reached: without holes, and none seems to be the end (PROTOCOL 16.7.4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.proto.operations.test_federated_guilds import NORTH, SOUTH, Shared, error
from tests.support.homeservers import Federation
from tests.support.world import decoded

BASE, HEAD = 5, 8
ABOVE = [6, 7, 8]
OFFLINE = (503, "guild_offline")


@pytest.fixture
def away() -> Shared:
    """The mirror of the south begins behind the fifth of eight messages; the link to the owner is cut."""
    shared = joined(posted_before=BASE)
    post(shared, range(BASE + 1, HEAD + 1))
    shared.level()
    shared.federation.cut.add(frozenset({NORTH, SOUTH}))
    return shared


def joined(posted_before: int) -> Shared:
    federation = Federation(NORTH, SOUTH)
    north, south = federation[NORTH], federation[SOUTH]
    alice, bob = north.user("alice"), south.user("bob")
    guild = north.ask_for(alice, "POST", "/guilds", {"name": "far away"})["guild_id"]
    channel = north.ask_for(alice, "POST", f"/guilds/{guild}/channels", {"name": "general"})["channel_id"]
    code = north.ask_for(alice, "POST", f"/guilds/{guild}/invites")["code"]
    shared = Shared(federation, north, south, alice, bob, guild, channel, code)
    post(shared, range(1, posted_before + 1))
    south.ask_for(bob, "POST", f"/invites/{code}@{NORTH}/accept")
    return shared


def post(shared: Shared, numbers: range) -> None:
    for number in numbers:
        path = f"/channels/{shared.channel}/messages"
        shared.north.ask_for(shared.alice, "POST", path, {"content": f"message {number}"})


def page(shared: Shared, what: str) -> Any:
    """The sequences of a page of the mirror, or its refusal."""
    answer = shared.south.ask("GET", what.replace("{c}", shared.channel).replace("{g}", shared.guild), token=shared.bob)
    if answer.status != 200:
        assert answer.status != 503 or int(dict(answer.headers)["retry-after"]) >= 1
        return error(answer)
    return [line["sequence"] for line in decoded(answer)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ABOVE), ("?limit=3", ABOVE), ("?limit=2", [7, 8]), ("?before=8", [6, 7]), ("?before=7&limit=9", [6]),
        ("?since=5", ABOVE), ("?since=6&epoch=1", [7, 8]), ("?since=8", []),
        ("?since=0", OFFLINE), ("?since=3", OFFLINE), ("?since=4&limit=1", OFFLINE),
        ("?before=6", OFFLINE), ("?before=4", OFFLINE), ("?before=5&limit=1", OFFLINE),
        ("?since=9", (400, "invalid_since")), ("?since=0&epoch=7", (400, "invalid_since")),
        ("?since=0&before=4", (400, "validation_error")),
    ],
)  # fmt: skip
def test_a_page_of_events_is_whole_or_refused(away: Shared, query: str, expected: Any) -> None:
    assert page(away, "/channels/{c}/events" + query) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ABOVE), ("?limit=2", [7, 8]), ("?before=8", [6, 7]), ("?after=5", ABOVE), ("?after=8", []),
        ("?around=7&limit=2", [7, 8]), ("?around=6", ABOVE), ("?around=99", ABOVE),
        ("?before=6", OFFLINE), ("?before=4", OFFLINE), ("?after=0", OFFLINE), ("?after=4&limit=1", OFFLINE),
        ("?around=5", OFFLINE), ("?around=1&limit=2", OFFLINE),
    ],
)  # fmt: skip
def test_a_page_of_messages_is_whole_or_refused(away: Shared, query: str, expected: Any) -> None:
    assert page(away, "/channels/{c}/messages" + query) == expected


def test_a_page_of_a_guilds_log_is_whole_or_refused(away: Shared) -> None:
    log = "/guilds/{g}/log"
    assert page(away, f"{log}?since=0") == page(away, log) == page(away, f"{log}?before=3") == OFFLINE
    base = int(dict(away.south.ask("GET", f"/guilds/{away.guild}", token=away.bob).headers)["x-openguild-head"])
    assert page(away, f"{log}?since={base}") == []
    away.federation.cut.clear()
    away.north.ask_for(away.alice, "PATCH", f"/guilds/{away.guild}", {"name": "renamed"})
    away.level()
    away.federation.cut.add(frozenset({NORTH, SOUTH}))
    assert page(away, log) == page(away, f"{log}?since={base}") == [base + 1]
    assert page(away, f"{log}?before={base + 1}") == OFFLINE


@pytest.mark.parametrize("what", ["events", "messages"])
def test_a_reader_backwards_finds_the_beginning_when_the_owner_is_back(away: Shared, what: str) -> None:
    def backwards() -> Iterator[Any]:
        before = HEAD + 1
        while found := page(away, f"/channels/{{c}}/{what}?limit=2&before={before}"):
            yield found
            if found == OFFLINE:
                away.federation.cut.clear()
            else:
                before = found[0]

    assert list(backwards()) == [[7, 8], [6], OFFLINE, [4, 5], [2, 3], [1]]


@pytest.mark.parametrize("what", ["", "?since=0", "?limit=1"])
def test_an_empty_mirror_does_not_say_that_the_channel_is_empty(what: str) -> None:
    shared = joined(posted_before=2)
    shared.federation.cut.add(frozenset({NORTH, SOUTH}))
    assert page(shared, f"/channels/{{c}}/events{what}") == OFFLINE


def test_a_channel_that_is_here_from_its_beginning_is_read_to_its_end() -> None:
    shared = joined(posted_before=0)
    shared.federation.cut.add(frozenset({NORTH, SOUTH}))
    for what in ("events", "events?since=0", "events?before=9", "messages", "messages?after=0", "messages?around=1"):
        assert page(shared, f"/channels/{{c}}/{what}") == []


def test_a_message_that_only_the_owner_may_have_is_not_said_to_be_missing(away: Shared) -> None:
    path = f"/channels/{away.channel}/messages"
    above = away.south.ask_for(away.bob, "GET", path)[0]["event_id"]
    below = away.north.ask_for(away.alice, "GET", path)[0]["event_id"]
    for found in (f"{path}/{above}", f"{path}/{above}/versions"):
        assert away.south.ask("GET", found, token=away.bob).status == 200
    for missing in (f"{path}/{below}", f"{path}/{below}/versions"):
        assert error(away.south.ask("GET", missing, token=away.bob)) == OFFLINE


def test_an_owner_in_another_epoch_is_away_for_older_pages(away: Shared) -> None:
    away.federation.cut.clear()
    record = away.north.tables._state.channels[away.channel]
    record.record = type(record.record)(
        away.channel, away.guild, "general", record.record.created_at_ms, None, record.record.position, 7
    )
    assert page(away, "/channels/{c}/events") == ABOVE
    assert page(away, "/channels/{c}/events?since=0") == page(away, "/channels/{c}/messages?before=6") == OFFLINE


def test_pins_that_only_the_owner_knows_are_not_said_to_be_none(away: Shared) -> None:
    assert page(away, "/channels/{c}/pins") == OFFLINE
    away.federation.cut.clear()
    path = f"/channels/{away.channel}"
    for message in away.north.ask_for(away.alice, "GET", f"{path}/messages")[::4]:
        away.north.ask_for(away.alice, "PUT", f"{path}/pins/{message['event_id']}")
    away.level()
    assert page(away, "/channels/{c}/pins") == [5, 1]
    made = away.north.ask_for(away.alice, "POST", f"/guilds/{away.guild}/channels", {"name": "here from its beginning"})
    away.level()
    away.federation.cut.add(frozenset({NORTH, SOUTH}))
    assert page(away, "/channels/{c}/pins") == OFFLINE
    assert page(away, f"/channels/{made['channel_id']}/pins") == []
