"""An owner server that lies: what its mirrors take from it, and what they refuse (PROTOCOL 16.5, 16.8)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from openguild_proto.canonical.event import (
    CanonicalEvent,
    build_event,
    canonical_bytes,
    event_hash,
    event_id,
    wire_bytes,
)
from openguild_proto.effects.federation import AskPeer, PeerAnswer
from openguild_proto.effects.handovers import FindOwnership
from openguild_proto.effects.mirrors import REPEATED, FindMirrorHead, MirrorEvents, ReadSnapshot
from openguild_proto.errors import ErrorCode
from openguild_proto.federation.handovers import MOVE, MOVE_MS, signed_handover
from openguild_proto.limits import MAX_DECISION_BYTES, MAX_PAGE_ANSWER_BYTES, MAX_SHORT_ANSWER_BYTES
from openguild_proto.mirror_records import Handover, Snapshot
from openguild_proto.operations.owner_claims import snapshot_problem
from openguild_proto.operations.owners import refusal_of
from openguild_proto.schemas.between_servers import (
    DeliveredEvent,
    Delivery,
    DeliveryAnswer,
    LogDelivery,
    MirrorPosition,
    OwnerProof,
    ProposalAnswer,
    RemoteInvite,
    UserAnswer,
)
from tests.proto.operations.test_federated_guilds import NORTH, SOUTH, Shared, error, shared, user_id

__all__ = ["shared"]


def said(shared: Shared, event_type: str, content: dict[str, Any], *, sender: str, home: str = NORTH) -> str:
    """An event of the channel that only the owner has signed."""
    content = {"author": {"id": sender, "username": "x"}, **content, "nonce": "n"}
    north = shared.north
    return build_event(
        server_name=home, room_id=shared.channel, event_type=event_type, sender=sender, content=content,
        origin_ts_ms=north.wall_ms, signer=north.signer,
    ).wire.decode()  # fmt: skip


def told(shared: Shared, log_id: str, after: int, *events: str, at_ms: int | None = None) -> MirrorPosition:
    """What the south answers to these events."""
    at_ms = shared.north.wall_ms if at_ms is None else at_ms
    part = LogDelivery(log_id, shared.guild, 1, after, [DeliveredEvent(event, at_ms) for event in events])
    body = msgspec.json.encode(Delivery([part]))
    answer = shared.north.perform(AskPeer(SOUTH, "POST", "/federation/v1/deliveries", body))
    assert answer.status == 200, answer.body
    (place,) = msgspec.json.decode(answer.body, type=DeliveryAnswer).logs
    return place


FORGED: dict[str, dict[str, Any]] = {
    "message": {"content": "I owe alice money"},
    "message.edited": {"content": "I owe alice money"},
    "reaction.added": {"emoji": "\N{THUMBS UP SIGN}"},
    "reactions.cleared": {},
    "message.pinned": {},
}


@pytest.mark.parametrize("home", [NORTH, SOUTH], ids=["as one of its own", "as one of this server"])
@pytest.mark.parametrize("kind", FORGED)
def test_users_of_this_server_say_only_what_it_has_signed(shared: Shared, kind: str, home: str) -> None:
    (before,) = shared.messages(shared.north, shared.alice)
    content = FORGED[kind] if kind == "message" else {**FORGED[kind], "target": before["event_id"]}
    forged = said(shared, kind, content, sender=user_id(shared.south, shared.bob), home=home)
    assert told(shared, shared.channel, 1, forged).status == "refused"
    assert [message["content"] for message in shared.messages(shared.south, shared.bob)] == ["before"]
    true = said(shared, "message", {"content": "hello"}, sender=user_id(shared.north, shared.alice))
    assert told(shared, shared.channel, 1, true).sequence == 2


LONG = "x" * 65
NORTH_ID = "11111111-1111-4111-8111-111111111111"
CONTENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "a text without a bound": ("message", {"content": "x" * 4_001}),
    "a text with NUL": ("message", {"content": "a\0b"}),
    "an event without a bound": ("message", {"content": "hi", "more": "x" * 140_000}),
    "too many mentions": ("message", {"content": "hi", "mentions": {"users": [NORTH] * 51}}),
    "somebody mentioned twice": ("message", {"content": "hi", "mentions": {"users": [NORTH_ID] * 2}}),
    "a role mentioned twice": ("message", {"content": "hi", "mentions": {"roles": ["member"] * 2}}),
    "mentions of nobody": ("message", {"content": "hi", "mentions": {"users": ["nobody"]}}),
    "mentions of no role": ("message", {"content": "hi", "mentions": {"roles": ["a\0b"]}}),
    "a reply to nothing": ("message", {"content": "hi", "reply_to": "$\0"}),
    "an edit of nothing": ("message.edited", {"content": "hi", "target": "x" * 500}),
    "a reaction without a bound": ("reaction.added", {"emoji": "e" * 65, "target": "$1"}),
    "a clearing without a bound": ("reactions.cleared", {"emoji": "e" * 65, "target": "$1"}),
    "a clearing with a long reason": ("reactions.cleared", {"reason": "r" * 513, "target": "$1"}),
    "a type with NUL": ("mess\0age", {"content": "hi"}),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_events_that_cannot_be_kept(shared: Shared, case: str) -> None:
    forged = said(shared, *CONTENTS[case], sender=user_id(shared.north, shared.alice))
    place = told(shared, shared.channel, 1, forged)
    assert (place.status, place.sequence) == ("refused", 1)


@pytest.mark.parametrize("home", ["<b>", "A.test", ""])
def test_events_of_no_server(shared: Shared, home: str) -> None:
    forged = said(shared, "message", {"content": "hi"}, sender=user_id(shared.north, shared.alice), home=home)
    assert told(shared, shared.channel, 1, forged).status == "refused"


@pytest.mark.parametrize("at_ms", [-1, 2**62, 253_402_300_800_000])
def test_events_of_no_time(shared: Shared, at_ms: int) -> None:
    event = said(shared, "message", {"content": "hi"}, sender=user_id(shared.north, shared.alice))
    assert told(shared, shared.channel, 1, event, at_ms=at_ms).status == "refused"


def test_events_that_are_none(shared: Shared) -> None:
    event = said(shared, "message", {"content": "hi"}, sender=user_id(shared.north, shared.alice))
    for text in ("[" * 20_000, event.replace('"content":"hi"', '"content":' + "[" * 20_000 + "]" * 20_000), "{}"):
        assert told(shared, shared.channel, 1, text).status == "refused"
    assert told(shared, shared.channel, 2**63 - 1, event).status == "refused"


def test_events_are_in_the_form_in_which_they_can_be_redacted(shared: Shared) -> None:
    event = said(shared, "message", {"content": "hi"}, sender=user_id(shared.north, shared.alice))
    for text in (json.dumps(json.loads(event)), json.dumps(json.loads(event), sort_keys=True, separators=(",", ":"))):
        assert told(shared, shared.channel, 1, text).status == "refused"
    assert told(shared, shared.channel, 1, event).status == "ok"


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**40])
def test_numbers_are_those_that_every_encoding_has(shared: Shared, number: int) -> None:
    """MessagePack has no larger ones, and a feed in it could not go on behind the event."""
    sender = user_id(shared.north, shared.alice)
    canonical = canonical_bytes(
        CanonicalEvent(
            event_id="", origin_server=NORTH, room_id=shared.channel, event_type="message", sender=sender,
            origin_ts=shared.north.wall_ms,
            content={"author": {"id": sender, "username": "x"}, "content": "hi", "more": number},
        ),
        strict=False,
    )  # fmt: skip
    digest = event_hash(canonical)
    good = wire_bytes(canonical, event_id(digest), shared.north.signer.sign(digest)).decode()
    bad = re.sub('"more":[^}]*', f'"more":{number}', good)
    assert bad != good
    assert told(shared, shared.channel, 1, bad).status == "refused"
    assert told(shared, shared.channel, 1, good).status == "ok"


def test_versions_are_numbers_that_every_encoding_has(shared: Shared) -> None:
    sender = user_id(shared.north, shared.alice)
    canonical = canonical_bytes(
        CanonicalEvent(
            schema_version=2**64, event_id="", origin_server=NORTH, room_id=shared.channel, event_type="message",
            sender=sender, origin_ts=shared.north.wall_ms, content={},
        )
    )  # fmt: skip
    digest = event_hash(canonical)
    wire = wire_bytes(canonical, event_id(digest), shared.north.signer.sign(digest)).decode()
    assert told(shared, shared.channel, 1, wire).status == "refused"


def test_an_event_that_is_there_twice_is_refused(shared: Shared) -> None:
    """Before the store is asked: PostgreSQL would refuse the whole delivery."""
    event = said(shared, "message", {"content": "hi"}, sender=user_id(shared.north, shared.alice))
    asked = noted(shared, MirrorEvents)
    place = told(shared, shared.channel, 1, event, event)
    assert (place.status, place.sequence, place.reason, asked) == ("refused", 1, REPEATED, [])


@pytest.mark.parametrize("log_id", ["x", "a\0b", "{11111111-1111-4111-8111-111111111111}"])
def test_logs_without_an_id_are_not_looked_for(shared: Shared, log_id: str) -> None:
    looked_for = noted(shared, FindMirrorHead)
    assert told(shared, log_id, 0).status == "refused"
    assert log_id not in {effect.log_id for effect in looked_for}, "PostgreSQL takes it for no UUID"


def noted(shared: Shared, kind: type[Any]) -> list[Any]:
    """The effects of this kind that the south asks for from now on."""
    found: list[Any] = []
    perform = shared.south.perform

    def performed(effect: Any) -> Any:
        if isinstance(effect, kind):
            found.append(effect)
        return perform(effect)

    shared.south.perform = performed  # type: ignore[method-assign]  # of this one server
    return found


INVITES: dict[str, tuple[dict[str, Any], int]] = {
    "good": ({}, 200),
    "an end": ({"expires_at_ms": 2_000_000_000_000, "max_uses": 1}, 200),
    "an end beyond all": ({"expires_at_ms": 10**18}, 503),
    "an end before all": ({"expires_at_ms": -1}, 503),
    "a name without a bound": ({"guild_name": LONG}, 503),
    "a name that turns around": ({"guild_name": "safe\u202egpj.exe"}, 503),
    "fewer members than none": ({"member_count": -1}, 503),
    "more members than there are numbers": ({"member_count": 2**70}, 503),
    "fewer uses than none": ({"uses": -1}, 503),
    "never to be used": ({"max_uses": 0}, 503),
    "no guild": ({"guild_id": "x"}, 503),
    "nobody": ({"created_by": "\0"}, 503),
}


@pytest.mark.parametrize("case", INVITES)
def test_invites_that_cannot_be_shown(shared: Shared, case: str) -> None:
    members, status = INVITES[case]
    good = RemoteInvite(shared.guild, "far away", 2, user_id(shared.north, shared.alice))
    lie(shared, msgspec.structs.replace(good, **members))
    assert shared.south.ask("GET", f"/invites/code@{NORTH}", token=shared.bob).status == status


@pytest.mark.parametrize("code", ["..%2f..%2fguilds", "a%3fb", "a%20b", "a%0d%0ab", "%C3%A9", "x" * 65])
@pytest.mark.parametrize(("method", "what"), [("GET", ""), ("POST", "/accept")])
def test_another_server_is_asked_for_codes_only(shared: Shared, code: str, method: str, what: str) -> None:
    lie(shared, RemoteInvite(shared.guild, "far away", 2, user_id(shared.north, shared.alice)))
    assert shared.south.ask(method, f"/invites/{code}@{NORTH}{what}", token=shared.bob).status == 400


SOME_ID = "11111111-1111-4111-8111-111111111111"
GUILD_EVENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "a name without a bound": ("guild.updated", {"name": LONG}),
    "a name with NUL": ("guild.updated", {"name": "a\0b"}),
    "a name that turns around": ("guild.updated", {"name": "safe\u202egpj.exe"}),
    "a channel without an id": ("channel.created", {"channel_id": "x", "name": "made"}),
    "a channel far away": ("channel.created", {"channel_id": SOUTH, "name": "made", "position": 2**40}),
    "a serial below all": ("guild.successor_set", {"serial": -1}),
    "a role that there is not": ("member.role_set", {"user_id": "bob", "role": "god"}),
    "a ban with a name without a bound": ("member.banned", {"user_id": SOME_ID, "username": LONG}),
    "a ban with a reason without a bound": ("member.banned", {"user_id": SOME_ID, "reason": "r" * 513}),
    "a ban with a reason with NUL": ("member.banned", {"user_id": SOME_ID, "reason": "a\0b"}),
    "a ban of nobody": ("member.banned", {"user_id": "bob"}),
    "an end of a ban of nobody": ("member.unbanned", {"user_id": "a\0b"}),
    "a member of no server": (
        "member.joined", {"user_id": "11111111-1111-4111-8111-111111111111", "username": "x", "role": "member", "origin": "<b>"},
    ),
    "a member with a name without a bound": (
        "member.joined", {"user_id": "11111111-1111-4111-8111-111111111111", "username": LONG, "role": "member"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", GUILD_EVENTS)
def test_changes_of_a_guild_that_cannot_be_kept(shared: Shared, case: str) -> None:
    event_type, content = GUILD_EVENTS[case]
    head = told(shared, shared.guild, 0).sequence
    event = build_event(
        server_name=NORTH, room_id=shared.guild, event_type=event_type, sender=user_id(shared.north, shared.alice),
        content={**content, "place": {"epoch": 1, "sequence": head + 1}}, origin_ts_ms=shared.north.wall_ms,
        signer=shared.north.signer,
    )  # fmt: skip
    place = told(shared, shared.guild, head, event.wire.decode())
    assert (place.status, place.sequence) == ("refused", head)


def with_(path: str, value: Any) -> Callable[[Any], None]:
    *way, last = (int(name) if name.isdigit() else name for name in path.split("."))

    def change(snapshot: Any) -> None:
        for name in way:
            snapshot = snapshot[name]
        snapshot[last] = value

    return change


def doubled(snapshot: Any) -> None:
    snapshot["channels"] *= 2


def of_its_guild(snapshot: Any) -> None:
    snapshot["channels"][0]["channel_id"] = snapshot["guild_id"]


SNAPSHOTS = {
    "whole": (lambda snapshot: None, True),
    "a channel twice": (doubled, False),
    "a channel with the id of its guild": (of_its_guild, False),
    "a name without a bound": (with_("name", LONG), False),
    "a name with NUL": (with_("name", "a\0b"), False),
    "no epoch": (with_("epoch", 0), False),
    "no place": (with_("sequence", -1), False),
    "a place beyond all": (with_("channels.0.sequence", 2**63), False),
    "no chain": (with_("chain", "!"), False),
    "a chain of three bytes": (with_("channels.0.chain", "AAAA"), False),
    "a channel without an id": (with_("channels.0.channel_id", "x"), False),
    "a channel of no time": (with_("channels.0.created_at_ms", 2**60), False),
    "a channel far away": (with_("channels.0.position", 2**40), False),
    "a topic without a bound": (with_("channels.0.topic", "x" * 1_025), False),
    "fewer messages than none": (with_("channels.0.messages", -1), False),
    "a role that there is not": (with_("members.0.role", "god"), False),
    "a role of nobody": (with_("channels.0.roles", {"x": "member"}), False),
    "a member without an id": (with_("members.0.user_id", "x"), False),
    "a member who turns around": (with_("members.0.username", "bob\u202e"), False),
    "a member of no server": (with_("members.0.origin", "<b>"), False),
    "no term": (with_("term", 0), False),
    "a term beyond all": (with_("term", 2**64), False),
    "a serial below all": (with_("serial", -1), False),
    "a serial beyond all": (with_("serial", 2**63), False),
}


@pytest.mark.parametrize("case", SNAPSHOTS)
def test_snapshots_that_cannot_be_kept(shared: Shared, case: str) -> None:
    change, is_kept = SNAPSHOTS[case]
    snapshot = shared.north.perform(ReadSnapshot(peer=SOUTH, guild_id=shared.guild))
    given = msgspec.json.decode(msgspec.json.encode(snapshot))
    change(given)
    try:
        problem = snapshot_problem(msgspec.convert(given, Snapshot))
    except msgspec.ValidationError:
        problem = "not an integer"
    assert (problem is None) is is_kept


@pytest.mark.parametrize(("to", "status"), [("east.test", 204), ("a\0b", 404), ("east.test/x", 404), ("E.test", 404)])
def test_guilds_are_handed_over_to_servers_only(shared: Shared, to: str, status: int) -> None:
    north, wall_ms = shared.north, shared.north.wall_ms
    handover = signed_handover(Handover(MOVE, shared.guild, NORTH, to, 2, wall_ms, wall_ms + MOVE_MS), [north.signer])
    body = msgspec.json.encode(OwnerProof([handover]))
    assert north.perform(AskPeer(SOUTH, "POST", f"/federation/v1/guilds/{shared.guild}/owner", body)).status == status
    ownership = shared.south.perform(FindOwnership(guild_id=shared.guild))
    assert ownership is not None
    assert ownership.origin == (to if status == 204 else NORTH)


ANSWERS: dict[str, tuple[int, Any]] = {
    "no JSON": (200, "<script>"),
    "a body where there is none": (204, None),
    "another route's": (200, '{"a": 1}'),
    "nested": (200, "[" * 5_000),
    "empty": (200, ""),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_answers_of_another_route_are_none(shared: Shared, case: str) -> None:
    status, body = ANSWERS[case]
    lie(shared, UserAnswer(status, {}, body))
    path = f"/channels/{shared.channel}/messages"
    for lied_about in (path, f"{path}/$1/versions"):
        assert error(shared.south.ask("GET", lied_about, token=shared.bob)) == (503, "guild_offline")


@pytest.mark.parametrize(
    ("asked", "waits"), [(-(10**9), 0), (10**400, 3_600), (1_500, 1.5)], ids=["no", "ever", "soon"]
)
def test_refusals_of_owners_have_bounds(asked: int, waits: float) -> None:
    told = {"error": "message_rate_limit", "message": "x" * 5_000, "retry_after_ms": asked, "details": []}
    refusal = refusal_of(429, json.dumps(told).encode())
    assert (refusal.code, refusal.wait_secs) == (ErrorCode.MESSAGE_RATE_LIMIT, waits)
    assert refusal.message == ErrorCode.MESSAGE_RATE_LIMIT.spec.message


@pytest.mark.parametrize(
    "answer",
    [ProposalAnswer("$x\0"), ProposalAnswer("x" * 500), ProposalAnswer("$1", -1), ProposalAnswer("$1", 1, 2**62)],
)
def test_answers_to_posts_have_bounds(shared: Shared, answer: ProposalAnswer) -> None:
    lie(shared, answer)
    path = f"/channels/{shared.channel}/messages"
    assert shared.south.ask("POST", path, {"content": "hello"}, shared.bob).status == 503


def lie(shared: Shared, answer: msgspec.Struct) -> None:
    """Let the north answer this to all that the south asks of it from now on."""
    perform = shared.south.perform

    def performed(effect: Any) -> Any:
        return PeerAnswer(200, msgspec.json.encode(answer)) if isinstance(effect, AskPeer) else perform(effect)

    shared.south.perform = performed  # type: ignore[method-assign]  # of this one server


def test_an_owner_cannot_answer_with_more_than_a_route_has(shared: Shared) -> None:
    asked: list[AskPeer] = noted(shared, AskPeer)
    path = f"/channels/{shared.channel}/messages"
    shared.south.ask_for(shared.bob, "GET", path)
    shared.south.ask_for(shared.bob, "POST", path, {"content": "hello"})
    shared.south.ask_for(shared.bob, "GET", f"/invites/{shared.code}@{NORTH}")
    bounds = [effect.max_bytes for effect in asked]
    assert bounds == [MAX_PAGE_ANSWER_BYTES, MAX_DECISION_BYTES, MAX_SHORT_ANSWER_BYTES]
