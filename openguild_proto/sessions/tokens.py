"""Access tokens (PROTOCOL 4.3): signed claims, verified once and then known by their hash until they end.

A request with a known token costs no signature check and no query. The caches are bounded: the least recently
used token is forgotten first and merely has to be checked again; a revocation is remembered for as long as a token
of that session could live.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime

import msgspec
from blake3 import blake3

from openguild_proto.canonical.keys import KeyRing, decode_unpadded, encode_unpadded
from openguild_proto.canonical.signing import SIGNATURE_BYTES
from openguild_proto.limits import MAX_CACHED_TOKENS, MAX_REVOKED_SESSIONS, MAX_TOKEN_CHARS
from openguild_proto.records import Author
from openguild_proto.sessions.refresh import fallback_secret, next_refresh_token
from openguild_proto.timestamps import from_micros


class TokenInvalid(Exception):
    """Not a token of ours, expired, or revoked. Which of these is nobody's business."""


class Claims(msgspec.Struct, frozen=True, gc=False):
    """Times in UTC microseconds."""

    session_id: str
    user_id: str
    username: str | None
    issued_at_us: int
    expires_at_us: int
    verified_by: bytes = b""  # public key of the ring that vouched; not part of the token

    @property
    def author(self) -> Author:
        """Who makes the changes that are asked for with this token."""
        return Author(self.user_id, self.session_id)


class _Payload(msgspec.Struct, omit_defaults=True):
    session_id: str
    user_id: str
    username: str | None = None
    issued_at: str = msgspec.field(default="")
    expires_at: str = msgspec.field(default="")


_payloads = msgspec.json.Decoder(_Payload)


class TokenAuthority:
    """Issues and verifies; one per process. `known` tokens are those whose session the store has confirmed."""

    def __init__(self, keys: KeyRing, *, cache_size: int = MAX_CACHED_TOKENS) -> None:
        self._keys = keys
        self._cache_size = cache_size
        self._verified: OrderedDict[bytes, Claims] = OrderedDict()  # by BLAKE3 of the token: signature is good
        self._confirmed: set[bytes] = set()  # of these: session confirmed by the store
        self._by_session: dict[str, set[bytes]] = {}
        self._revoked: OrderedDict[str, None] = OrderedDict()

    def replace_keys(self, keys: KeyRing) -> None:
        """Rotation: every token is checked anew against the new ring. Open streams: `trusts` tells which may stay."""
        self._keys = keys
        self._verified.clear()
        self._confirmed.clear()
        self._by_session.clear()

    def issue(self, claims: Claims) -> str:
        """`base64url(payload) + "." + base64url(signature over the payload bytes)`."""
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
        """Whether tokens that this key signed are still worth anything."""
        return public in self._keys.public_keys

    def next_refresh_token(self, token: str, secret: bytes | None) -> str:
        """The successor of a refresh token. `secret`: its family's; None: it has none, the signing key stands in for it."""
        return next_refresh_token(token, fallback_secret(self._keys.signing) if secret is None else secret)

    def verify(self, token: str, wall_ms: int) -> Claims:
        """Raises TokenInvalid. `wall_ms`: UTC milliseconds."""
        key = _key(token)
        if key not in self._verified:
            self._keep(key, self._check(token))
        return self._current(key, wall_ms)

    def _current(self, key: bytes, wall_ms: int) -> Claims:
        claims = self._verified[key]
        self._verified.move_to_end(key)
        if claims.expires_at_us <= wall_ms * 1000:
            self._forget(key)
            raise TokenInvalid
        if claims.session_id in self._revoked:
            raise TokenInvalid
        return claims

    def _check(self, token: str) -> Claims:
        if len(token) > MAX_TOKEN_CHARS or token.count(".") != 1:
            raise TokenInvalid
        payload_text, _, signature_text = token.partition(".")
        try:
            payload, signature = decode_unpadded(payload_text), decode_unpadded(signature_text)
        except ValueError:
            raise TokenInvalid from None
        # the signature comes first: nothing unsigned is parsed
        public = self._keys.verifier(payload, signature) if len(signature) == SIGNATURE_BYTES else None
        if public is None:
            raise TokenInvalid
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
            raise TokenInvalid from None

    # --- what the store has said --------------------------------------------------------------------

    def is_confirmed(self, token: str) -> bool:
        """The store has confirmed this token's session: no query is needed."""
        return _key(token) in self._confirmed

    def confirmed_claims(self, token: str, wall_ms: int) -> Claims | None:
        """The claims of a token whose session the store has confirmed: no query is needed. None for any other token.

        Raises TokenInvalid where it has ended meanwhile. `wall_ms`: UTC milliseconds.
        """
        key = _key(token)
        return self._current(key, wall_ms) if key in self._confirmed else None

    def confirm(self, token: str) -> None:
        """The store says that the session of this verified token is alive."""
        key = _key(token)
        if key in self._verified:
            self._confirmed.add(key)

    def forget_confirmations(self) -> None:
        """Revocations may have been missed: the store is asked about every session once more."""
        self._confirmed.clear()

    def revoke_session(self, session_id: str) -> None:
        """Every token of the session is invalid from now on."""
        self._revoked[session_id] = None
        self._revoked.move_to_end(session_id)
        if len(self._revoked) > MAX_REVOKED_SESSIONS:
            self._revoked.popitem(last=False)  # the store still knows: its tokens are not `known` any more
        for key in list(self._by_session.get(session_id, ())):
            self._forget(key)

    def is_revoked(self, session_id: str) -> bool:
        """The session's end was announced here."""
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
        """Tokens cached."""
        return len(self._verified)


def unverified_issue_us(token: str) -> int | None:
    """When the token says it was issued, UTC microseconds; None where it does not say. For its bearer: nothing is verified."""
    try:
        return _micros(_payloads.decode(decode_unpadded(token.partition(".")[0])).issued_at)
    except (msgspec.DecodeError, ValueError, OverflowError):
        return None


def _key(token: str) -> bytes:
    return blake3(token.encode("utf-8", "surrogatepass")).digest()


def _micros(text: str) -> int:
    """RFC 3339 with any fraction, in UTC microseconds; digits beyond the sixth are dropped. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a timestamp without a zone")
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
