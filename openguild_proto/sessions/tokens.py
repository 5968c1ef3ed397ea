"""Access tokens (PROTOCOL 4.3): signed claims, verified once and then cached by their hash until they expire.

A request with a cached and confirmed token needs no signature check and no query. The caches are bounded and evict the
least recently used token, which is then checked again.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime
from enum import Enum

import msgspec
from blake3 import blake3

from openguild_proto.canonical.keys import KeyRing, decode_unpadded, encode_unpadded
from openguild_proto.canonical.signing import SIGNATURE_BYTES
from openguild_proto.limits import MAX_CACHED_TOKENS, MAX_REVOKED_SESSIONS, MAX_TOKEN_CHARS
from openguild_proto.records import Author
from openguild_proto.timestamps import from_micros


class TokenProblem(Enum):
    """Why a request is not authenticated. For logs and metrics; not sent to the caller."""

    MISSING = "missing"
    MALFORMED = "malformed"
    BAD_SIGNATURE = "bad_signature"  # forged, or signed with a key that this replica does not have
    EXPIRED = "expired"
    REVOKED = "revoked"  # the session has ended, or the account is deleted
    # the signature is valid, but the session is from another database or a lost commit
    UNKNOWN_SESSION = "unknown_session"


class TokenInvalid(Exception):
    """The token is not valid. The caller is not told why. `user_id`: the token's user, if the signature is valid."""

    def __init__(self, problem: TokenProblem, user_id: str | None = None) -> None:
        super().__init__(problem.value)
        self.problem = problem
        self.user_id = user_id


class Claims(msgspec.Struct, frozen=True, gc=False):
    """The claims of a token. Times are UTC microseconds."""

    session_id: str
    user_id: str
    username: str | None
    issued_at_us: int
    expires_at_us: int
    verified_by: bytes = b""  # the public key that verified it; not part of the token

    @property
    def author(self) -> Author:
        """The author of changes made with this token. Users of other servers have no session here."""
        return Author(self.user_id, self.session_id or None)


class _Payload(msgspec.Struct, omit_defaults=True):
    session_id: str
    user_id: str
    username: str | None = None
    issued_at: str = msgspec.field(default="")
    expires_at: str = msgspec.field(default="")


_payloads = msgspec.json.Decoder(_Payload)


