"""Why a certificate is not trusted, by the codes of OpenSSL (x509_vfy.h). The texts hold no name and no address."""

from __future__ import annotations

OUT_OF_TIME = frozenset({9, 10, 23})
OTHER_NAME = frozenset({62, 64})
UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21})
"""No issuer, self-signed, a self-signed one in its chain, no issuer here, an incomplete chain."""

_REASONS = {
    9: "it is not valid yet, or the clock of this machine is behind",
    10: "it has expired",
    23: "it was revoked",
    26: "it is not for servers",
    62: "it is for another host name",
    64: "it is for another address",
} | dict.fromkeys(UNKNOWN_AUTHORITY, "its authority is not trusted here, or its chain is incomplete")


def distrust_reason(verify_code: int) -> str | None:
    """Return what continues a sentence that ends with "the certificate is not trusted: "; None: another code."""
    return _REASONS.get(verify_code)
