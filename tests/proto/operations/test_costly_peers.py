"""What another server can let this one spend or keep for it (PROTOCOL 16.5.7, 16.6.3, 16.7.2, 16.8.14)."""

from __future__ import annotations

import base64
import json
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest

from openguild_proto.canonical.event import build_event
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.effects.federation import AskPeer
from openguild_proto.effects.mirrors import ReadSnapshot
from openguild_proto.effects.process import LetOthersRun
from openguild_proto.errors import ErrorCode
from openguild_proto.limits import (
    EVENTS_OF_TURN,
    MAX_DELIVERIES_OF_SERVER,
    MAX_EVENT_VALUES,
    MAX_MIRRORED_ROLES,
    MAX_SHORT_ANSWER_BYTES,
    MAX_SNAPSHOTS_OF_GUILD,
)
from openguild_proto.mirror_records import RemoteUser, Snapshot
from openguild_proto.operations.context import rates
from openguild_proto.operations.owner_claims import form_problem, snapshot_problem
from openguild_proto.operations.owners import refusal_of, seen_from
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.schemas.between_servers import Delivery, Proposal, UserAnswer
from openguild_proto.schemas.events import parse_event
from openguild_proto.schemas.guilds import Channel
from tests.proto.operations.test_federated_guilds import NORTH, SOUTH, Shared, shared, user_id
from tests.proto.operations.test_lying_owners import lie, said, told

__all__ = ["shared"]

GOOD = base64.b64encode(SigningKey(b"g" * 32).sign(b"something else")).decode()
SIGNED: dict[str, dict[str, dict[str, str]]] = {
    "a text as a key": {NORTH: {"hidden abuse": GOOD}},
    "a text as a signature": {NORTH: {"ed25519:9": "hidden abuse"}},
    "a long text as a signature": {NORTH: {"ed25519:9": "A" * 4_000}},
    "a signature in another form": {NORTH: {"ed25519:9": GOOD[:-3] + chr(ord(GOOD[-3]) + 1) + "=="}},
    "a text as a server": {"hidden abuse": {"ed25519:9": GOOD}},
    "many of one server": {NORTH: {f"ed25519:{number}": GOOD for number in range(4, 8)}},
    "of many servers": {f"{number}.test": {"ed25519:9": GOOD} for number in range(4)},
}


def with_signatures(wire: str, more: dict[str, dict[str, str]]) -> str:
    event = json.loads(wire)
    for server, by_key in more.items():
        event["signatures"][server] = {**by_key, **event["signatures"].get(server, {})}
    return json.dumps(event, separators=(",", ":"))


@pytest.mark.parametrize("case", SIGNED)
def test_signatures_hold_nothing_but_signatures(shared: Shared, case: str) -> None:
    good = said(shared, "message", {"content": "hi"}, sender=user_id(shared.north, shared.alice))
    assert told(shared, shared.channel, 1, with_signatures(good, SIGNED[case])).status == "refused"
    assert told(shared, shared.channel, 1, with_signatures(good, {NORTH: {"ed25519:9": GOOD}})).status == "ok"


def test_signatures_are_counted_before_they_are_verified(shared: Shared) -> None:
    """A server may have 64 keys, and a delivery 200 events: to verify all would take seconds."""
    event = json.loads(said(shared, "message", {"content": "hi"}, sender=user_id(shared.north, shared.alice)))
    event["signatures"] = {NORTH: {f"ed25519:{number}": GOOD for number in range(60)}}
    assert told(shared, shared.channel, 1, json.dumps(event)).reason == "it has too many signatures"


def proposed(shared: Shared, text: str, more: dict[str, dict[str, str]]) -> tuple[int, str]:
    """The status of the north's answer to a message of bob, which has these signatures, too, and the event's id."""
    bob, south = user_id(shared.south, shared.bob), shared.south
    built = build_event(
        server_name=SOUTH, room_id=shared.channel, event_type="message", sender=bob,
        content={"author": {"id": bob, "username": "bob"}, "content": text, "nonce": text},
        origin_ts_ms=south.wall_ms, signer=south.signer,
    )  # fmt: skip
    body = msgspec.json.encode(Proposal(RemoteUser(bob, "bob"), with_signatures(built.wire.decode(), more), text))
    answer = south.perform(AskPeer(NORTH, "POST", f"/federation/v1/logs/{shared.channel}/proposals", body))
    return answer.status, built.event_id


