"""Pages that a mirror reads at the owner: whoever goes on from one at the mirror finds their place there (PROTOCOL 16.7.4)."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from msgspec.structs import replace

from openguild_proto.http.message import Response
from tests.proto.operations.test_federated_guilds import Shared, error, shared, turn_off
from tests.support.world import decoded

__all__ = ["shared"]

POSTED = 3  # by the north, after what the south has


@pytest.fixture
def ahead(shared: Shared) -> Shared:
    """The south has one message that is there before the mirror, and one behind it, of the north's five."""
    post(shared, "brought")
    shared.level()
    for number in range(POSTED):
        post(shared, f"under way {number}")
    return shared


def post(shared: Shared, text: str) -> str:
    path = f"/channels/{shared.channel}/messages"
    return str(shared.north.ask_for(shared.alice, "POST", path, {"content": text})["event_id"])


def ask(shared: Shared, what: str) -> tuple[Response, list[Any]]:
    answer = shared.south.ask("GET", f"/channels/{shared.channel}/{what}", token=shared.bob)
    assert answer.status == 200, answer.body
    return answer, decoded(answer)


def texts(shared: Shared, what: str) -> list[str]:
    return [
        line["content"] if "content" in line else line["event"]["content"]["content"] for line in ask(shared, what)[1]
    ]


@pytest.mark.parametrize("query", ["", "?limit=2", "?after=0", "?before=9", "?around=1", "?around=9"])
def test_pages_of_messages_end_where_the_mirror_stands(ahead: Shared, query: str) -> None:
    answer, lines = ask(ahead, f"messages{query}")
    assert [line["content"] for line in lines] == ["before", "brought"]
    headers = dict(answer.headers)
    assert headers["x-openguild-head"] == "2"
    position = f"since={headers['x-openguild-head']}&epoch={headers['x-openguild-epoch']}"
    assert texts(ahead, f"events?{position}") == []
    ahead.level()
    assert texts(ahead, f"events?{position}") == [f"under way {number}" for number in range(POSTED)]


@pytest.mark.parametrize("query", ["", "?since=0", "?since=0&epoch=1", "?before=9", "?before=3&limit=2"])
def test_pages_of_events_end_where_the_mirror_stands(ahead: Shared, query: str) -> None:
    _, lines = ask(ahead, f"events{query}")
    assert [line["sequence"] for line in lines] == [1, 2]
    assert texts(ahead, "events?since=2") == []


def test_pages_below_are_the_owners(ahead: Shared) -> None:
    assert texts(ahead, "messages?before=2") == ["before"]
    assert texts(ahead, "messages?after=0&limit=1") == ["before"]
    assert texts(ahead, "events?before=2") == ["before"]


def test_pages_of_a_guilds_log_end_where_the_mirror_stands(shared: Shared) -> None:
    south, path = shared.south, f"/guilds/{shared.guild}/log"
    head = int(dict(south.ask("GET", path, token=shared.bob).headers)["x-openguild-head"])
    shared.north.ask_for(shared.alice, "POST", f"/guilds/{shared.guild}/channels", {"name": "new"})
    for query in ("", "?since=0", "?before=99"):
        answer = south.ask("GET", f"{path}{query}", token=shared.bob)
        assert [line["sequence"] for line in decoded(answer)] == list(range(1, head + 1))
        assert dict(answer.headers)["x-openguild-head"] == str(head)
    assert south.ask("GET", f"{path}?since={head}", token=shared.bob).status == 200


def test_pins_end_where_the_mirror_stands(ahead: Shared) -> None:
    late = post(ahead, "pinned")
    first = ask(ahead, "messages?limit=1&after=0")[1][0]["event_id"]
    for event_id in (first, late):
        ahead.north.ask_for(ahead.alice, "PUT", f"/channels/{ahead.channel}/pins/{event_id}")
    answer, lines = ask(ahead, "pins")
    assert [line["event_id"] for line in lines] == [first]
    assert dict(answer.headers)["x-openguild-head"] == "2"


def test_a_page_of_another_epoch_is_not_mixed_with_what_is_here(ahead: Shared) -> None:
    ahead.north.tables._state.channels[ahead.channel].record = _in_epoch(ahead, 7)
    answer, lines = ask(ahead, "messages")
    assert ([line["content"] for line in lines], dict(answer.headers)["x-openguild-epoch"]) == (["brought"], "1")
    gone = ahead.south.ask("GET", f"/channels/{ahead.channel}/events?since=9", token=ahead.bob)
    assert error(gone) == (400, "invalid_since")


def test_where_federation_is_off_no_page_seems_to_be_the_end(ahead: Shared) -> None:
    turn_off(ahead.south)
    assert texts(ahead, "messages") == ["brought"]
    refused = ahead.south.ask("GET", f"/channels/{ahead.channel}/messages?before=2", token=ahead.bob)
    assert error(refused) == (501, "not_implemented")


def _in_epoch(shared: Shared, epoch: int) -> Any:
    record = shared.north.tables._state.channels[shared.channel].record
    return type(record)(
        record.channel_id, record.guild_id, record.name, record.created_at_ms, record.topic, record.position, epoch
    )


@pytest.mark.parametrize("what", ["pins", "messages?before=1", "events?before=1"])
def test_reads_at_the_owner_are_counted_of_each_user(ahead: Shared, what: str) -> None:
    service = ahead.south.service
    federation = service.settings.federation
    budgets = dataclasses.replace(federation.budgets, max_owner_reads_per_user_per_window=2)
    service.apply(replace(service.settings, federation=replace(federation, budgets=budgets)))
    for _ in range(2):
        ask(ahead, what)
    refused = ahead.south.ask("GET", f"/channels/{ahead.channel}/{what}", token=ahead.bob)
    assert error(refused) == (429, "owner_read_rate_limit")
    assert int(dict(refused.headers)["retry-after"]) >= 1
    assert texts(ahead, "events?since=1") == ["brought"], "what is here is read as before"
