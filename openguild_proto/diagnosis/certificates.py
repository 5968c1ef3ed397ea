"""Reasons for which a certificate is not trusted, by OpenSSL's codes (x509_vfy.h). The texts contain no names or addresses."""

from __future__ import annotations

OUT_OF_TIME = frozenset({9, 10, 23})
OTHER_NAME = frozenset({62, 64})
UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21})
"""Issuer not found, self-signed, self-signed in the chain, issuer unknown here, incomplete chain."""

_REASONS = {
    9: "it is not valid yet, or the clock of this machine is behind",
    10: "it has expired",
    23: "it was revoked",
    26: "it is not for servers",
    62: "it is for another host name",
    64: "it is for another address",
} | dict.fromkeys(UNKNOWN_AUTHORITY, "its authority is not trusted here, or its chain is incomplete")


def distrust_reason(verify_code: int) -> str | None:
    """Return the rest of a sentence that begins with "the certificate is not trusted: ", or None for an unknown code."""
    return _REASONS.get(verify_code)
