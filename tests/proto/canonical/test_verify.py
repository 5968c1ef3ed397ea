"""Verifying events as clients get them, whole and redacted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.canonical.event import BuiltEvent, base58, base58_decode, build_event
from openguild_proto.canonical.keys import EventSigner, encode_unpadded, parse_public
from openguild_proto.canonical.redaction import redacted_wire
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.canonical.verify import UnverifiedEvent, Verified, verify_event
from openguild_proto.errors import LocalProtocolError

KEY = SigningKey(bytes(range(32)))
KEYS = {"example.org": {"ed25519:main": KEY.public}}
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def built(text: str = "hello", event_type: str = "message", **members: str) -> BuiltEvent:
    return build_event(
        server_name="example.org", room_id="c", event_type=event_type, sender="u", content={"content": text, **members},
        origin_ts_ms=1, signer=EventSigner("example.org", "main", KEY),
    )  # fmt: skip


@given(texts)
def test_every_event_verifies_and_still_does_when_redacted(text: str) -> None:
    event = built(text)
    assert verify_event(event.wire, KEYS) is Verified.WHOLE
    redacted = redacted_wire(event.wire, "$by")
    assert verify_event(redacted, KEYS) is Verified.REDACTED
    assert redacted_wire(redacted, "$another") == redacted
    before, after = json.loads(event.wire), json.loads(redacted)
    assert after["content"] == {"content": "", "redacted_by": "$by"}
    assert {**before, "content": None} == {**after, "content": None}


def test_a_redacted_edit_says_of_which_message_it_was() -> None:
    redacted = redacted_wire(built("new text", "message.edited", target="$t").wire, "$by")
    assert json.loads(redacted)["content"] == {"content": "", "redacted_by": "$by", "target": "$t"}


@pytest.mark.parametrize("member", ["origin_ts", "sender", "room_id", "event_type", "origin_server"])
def test_a_changed_member_is_found(member: str) -> None:
    event = json.loads(built().wire)
    event[member] = 2 if member == "origin_ts" else "other"
    with pytest.raises(UnverifiedEvent):
        verify_event(json.dumps(event), KEYS)


def test_another_text_is_found() -> None:
    with pytest.raises(UnverifiedEvent, match="hash"):
        verify_event(built("hello").wire.replace(b"hello", b"jello"), KEYS)


def test_an_id_that_was_not_signed_is_found_in_a_redacted_event() -> None:
    redacted = redacted_wire(built("one").wire, "$by").decode()
    with pytest.raises(UnverifiedEvent, match="signed"):
        verify_event(redacted.replace(built("one").event_id, built("two").event_id), KEYS)


@pytest.mark.parametrize("keys", [{}, {"example.org": {}}, {"example.org": {"ed25519:main": bytes(32)}}])
def test_without_the_right_key_nothing_is_verified(keys: dict[str, dict[str, bytes]]) -> None:
    with pytest.raises(UnverifiedEvent, match="no known key"):
        verify_event(built().wire, keys)


def test_a_key_that_is_text_is_the_callers_fault() -> None:
    text: Any = encode_unpadded(KEY.public)
    with pytest.raises(LocalProtocolError, match="parse_public"):
        verify_event(built().wire, {"example.org": {"ed25519:main": text}})
    assert verify_event(built().wire, {"example.org": {"ed25519:main": parse_public(text)}}) is Verified.WHOLE


@pytest.mark.parametrize("wire", [b"", b"{}", b"[]", b'{"event_id": 1}', b"\xff"])
def test_what_is_no_event_is_said(wire: bytes) -> None:
    with pytest.raises(UnverifiedEvent, match="not an event"):
        verify_event(wire, KEYS)


@pytest.mark.parametrize("signature", ["é", "=", "", "AAAA"])
def test_a_signature_that_is_none_is_no_signature(signature: str) -> None:
    event = json.loads(built().wire)
    event["signatures"]["example.org"]["ed25519:main"] = signature
    with pytest.raises(UnverifiedEvent, match="no known key"):
        verify_event(json.dumps(event), KEYS)


@pytest.mark.parametrize(
    "content",
    [
        {"content": "I never wrote this", "redacted_by": "$by"},
        {"content": "", "redacted_by": ""},
        {"content": "", "redacted_by": "$by", "author": {"id": "victim"}},
    ],
)
def test_what_only_claims_to_be_redacted_is_compared(content: object) -> None:
    with pytest.raises(UnverifiedEvent, match="hash"):
        verify_event(json.dumps({**json.loads(built().wire), "content": content}), KEYS)


@pytest.mark.parametrize("change", [{"unsigned": {}}, {"event_id": "1"}])
def test_what_the_hash_does_not_cover_is_refused(change: dict[str, object]) -> None:
    redacted = json.loads(redacted_wire(built().wire, "$by"))
    with pytest.raises(UnverifiedEvent, match="not an event"):
        verify_event(json.dumps({**redacted, **change}), KEYS)


@pytest.mark.parametrize("member", ["schema_version", "prev_events", "auth_events", "signatures"])
def test_all_members_are_there(member: str) -> None:
    event = json.loads(built().wire)
    del event[member]
    with pytest.raises(UnverifiedEvent, match="not an event"):
        verify_event(json.dumps(event), KEYS)


@given(st.binary(min_size=32, max_size=32))
def test_base58_reads_back(raw: bytes) -> None:
    assert base58_decode(base58(raw), 32) == raw


@pytest.mark.parametrize("text", ["", "0", "z" * 45, base58(bytes(31)), base58(bytes(33))])
def test_other_base58_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"base58|substring"):
        base58_decode(text, 32)


@pytest.mark.parametrize(
    ("former", "repeated"),
    [
        ('"sender":"u"', '"sender":"another","sender":"u"'),
        ('"content":"hello"', '"content":"jello","content":"hello"'),
        ('"content":"hello"', '"c\\u006fntent":"jello","content":"hello"'),
        ('"ed25519:main":', '"ed25519:main":"","ed25519:main":'),
    ],
)
def test_an_event_with_two_readings_is_none(former: str, repeated: str) -> None:
    wire = built().wire.decode()
    assert former in wire
    with pytest.raises(UnverifiedEvent, match="a member is repeated"):
        verify_event(wire.replace(former, repeated, 1), KEYS)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_seed_of_another_length_is_refused_in_words(size: int) -> None:
    with pytest.raises(ValueError, match=f"a seed must have 32 bytes, not {size}"):
        SigningKey(bytes(size))
