"""Access tokens: the golden vector, forgeries, expiry, revocation, bounded caches (PROTOCOL 4.3, 4.4)."""

from __future__ import annotations

import msgspec
import pytest

from openguild_proto.canonical.keys import KeyRing, encode_unpadded, parse_seed
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.sessions.tokens import Claims, TokenAuthority, TokenInvalid, TokenProblem

SEED = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
GOLDEN = (
    "eyJzZXNzaW9uX2lkIjoiMDAwMDAwMDAtMDAwMC00MDAwLTgwMDAtMDAwMDAwMDAwMDAxIiwidXNlcl9pZCI6ImVjN2M1MTM4LWVlMWEtNDExMi05NWVm"
    "LWU1MzUxNGI2NzBjMiIsInVzZXJuYW1lIjoiYWxpY2UiLCJpc3N1ZWRfYXQiOiIyMDI1LTEwLTEyVDIxOjM0OjI2LjEyMzQ1NloiLCJleHBpcmVzX2F0"
    "IjoiMjAyNS0xMC0xM1QwOTozNDoyNi4xMjM0NTZaIn0.zrNmUA9bFoV_92_HyT7DFVTPND4gLvE60QCWa_XgQ-YaW9EDq-91uJ5jXCmLkPYG114ry-aMZt"
    "Qr0XRQiuQLBA"
)
ISSUED_US = 1_760_304_866_123_456
CLAIMS = Claims(
    "00000000-0000-4000-8000-000000000001",
    "ec7c5138-ee1a-4112-95ef-e53514b670c2",
    "alice",
    ISSUED_US,
    ISSUED_US + 12 * 3600 * 1_000_000,
)
VERIFIED = msgspec.structs.replace(CLAIMS, verified_by=parse_seed(SEED).public)
NOW_MS = ISSUED_US // 1000 + 1


@pytest.fixture
def authority() -> TokenAuthority:
    return TokenAuthority(KeyRing(parse_seed(SEED)), cache_size=4)


def invalid(authority: TokenAuthority, token: str, wall_ms: int = NOW_MS) -> bool:
    try:
        authority.verify(token, wall_ms)
    except TokenInvalid:
        return True
    return False


def problem(authority: TokenAuthority, token: str, wall_ms: int = NOW_MS) -> TokenProblem | None:
    try:
        authority.verify(token, wall_ms)
    except TokenInvalid as refused:
        return refused.problem
    return None


def test_what_is_wrong_with_a_token_is_named(authority: TokenAuthority) -> None:
    another_key = TokenAuthority(KeyRing(parse_seed("A" * 43)))
    assert problem(authority, GOLDEN) is None
    assert problem(authority, "x") is problem(authority, "a.b.c") is problem(authority, "%.%") is TokenProblem.MALFORMED
    assert problem(authority, another_key.issue(CLAIMS)) is TokenProblem.BAD_SIGNATURE
    assert problem(authority, GOLDEN, CLAIMS.expires_at_us // 1000 + 1) is TokenProblem.EXPIRED
    authority.revoke_session(CLAIMS.session_id)
    assert problem(authority, GOLDEN) is TokenProblem.REVOKED


def test_golden_vector(authority: TokenAuthority) -> None:
    assert authority.issue(CLAIMS) == GOLDEN
    assert authority.verify(GOLDEN, NOW_MS) == VERIFIED


def test_expiry_is_exact(authority: TokenAuthority) -> None:
    ends_ms = CLAIMS.expires_at_us // 1000
    assert not invalid(authority, GOLDEN, ends_ms)
    assert invalid(authority, GOLDEN, ends_ms + 1)
    assert len(authority) == 0, "an expired token is forgotten"


def test_any_changed_character_is_refused(authority: TokenAuthority) -> None:
    for place in range(0, len(GOLDEN), 3):
        changed = GOLDEN[:place] + ("A" if GOLDEN[place] != "A" else "B") + GOLDEN[place + 1 :]
        assert invalid(authority, changed)
    for bad in (
        "",
        ".",
        "a.b",
        GOLDEN + ".x",
        GOLDEN + "=",
        GOLDEN.replace(".", ""),
        "é." * 3,
        "\ud800.x",
        "x" * 5_000,
    ):
        assert invalid(authority, bad)


def test_a_signed_payload_of_another_shape_is_refused(authority: TokenAuthority) -> None:
    key = parse_seed(SEED)
    for payload in (
        b"{}",
        b"[]",
        b"x",
        b'{"session_id":1}',
        b'{"session_id":"a","user_id":"b","expires_at":"yesterday"}',
    ):
        assert invalid(authority, f"{encode_unpadded(payload)}.{encode_unpadded(key.sign(payload))}")


def test_fallback_keys_verify_and_rotation_keeps_tokens(authority: TokenAuthority) -> None:
    new = SigningKey(bytes(32))
    rotated = TokenAuthority(KeyRing(new, fallback=(parse_seed(SEED).public,)))
    assert rotated.verify(GOLDEN, NOW_MS) == VERIFIED
    assert rotated.trusts(VERIFIED.verified_by)
    authority.verify(GOLDEN, NOW_MS)
    authority.confirm(GOLDEN)
    authority.replace_keys(KeyRing(new))
    assert invalid(authority, GOLDEN)
    assert not authority.is_confirmed(GOLDEN)
    assert not authority.trusts(VERIFIED.verified_by)


def test_a_revoked_session_is_refused_at_once(authority: TokenAuthority) -> None:
    authority.verify(GOLDEN, NOW_MS)
    authority.confirm(GOLDEN)
    assert authority.is_confirmed(GOLDEN)
    authority.revoke_session(CLAIMS.session_id)
    assert not authority.is_confirmed(GOLDEN)
    assert invalid(authority, GOLDEN)


def test_the_cache_is_bounded(authority: TokenAuthority) -> None:
    for number in range(10):
        claims = Claims(f"s{number}", "u", None, ISSUED_US, CLAIMS.expires_at_us)
        token = authority.issue(claims)
        assert authority.verify(token, NOW_MS).session_id == claims.session_id
        authority.confirm(token)
    assert len(authority) == 4
    assert not authority.is_confirmed(GOLDEN)


def test_an_unverified_token_is_not_confirmed(authority: TokenAuthority) -> None:
    authority.confirm(GOLDEN)
    assert not authority.is_confirmed(GOLDEN)