def test_an_owner_keeps_only_signatures_that_it_has_verified(shared: Shared) -> None:
    """Redactions leave signatures: a text in their place would stay for ever."""
    more = {SOUTH: {"ed25519:9": GOOD}, "x.test": {"ed25519:1": GOOD}}
    status, event_id = proposed(shared, "hello", more)
    assert status == 200
    lines = shared.north.ask_for(shared.alice, "GET", f"/channels/{shared.channel}/events")
    (kept,) = [line["event"]["signatures"] for line in lines if line["event"]["event_id"] == event_id]
    assert kept.keys() == {NORTH, SOUTH}
    assert GOOD not in kept[SOUTH].values()
    assert len(kept[SOUTH]) == 1
    for number, case in enumerate(SIGNED):
        more = {SOUTH if server == NORTH else server: by_key for server, by_key in SIGNED[case].items()}
        assert proposed(shared, f"again {number}", more)[0] == 400, case


VALUES: dict[str, Any] = {
    "a list": [0] * MAX_EVENT_VALUES,
    "lists": [[]] * MAX_EVENT_VALUES,
    "an object": {str(number): 0 for number in range(MAX_EVENT_VALUES)},
    "far inside": {"a": [{"b": [[0] * MAX_EVENT_VALUES]}]},
}


@pytest.mark.parametrize("case", VALUES)
def test_events_of_many_values_are_not_encoded_again(shared: Shared, case: str) -> None:
    """To verify an event is to encode its values, which takes seconds for some hundred thousand of them."""
    sender = user_id(shared.north, shared.alice)
    heavy = said(shared, "message", {"content": "hi", "more": VALUES[case]}, sender=sender)
    assert told(shared, shared.channel, 1, heavy).reason == f"it has more than {MAX_EVENT_VALUES} values"
    many_before = json.loads(heavy) | {"content": {}, "prev_events": ["$1"] * (MAX_EVENT_VALUES + 1)}
    assert form_problem(parse_event(json.dumps(many_before))) is not None


def test_the_largest_events_of_users_have_few_values(shared: Shared) -> None:
    mentions = {"users": [user_id(shared.north, shared.alice)] * 50, "roles": ["member"] * 6, "everyone": True}
    sender = user_id(shared.north, shared.alice)
    large = said(shared, "message", {"content": "," * 4_000, "reply_to": "$1", "mentions": mentions}, sender=sender)
    assert form_problem(parse_event(large)) is None


def test_an_event_is_measured_before_it_is_parsed(shared: Shared) -> None:
    assert told(shared, shared.channel, 1, "[" * 140_000).reason == "it is too large"


def test_a_guild_of_too_many_roles_in_channels_is_not_mirrored(shared: Shared) -> None:
    snapshot = shared.north.perform(ReadSnapshot(peer=SOUTH, guild_id=shared.guild))
    given = msgspec.json.decode(msgspec.json.encode(snapshot))
    roles = {f"11111111-1111-4111-8111-{number:012x}": "member" for number in range(MAX_MIRRORED_ROLES + 1)}
    given["channels"][0]["roles"] = roles
    assert snapshot_problem(msgspec.convert(given, Snapshot)) == f"more than {MAX_MIRRORED_ROLES} roles in channels"
    roles.popitem()
    assert snapshot_problem(msgspec.convert(given, Snapshot)) is None


