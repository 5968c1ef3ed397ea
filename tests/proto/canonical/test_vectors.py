"""The golden vectors, and what the canonical form accepts (PROTOCOL 6.2 to 6.5)."""

from __future__ import annotations

import json
import math

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from openguild_proto.canonical.encode import CanonicalError, canonical_json, format_double
from openguild_proto.canonical.event import (
    CanonicalEvent,
    base58,
    build_event,
    canonical_bytes,
    event_hash,
    event_id,
)
from openguild_proto.canonical.keys import EventSigner, KeyFormatError, decode_unpadded, parse_public, parse_seed
from openguild_proto.canonical.signing import SigningKey, verify

SEED = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
PUBLIC = "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"
ALICE = "ec7c5138-ee1a-4112-95ef-e53514b670c2"
ROOM = "3b7f3e93-7c9c-47f5-91d3-cbf09dc5a8f6"
FIRST = CanonicalEvent(
    event_id="anything", origin_server="api.openguild.test", room_id=ROOM, event_type="message", sender=ALICE,
    origin_ts=1749681600000, content={"content": "hello world"}, signatures={"x": {"y": "z"}},
)  # fmt: skip
VECTORS = [
    (
        FIRST,
        "d941156bc029adf723051fd0654709604ba3e689adc3810a4344d11eac19e5c1",
        "$Fd52nS3GV8rox5VuXWaWURJV9ZDsCFEV67f9LLwkb46t",
        "OwmuH4DdjfJ0tIsA8IVAZVUz6lYOpjNQusSsjzXo7G1amqVMPyPgL264AZkoWSJ8mrYVij1Ei1U2haZRpjxGBg==",
    ),
    (
        msgspec.structs.replace(
            FIRST,
            content={
                "content": 'héllo "q" \\ / \n\t\x01\x7f \U0001f600',
                "author": {"username": "alice", "id": ALICE},
            },
        ),
        "07e68ef4f4de38d23d607726ab4588dc3ec639e4f02c9ed0f22987989aed07fa",
        "$Xqm8kUvG7vv7sEm9vdYZzMp8L6hFmrG8ERnNFDtEBSq",
        "BkdmlSkb/jRDFDQwQousEktTulGEHSEyTEiMBzEz3WLGGuQ7zixytv58LrvSgmbwhRLTyrBT3Xo/tGGSifcCAw==",
    ),
    (
        CanonicalEvent(
            event_id="", origin_server="remote.example.org", room_id=ROOM, event_type="m.room.message",
            sender="@remote:example.org", origin_ts=0, content=None, prev_events=("$a", "$b"), auth_events=("$c",),
        ),
        "f6a028e22b2e27a66e535f9e1d56315a0ade7ac6d592cdf832b5aa9bad3bebc7",
        "$HbiwW9uHfhp89M2DEFrRsitKJm9erLRTqBCCbWAWKeTp",
        "yBYQRdG8Ynv+lLWJ9SI2gaqUyVK2l8ydpktBrRv8tfY/2VjG0Lshr6kD7KAfFESocATbrcu67sNckedlQJroAA==",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("event", "hashed", "identifier", "signature"), VECTORS, ids=["plain", "escapes", "remote"])
def test_golden_vectors(event: CanonicalEvent, hashed: str, identifier: str, signature: str) -> None:
    digest = event_hash(canonical_bytes(event))
    assert digest.hex() == hashed
    assert event_id(digest) == identifier
    signer = EventSigner("api.openguild.test", "1", parse_seed(SEED))
    assert signer.sign(digest) == {"api.openguild.test": {"ed25519:1": signature}}


def test_golden_bytes() -> None:
    assert canonical_bytes(FIRST) == (
        b'{"schema_version":1,"event_id":"","origin_server":"api.openguild.test","room_id":"3b7f3e93-7c9c-47f5-91d3-cbf09dc5a8f6",'
        b'"event_type":"message","sender":"ec7c5138-ee1a-4112-95ef-e53514b670c2","origin_ts":1749681600000,'
        b'"content":{"content":"hello world"},"prev_events":[],"auth_events":[],"signatures":{}}'
    )


@pytest.mark.parametrize("signed", [True, False])
def test_wire_bytes_verify(signed: bool) -> None:
    """Id and signature can be checked from the wire bytes alone (PROTOCOL 6.3)."""
    key = parse_seed(SEED)
    content = {"author": {"id": ALICE, "username": 'al"event_id":"ice'}, "content": "hi \x7f é", "nonce": "n"}
    built = build_event(
        server_name='quote"server', room_id=ROOM, event_type="message", sender=ALICE, content=content,
        origin_ts_ms=5, signer=EventSigner("srv", "k", key) if signed else None,
    )  # fmt: skip
    event = msgspec.json.decode(built.wire, type=CanonicalEvent)
    assert canonical_bytes(event) == built.canonical
    digest = event_hash(built.canonical)
    assert event.event_id == built.event_id == event_id(digest)
    if signed:
        signature = msgspec.json.decode(f'"{event.signatures["srv"]["ed25519:k"]}"', type=bytes)
        assert verify(key.public, digest, signature)
        assert not verify(key.public, digest[::-1], signature)
    else:
        assert event.signatures == {}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00001, "0.00001"), (1.0, "1.0"), (1000000000000000.0, "1000000000000000.0"), (1e16, "1e16"), (1.5e-7, "1.5e-7"),
        (-0.0, "-0.0"), (0.0, "0.0"), (1e-6, "1e-6"), (123456.789, "123456.789"), (-2.5, "-2.5"), (1.7976931348623157e308,
        "1.7976931348623157e308"), (5e-324, "5e-324"), (9999999999999998.0, "9999999999999998.0"), (0.1, "0.1"),
    ],
)  # fmt: skip
def test_doubles(value: float, text: str) -> None:
    assert format_double(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_doubles_round_trip_and_show_that_they_are_doubles(value: float) -> None:
    text = format_double(value)
    assert float(text) == value
    assert math.copysign(1, float(text)) == math.copysign(1, value)
    assert "." in text or "e" in text
    assert "+" not in text


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(JSON)
def test_canonical_json_is_json_with_sorted_keys(value: object) -> None:
    encoded = canonical_json(value)
    assert json.loads(encoded) == value
    assert encoded.decode() == json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


@pytest.mark.parametrize(
    "value", [2**53, -(2**53), 1.5, float("nan"), float("inf"), "\ud800", {"\udfff": 1}, {1: 2}, {1, 2}, b"bytes"]
)
def test_values_without_a_canonical_form_are_rejected(value: object) -> None:
    with pytest.raises(CanonicalError):
        canonical_json({"content": value})


def test_depth_is_bounded() -> None:
    value: object = 1
    for _ in range(200):
        value = [value]
    with pytest.raises(CanonicalError):
        canonical_json(value)


def test_numbers_of_other_servers() -> None:
    """Integers outside i64 and u64 become doubles (PROTOCOL 6.2.5)."""
    assert canonical_json([2**63, 2**64 - 1, -(2**63), 2**64], strict=False) == (
        b"[9223372036854775808,18446744073709551615,-9223372036854775808,1.8446744073709552e19]"
    )


def test_base58_keeps_leading_zeros() -> None:
    assert base58(b"\0\0\1") == "112"
    assert base58(b"") == ""


def test_keys() -> None:
    assert parse_seed(SEED).public == parse_public(PUBLIC)
    assert SEED not in repr(parse_seed(SEED))
    for bad in ("", SEED + "=", SEED[:-1], SEED.replace("A", "+", 1), "é" * 43, SEED[:-1] + "9"):
        with pytest.raises(KeyFormatError) as failure:
            parse_seed(bad)
        assert bad == "" or bad not in str(failure.value)
    with pytest.raises(ValueError):
        decode_unpadded("A")


def test_verification_is_strict() -> None:
    key = SigningKey(bytes(32))
    signature = key.sign(b"m")
    assert verify(key.public, b"m", signature)
    assert not verify(key.public, b"m", signature[:63])
    assert not verify(bytes(32), b"m", bytes(64)), "a small-order key signs nothing"
    order = 2**252 + 27742317777372353535851937790883648493
    malleated = signature[:32] + (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    assert not verify(key.public, b"m", malleated)


@pytest.mark.parametrize("origin_ts_ms", [1_700_000_000_000.0, '0,"x":1', None])
def test_a_time_that_is_no_integer_is_refused(origin_ts_ms: int) -> None:
    with pytest.raises((ValueError, TypeError)):
        build_event(
            server_name="a.test",
            room_id="r",
            event_type="message",
            sender="s",
            content={},
            origin_ts_ms=origin_ts_ms,
            signer=None,
        )
