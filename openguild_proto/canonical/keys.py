"""Keys as text, the keys that sign and verify tokens, and the signer of local events."""

from __future__ import annotations

import base64
import binascii
import hashlib

import msgspec

from openguild_proto.canonical.signing import PUBLIC_BYTES, SEED_BYTES, SigningKey, verify


class KeyFormatError(ValueError):
    """A key is not 32 bytes in base64url without padding. The message never quotes the key."""


def encode_unpadded(raw: bytes) -> str:
    """Encode as base64url without padding (RFC 4648 5)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def decode_unpadded(text: str) -> bytes:
    """Decode base64url without padding; accepts only the canonical text of each byte string. Raises ValueError."""
    if not text.isascii() or "=" in text or "+" in text or "/" in text:
        raise ValueError("not base64url without padding")
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise ValueError("not base64url without padding") from None
    if encode_unpadded(raw) != text:
        raise ValueError("not the canonical base64url form")
    return raw


def _parse(text: str, size: int, what: str) -> bytes:
    try:
        raw = decode_unpadded(text.strip())
    except ValueError:
        raise KeyFormatError(f"{what} must be base64url without padding") from None
    if len(raw) != size:
        raise KeyFormatError(f"{what} must decode to {size} bytes")
    return raw


def parse_seed(text: str) -> SigningKey:
    """Parse a signing key: `session.signing_key`, `federation.signing_key`. Raises KeyFormatError."""
    return SigningKey(_parse(text, SEED_BYTES, "a signing key"))


def parse_public(text: str) -> bytes:
    """Parse a verifying key: `session.fallback_verifying_keys`, `federation.trusted_servers[].verifying_key`.

    Raises KeyFormatError.
    """
    return _parse(text, PUBLIC_BYTES, "a verifying key")


def fingerprint(public: bytes) -> str:
    """Return a short identifier of a public key for logs and metrics: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


class KeyRing(msgspec.Struct, frozen=True):
    """The keys for tokens: `signing` signs. `signing`, then each of the public keys `fallback`, verifies."""

    signing: SigningKey
    fallback: tuple[bytes, ...] = ()

    @property
    def public_keys(self) -> tuple[bytes, ...]:
        """The public keys that verify, in the order in which they are tried."""
        return (self.signing.public, *self.fallback)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """The fingerprints of `public_keys`, in the same order: the signing key first."""
        return tuple(fingerprint(public) for public in self.public_keys)

    def verifier(self, message: bytes, signature: bytes) -> bytes | None:
        """Return the public key that verifies the signature, or None."""
        return next((public for public in self.public_keys if verify(public, message, signature)), None)


class EventSigner:
    """Signs event hashes as `signatures[<server name>]["ed25519:<key id>"]` (PROTOCOL 6.3.3)."""

    __slots__ = ("_key", "key_id", "server_name")

    def __init__(self, server_name: str, key_id: str, key: SigningKey) -> None:
        self.server_name = server_name
        self.key_id = key_id
        self._key = key

    @property
    def public(self) -> bytes:
        """The public key that verifies the signatures."""
        return self._key.public

    def sign_bytes(self, message: bytes) -> bytes:
        """Return the 64-byte signature of `message`."""
        return self._key.sign(message)

    def sign(self, event_hash: bytes) -> dict[str, dict[str, str]]:
        """Return the signature of the 32-byte `event_hash` in standard base64 with padding, by server name and key id."""
        signature = base64.b64encode(self._key.sign(event_hash)).decode("ascii")
        return {self.server_name: {f"ed25519:{self.key_id}": signature}}
