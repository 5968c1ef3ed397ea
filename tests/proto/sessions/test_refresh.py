"""Decisions about refresh tokens, and the rules for names and passwords (PROTOCOL 4.6, 1.3, 4.1.2)."""

from __future__ import annotations

import pytest

from openguild_proto.sessions.passwords import normalise_username, password_problems, username_problems
from openguild_proto.sessions.refresh import (
    Rotation,
    decide_rotation,
    hash_refresh_token,
    new_refresh_token,
    next_refresh_token,
)

CURRENT, PREVIOUS, OLDER = b"c", b"p", b"o"


def decide(presented: bytes, **changes: object) -> Rotation:
    family = {
        "current": CURRENT, "previous": PREVIOUS, "rotated_at_ms": 1_000, "revoked": False, "expires_at_ms": 100_000,
        "now_ms": 5_000, "grace_ms": 10_000,
    }  # fmt: skip
    return decide_rotation(presented=presented, **(family | changes))  # type: ignore[arg-type]  # a table of changes


@pytest.mark.parametrize(
    ("presented", "changes", "expected"),
    [
        (CURRENT, {}, Rotation.ROTATE),
        (PREVIOUS, {}, Rotation.GRACE),
        (PREVIOUS, {"now_ms": 11_000}, Rotation.GRACE),
        (PREVIOUS, {"now_ms": 11_001}, Rotation.REUSED),
        (PREVIOUS, {"previous": None, "rotated_at_ms": None}, Rotation.REUSED),
        (OLDER, {}, Rotation.REUSED),
        (CURRENT, {"revoked": True}, Rotation.DEAD),
        (OLDER, {"revoked": True}, Rotation.DEAD),
        (CURRENT, {"expires_at_ms": 5_000}, Rotation.DEAD),
        (CURRENT, {"expires_at_ms": 5_001}, Rotation.ROTATE),
    ],
)
def test_decisions(presented: bytes, changes: dict[str, object], expected: Rotation) -> None:
    assert decide(presented, **changes) is expected


def test_the_hash_is_not_the_token() -> None:
    token = new_refresh_token(bytes.fromhex("f5c4bc9c1ff357bad592be2ae11324ab"))
    assert token == "9cS8nB_zV7rVkr4q4RMkqw"  # PROTOCOL 6.5.3
    hashed = hash_refresh_token(token)
    assert hashed is not None
    assert len(hashed) == 32
    assert bytes.fromhex("f5c4bc9c") not in hashed
    with pytest.raises(ValueError):
        new_refresh_token(b"short")


def test_the_successor_needs_the_family_secret() -> None:
    token = new_refresh_token(bytes(16))
    following = next_refresh_token(token, bytes(32))
    assert hash_refresh_token(following) is not None, "it is a token itself"
    assert following == next_refresh_token(token, bytes(32)), "however often it is asked"
    others = {
        next_refresh_token(following, bytes(32)),
        next_refresh_token(token, bytes([1]) * 32),
        next_refresh_token(new_refresh_token(bytes([1]) * 16), bytes(32)),
    }
    assert len(others | {token, following}) == 5


@pytest.mark.parametrize("text", ["", "x", "9cS8nB_zV7rVkr4q4RMkqw==", "9cS8nB_zV7rVkr4q4RMkqx", "é" * 22, "a" * 500])
def test_invalid_texts_are_not_tokens(text: str) -> None:
    assert hash_refresh_token(text) is None


@pytest.mark.parametrize(
    ("one", "other"), [("Alice", "ALICE"), ("straße", "STRASSE"), ("ﬁ", "FI"), (" bob ", "bob"), ("e\u0301", "é")]
)
def test_names_equal_under_normalisation_are_one(one: str, other: str) -> None:
    assert normalise_username(one)[1] == normalise_username(other)[1]


def test_a_name_that_is_too_long_is_not_normalised() -> None:
    marks = "\u0345" * 8_100 + "\u0334" * 8_100  # in the order that takes longest: half a second
    for name in ("\ufb01" * 257, marks, f" {marks} "):
        kept, key = normalise_username(name)
        assert kept == key == name.strip(), "as it came"
        (problem,) = username_problems(kept)
        assert problem.message == "must be at most 64 characters long"
    assert normalise_username(" " * 300 + "\ufb01") == ("fi", "fi"), "spaces around do not count"


def test_names_and_passwords_count_characters() -> None:
    assert username_problems("é" * 64) == []
    assert username_problems("x" * 65)
    assert username_problems("a\0")
    assert normalise_username("\u03b1\u0313\u0300\u0345" * 64)[0] == "\u1f82" * 64, "four become one"
    assert password_problems("é" * 8) == []
    assert password_problems("é" * 7)
    assert password_problems("x" * 1_024) == []
    assert password_problems("x" * 1_025)
