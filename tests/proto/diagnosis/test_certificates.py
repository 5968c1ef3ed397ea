"""Why a certificate is not trusted, against the OpenSSL that Python has."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime

import pytest
import trustme

from openguild_proto.diagnosis.certificates import UNKNOWN_AUTHORITY, distrust_reason

PAST = datetime(2020, 1, 1, tzinfo=UTC)


def refusal(certificate: trustme.LeafCert, authority: trustme.CA | None) -> ssl.SSLCertVerificationError:
    """What a client of `here.test` raises in a handshake in memory."""
    ours, theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(theirs)
    if authority is not None:
        authority.configure_trust(ours)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ours.wrap_bio(down, up, server_hostname="here.test")
    server = theirs.wrap_bio(up, down, server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    with pytest.raises(ssl.SSLCertVerificationError) as refused:
        client.do_handshake()
    return refused.value


def test_reasons_are_those_of_this_openssl() -> None:
    authority = trustme.CA()
    expired = refusal(authority.issue_cert("here.test", not_after=PAST), authority)
    elsewhere = refusal(authority.issue_cert("elsewhere.test"), authority)
    foreign = refusal(trustme.CA().issue_cert("here.test"), authority)
    unknown = refusal(authority.issue_cert("here.test"), None)
    assert distrust_reason(expired.verify_code) == "it has expired"
    assert distrust_reason(elsewhere.verify_code) == "it is for another host name"
    assert {foreign.verify_code, unknown.verify_code} <= UNKNOWN_AUTHORITY
    assert (distrust_reason(foreign.verify_code) or "").startswith("its authority is not trusted here")


def test_other_codes_have_no_reason() -> None:
    assert distrust_reason(1) is None