class TokenAuthority:
    """Issues and verifies tokens; one per process. A token is confirmed if the store has found its session active."""

    def __init__(self, keys: KeyRing, *, cache_size: int = MAX_CACHED_TOKENS) -> None:
        self._keys = keys
        self._cache_size = cache_size
        self._verified: OrderedDict[bytes, Claims] = OrderedDict()  # by the token's BLAKE3 hash; the signature is valid
        self._confirmed: set[bytes] = set()  # those of them whose session the store has confirmed
        self._by_session: dict[str, set[bytes]] = {}
        self._revoked: OrderedDict[str, None] = OrderedDict()

    @property
    def keys(self) -> KeyRing:
        """The keys that sign and verify tokens."""
        return self._keys

    def replace_keys(self, keys: KeyRing) -> None:
        """Replace the keys and verify every token again. `trusts` returns which open streams may stay."""
        self._keys = keys
        self._verified.clear()
        self._confirmed.clear()
        self._by_session.clear()

    def issue(self, claims: Claims) -> str:
        """Return a token: `base64url(payload) + "." + base64url(signature over the payload bytes)`."""
        payload = msgspec.json.encode(
            _Payload(
                session_id=claims.session_id,
                user_id=claims.user_id,
                username=claims.username,
                issued_at=from_micros(claims.issued_at_us),
                expires_at=from_micros(claims.expires_at_us),
            )
        )
        return f"{encode_unpadded(payload)}.{encode_unpadded(self._keys.signing.sign(payload))}"

    def trusts(self, public: bytes) -> bool:
        """Return whether tokens signed with this key are still valid."""
        return public in self._keys.public_keys

    def verify(self, token: str, wall_ms: int) -> Claims:
        """Return the claims of a valid token. Raises TokenInvalid. `wall_ms`: UTC milliseconds."""
        key = _key(token)
        if key not in self._verified:
            self._keep(key, self._check(token))
        return self._current(key, wall_ms)

    def _current(self, key: bytes, wall_ms: int) -> Claims:
        claims = self._verified[key]
        self._verified.move_to_end(key)
        if claims.expires_at_us <= wall_ms * 1000:
            self._forget(key)
            raise TokenInvalid(TokenProblem.EXPIRED, claims.user_id)
        if claims.session_id in self._revoked:
            raise TokenInvalid(TokenProblem.REVOKED, claims.user_id)
        return claims

    def _check(self, token: str) -> Claims:
        if len(token) > MAX_TOKEN_CHARS or token.count(".") != 1:
            raise TokenInvalid(TokenProblem.MALFORMED)
        payload_text, _, signature_text = token.partition(".")
        try:
            payload, signature = decode_unpadded(payload_text), decode_unpadded(signature_text)
        except ValueError:
            raise TokenInvalid(TokenProblem.MALFORMED) from None
        # Verify the signature first, so that nothing unsigned is parsed.
        public = self._keys.verifier(payload, signature) if len(signature) == SIGNATURE_BYTES else None
        if public is None:
            raise TokenInvalid(TokenProblem.BAD_SIGNATURE)
        try:
            fields = _payloads.decode(payload)
            return Claims(
                fields.session_id,
                fields.user_id,
                fields.username,
                _micros(fields.issued_at),
                _micros(fields.expires_at),
                public,
            )
        except (msgspec.DecodeError, ValueError, OverflowError):
            raise TokenInvalid(TokenProblem.MALFORMED) from None

    # --- sessions -----------------------------------------------------------------------------------

    def is_confirmed(self, token: str) -> bool:
        """Return whether the store has confirmed the token's session, so that no query is needed."""
        return _key(token) in self._confirmed

    def confirmed_claims(self, token: str, wall_ms: int) -> Claims | None:
        """Return the claims of a confirmed token, without a query, or None for any other token.

        Raises TokenInvalid if it has expired. `wall_ms`: UTC milliseconds.
        """
        key = _key(token)
        return self._current(key, wall_ms) if key in self._confirmed else None

    def confirm(self, token: str) -> None:
        """Record that the store has confirmed the session of this verified token."""
        key = _key(token)
        if key in self._verified:
            self._confirmed.add(key)

    def forget_confirmations(self) -> None:
        """Check every session in the store again, because revocations may have been missed."""
        self._confirmed.clear()

    def revoke_session(self, session_id: str) -> None:
        """Invalidate every token of the session."""
        self._revoked[session_id] = None
        self._revoked.move_to_end(session_id)
        if len(self._revoked) > MAX_REVOKED_SESSIONS:
            self._revoked.popitem(last=False)  # its tokens are not confirmed, so the store is queried
        for key in list(self._by_session.get(session_id, ())):
            self._forget(key)

    def is_revoked(self, session_id: str) -> bool:
        """Return whether the session was revoked on this replica."""
        return session_id in self._revoked

    # --- cache ---------------------------------------------------------------------------------------

    def _keep(self, key: bytes, claims: Claims) -> None:
        while len(self._verified) >= self._cache_size:
            self._forget(next(iter(self._verified)))
        self._verified[key] = claims
        self._by_session.setdefault(claims.session_id, set()).add(key)

    def _forget(self, key: bytes) -> None:
        claims = self._verified.pop(key)
        self._confirmed.discard(key)
        keys = self._by_session[claims.session_id]
        keys.discard(key)
        if not keys:
            del self._by_session[claims.session_id]

    def __len__(self) -> int:
        """Return the number of cached tokens."""
        return len(self._verified)


def unverified_issue_us(token: str) -> int | None:
    """Return the token's time of issue in UTC microseconds, or None. For clients: does not verify the signature."""
    try:
        return _micros(_payloads.decode(decode_unpadded(token.partition(".")[0])).issued_at)
    except (msgspec.DecodeError, ValueError, OverflowError):
        return None


def unverified_user_id(token: str) -> str | None:
    """Return the token's user id, or None. For clients: does not verify the signature."""
    try:
        return _payloads.decode(decode_unpadded(token.partition(".")[0])).user_id
    except (msgspec.DecodeError, ValueError):
        return None


def _key(token: str) -> bytes:
    return blake3(token.encode("utf-8", "surrogatepass")).digest()


def _micros(text: str) -> int:
    """Parse RFC 3339 with any fraction to UTC microseconds. Drops digits beyond the sixth. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a timestamp without a zone")
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