def test_members_that_a_route_does_not_have_are_not_passed_on(shared: Shared) -> None:
    """Nothing is built of them: eight megabytes of empty lists would stop the loop for seconds."""
    channel = shared.north.ask_for(shared.alice, "GET", f"/channels/{shared.channel}")
    body = json.dumps({**channel, "junk": [[]]})
    member = f"/guilds/{shared.guild}/members/{user_id(shared.south, shared.bob)}"
    shared.north.ask_for(shared.alice, "PUT", member, {"role": "admin"})
    shared.level()
    lie(shared, UserAnswer(200, {}, body))
    answer = shared.south.ask("PATCH", f"/channels/{shared.channel}", {"name": "general"}, shared.bob)
    assert answer.status == 200
    assert "junk" not in json.loads(answer.body)


@pytest.mark.parametrize(("origin", "seen"), [(None, NORTH), (NORTH, NORTH), (SOUTH, None), ("east.test", "east.test")])
def test_origins_are_as_this_server_sees_them(shared: Shared, origin: str | None, seen: str | None) -> None:
    line = shared.north.ask_for(shared.alice, "GET", f"/channels/{shared.channel}")
    line |= {"origin": origin} if origin is not None else {}
    for body, shown in ((line, Channel), ([line], list[Channel])):
        found = json.loads(seen_from(SOUTH, json.dumps(body).encode(), NORTH, shown))
        assert (found[0] if isinstance(found, list) else found).get("origin") == seen


def test_a_refusal_without_a_bound_is_none() -> None:
    told = {"error": "forbidden", "message": "no", "details": [{"field": "", "message": ""}] * MAX_SHORT_ANSWER_BYTES}
    assert refusal_of(403, json.dumps(told).encode()).code is ErrorCode.GUILD_OFFLINE


def test_few_deliveries_of_a_server_are_taken_at_a_time(shared: Shared) -> None:
    """The sender is asked while one is taken, and may answer slowly: each holds a body of up to 2 MiB for so long."""
    empty = msgspec.json.encode(Delivery())

    def deliver(server: str) -> int:
        asked = AskPeer(SOUTH, "POST", "/federation/v1/deliveries", empty)
        return shared.federation[server].perform(asked).status

    with ExitStack() as slow:
        for _ in range(MAX_DELIVERIES_OF_SERVER):
            assert deliver(NORTH) == 200
            slow.enter_context(shared.south.service.deliveries.slot(NORTH, shared.south.wall_ms / 1000))
        assert deliver(NORTH) == 503
        assert deliver("east.test") == 200
    assert deliver(NORTH) == 200


def test_a_long_delivery_is_verified_in_turns(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 events take 30 ms and more, in which nobody else is served."""
    for number in range(3 * EVENTS_OF_TURN):
        shared.north.ask_for(shared.alice, "POST", f"/channels/{shared.channel}/messages", {"content": str(number)})
    effects: list[type[Any]] = []
    perform = shared.south.perform
    monkeypatch.setattr(shared.south, "perform", lambda effect: (effects.append(type(effect)), perform(effect))[1])
    shared.level()
    assert effects.count(LetOthersRun) == 3
    assert len(shared.messages(shared.south, shared.bob)) >= 3 * EVENTS_OF_TURN, "all of it is there"


def test_a_server_gets_few_snapshots_of_a_guild_in_a_minute(shared: Shared) -> None:
    """Each costs as much as all its members; a mirror begins anew once a minute at most, and its users may join at once."""
    north, south = shared.north, shared.south
    north.service.peer_snapshots = SlidingWindow(*rates(north.service.settings)["peer_snapshots"])
    joining = {"user": RemoteUser(user_id(south, south.user("carol")), "carol")}
    snapshot = AskPeer(NORTH, "GET", f"/federation/v1/guilds/{shared.guild}/snapshot")
    join = AskPeer(NORTH, "POST", f"/federation/v1/invites/{shared.code}/join", msgspec.json.encode(joining))
    mirrored = AskPeer(join.server, join.method, join.target, msgspec.json.encode({**joining, "has_mirror": True}))
    assert [south.perform(join).status for _ in range(2)] == [200, 200]
    assert {south.perform(snapshot).status for _ in range(MAX_SNAPSHOTS_OF_GUILD - 2)} == {200}
    assert [south.perform(asked).status for asked in (snapshot, join, mirrored)] == [429, 429, 200]
