"""Which key verifies what, and which keys document is believed."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.canonical.keys import EventSigner
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.effects.federation import PublishedKey
from openguild_proto.federation.faults import KeysFault
from openguild_proto.federation.keys import (
    DAY_MS,
    MAX_AHEAD_MS,
    OVERLAP_MS,
    TOLERANCE_MS,
    event_keys,
    pinned_key,
    read_keys_document,
    revocation_ms,
    with_pinned,
    write_keys_document,
)

NOW = 1_800_000_000_000
OLD, NEW = SigningKey(b"o" * 32), SigningKey(b"n" * 32)
OLD_SIGNER, NEW_SIGNER = EventSigner("a.example", "old", OLD), EventSigner("a.example", "new", NEW)
OLD_KEY = PublishedKey("old", OLD.public, NOW - 90 * DAY_MS, NOW + DAY_MS)
NEW_KEY = PublishedKey("new", NEW.public, NOW - DAY_MS, NOW + 7 * DAY_MS)
BOTH = (NEW_KEY, OLD_KEY)


def document(*keys: PublishedKey, signers: tuple[EventSigner, ...] = (NEW_SIGNER,)) -> bytes:
    return msgspec.json.encode(write_keys_document("a.example", keys, signers))


def read(body: bytes, **more: Any) -> tuple[PublishedKey, ...]:
    return read_keys_document("a.example", body, now_ms=NOW, **more)


def test_a_document_is_read_as_it_was_written() -> None:
    assert read(document(*BOTH)) == BOTH
    assert read(document(*BOTH, signers=(NEW_SIGNER, OLD_SIGNER))) == BOTH


def test_a_key_that_is_listed_no_more_stays() -> None:
    assert read(document(NEW_KEY), known=BOTH) == BOTH


def test_a_revoked_key_stays_revoked() -> None:
    revoked = msgspec.structs.replace(OLD_KEY, revoked_at=NOW - 5)
    assert read(document(*BOTH), known=(revoked,)) == (NEW_KEY, revoked)
    assert read(document(NEW_KEY, revoked), known=BOTH) == (NEW_KEY, revoked)


def test_a_life_that_is_promised_is_bounded() -> None:
    (key,) = read(document(msgspec.structs.replace(NEW_KEY, not_after=NOW * 2)))
    assert key.not_after == NOW + MAX_AHEAD_MS


STRANGER = EventSigner("a.example", "new", SigningKey(b"s" * 32))
REVOKED_NEW = msgspec.structs.replace(NEW_KEY, revoked_at=1)
EXPIRED_NEW = msgspec.structs.replace(NEW_KEY, not_after=NOW - 1)


@pytest.mark.parametrize(
    ("body", "more", "text"),
    [
        (b"", {}, "the document is invalid"),
        (b"[]", {}, "the document is invalid"),
        (b"[" * 5_000, {}, "the document is invalid"),
        (b'{"server":"\xff"}', {}, "the document is invalid"),
        (b" " * 70_000, {}, "too large"),
        (document(), {}, "not made with a key"),
        (document(NEW_KEY, signers=()), {}, "no valid key"),
        (document(NEW_KEY, signers=(STRANGER,)), {}, "not made with a key"),
        (document(NEW_KEY, signers=(NEW_SIGNER, OLD_SIGNER)), {}, "not made with a key"),
        (document(NEW_KEY, NEW_KEY), {}, "two keys"),
        (document(REVOKED_NEW), {}, "no valid key"),
        (document(EXPIRED_NEW), {}, "no valid key"),
        (document(NEW_KEY), {"known": (PublishedKey("new", OLD.public, 0, 1),)}, "has changed"),
        (document(NEW_KEY), {"pinned": (pinned_key("old", OLD.public),)}, "no pinned key"),
        (document(NEW_KEY), {"pinned": (pinned_key("new", OLD.public),)}, "no pinned key"),
        (document(NEW_KEY), {"known": [PublishedKey(str(n), OLD.public, 0, 1) for n in range(200)]}, "more than 200"),
        (document(NEW_KEY).replace(b'Z"', b'"', 1), {}, "RFC 3339"),
        (document(NEW_KEY).replace(b'"new","public', b'"n w","public'), {}, "the document is invalid"),
        (document(NEW_KEY).replace(b'{"new":"', b'{"new":"?'), {}, "not base64"),
        (document(NEW_KEY).replace(b"a.example", b"b.example"), {}, "another server"),
    ],
    ids=range(20),
)
def test_documents_that_are_not_believed(body: bytes, more: dict[str, Any], text: str) -> None:
    with pytest.raises(KeysFault, match=text):
        read(body, **more)


def test_a_pinned_key_endorses_its_successor() -> None:
    pinned = (pinned_key("old", OLD.public),)
    assert read(document(*BOTH, signers=(NEW_SIGNER, OLD_SIGNER)), pinned=pinned) == BOTH


@given(st.integers(0, 400), st.sampled_from([0x00, 0x20, 0x22, 0x30, 0x41]))
def test_no_byte_of_a_document_can_be_changed(place: int, byte: int) -> None:
    body = bytearray(document(*BOTH))
    place %= len(body)
    if body[place] == byte:
        return
    body[place] = byte
    try:
        found = read(bytes(body))
    except KeysFault:
        return
    assert found == BOTH  # the name of an unknown member, say


def test_keys_of_an_event_are_those_of_its_time() -> None:
    assert event_keys(BOTH, NOW) == {"ed25519:new": NEW.public, "ed25519:old": OLD.public}
    assert set(event_keys(BOTH, OLD_KEY.not_after + TOLERANCE_MS + 1)) == {"ed25519:new"}
    revoked = msgspec.structs.replace(OLD_KEY, revoked_at=NOW - 5)
    assert set(event_keys((revoked,), NOW - 6)) == {"ed25519:old"}
    assert event_keys((revoked,), NOW - 5) == {}


def test_a_key_verifies_events_from_before_it_began() -> None:
    """Of a server whose clock was ahead when it took the key, and was set back."""
    assert "ed25519:new" in event_keys(BOTH, NEW_KEY.not_before - TOLERANCE_MS - 1)


def test_what_a_key_signed_before_it_was_revoked_stays_verified() -> None:
    """Also where the clock was ahead at the key's last use, and was set back before it was revoked."""
    last_use = OLD_KEY.not_after - OVERLAP_MS
    for now_ms in (last_use - 600_000, last_use, last_use + 5):
        revoked = msgspec.structs.replace(OLD_KEY, revoked_at=revocation_ms(OLD_KEY, now_ms))
        assert set(event_keys((revoked,), last_use)) == {"ed25519:old"}
        assert event_keys((revoked,), max(last_use, now_ms) + 1) == {}


def test_a_pinned_key_counts_beside_the_known_ones() -> None:
    pin = pinned_key("old", OLD.public)
    assert set(with_pinned((NEW_KEY,), (pin,))) == {NEW_KEY, pin}
    assert with_pinned((OLD_KEY,), (pin,)) == (pin,)
    assert with_pinned((PublishedKey("old", NEW.public, 0, 1, revoked_at=1),), (pin,)) == (pin,)
    revoked = msgspec.structs.replace(OLD_KEY, revoked_at=1)
    assert with_pinned((revoked,), (pin,)) == (revoked,)


def test_signatures_are_base64_of_64_bytes() -> None:
    found = write_keys_document("a.example", BOTH, (NEW_SIGNER,))
    assert {name: len(base64.b64decode(text)) for name, text in found.signatures.items()} == {"new": 64}
