"""The reasons why a signature or a keys document is refused."""

from __future__ import annotations

from enum import Enum


class Fault(Enum):
    """The reasons of 401 `signature_invalid` (PROTOCOL 16.2.7). They are also labels of a metric."""

    MISSING = "missing"  # no signature with our tag
    MALFORMED = "malformed"  # headers that break RFC 9421 or RFC 9651
    COMPONENT_MISSING = "component_missing"  # the signature does not cover what it must
    EXPIRED = "expired"  # created too long ago
    FROM_FUTURE = "from_future"  # created too far ahead
    UNKNOWN_SERVER = "unknown_server"  # its keys could not be read
    UNKNOWN_KEY = "unknown_key"
    REVOKED_KEY = "revoked_key"
    EXPIRED_KEY = "expired_key"
    BAD_SIGNATURE = "bad_signature"  # another key, or method, authority, path, query, digest or parameters differ
    WRONG_DIGEST = "wrong_digest"  # the body does not match the digest
    REPLAYED = "replayed"  # this nonce was used before
    WRONG_SERVER = "wrong_server"  # a response signed by another server than the requested one


class SignatureFault(Exception):
    """A signature is invalid; `reason` says why."""

    def __init__(self, reason: Fault) -> None:
        super().__init__(reason.value)
        self.reason = reason


class KeysFault(Exception):
    """A keys document is invalid; the message says why."""
