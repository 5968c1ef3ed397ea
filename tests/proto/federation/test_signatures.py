"""Signed requests and answers: what verifies, what does not and why."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.canonical.keys import EventSigner
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.effects.federation import PublishedKey
from openguild_proto.federation.faults import Fault, SignatureFault
from openguild_proto.federation.signatures import (
    Signed,
    content_digest,
    read_claim,
    sign_answer,
    sign_request,
    verify_answer,
    verify_request,
)
from openguild_proto.http.message import Headers, Request

KEY = SigningKey(bytes(range(32)))
SIGNER = EventSigner("a.example", "main", KEY)
OTHER = EventSigner("b.example", "1", SigningKey(b"b" * 32))
NOW_MS = 1_800_000_000_000
NOW = NOW_MS // 1_000
KEYS = (PublishedKey("main", KEY.public, 0, NOW_MS + 1),)
OTHER_KEYS = (PublishedKey("1", OTHER.public, 0, NOW_MS + 1),)
NONCE = "abcdefghijklmnopqrstuv"


def signed_headers(
    body: bytes = b"{}", created: int = NOW, nonce: str = NONCE, signer: EventSigner = SIGNER
) -> Headers:
    return sign_request("POST", "/f/x?y=1", "b.example", body, signer=signer, created=created, nonce=nonce)[0]


def request(headers: Headers, **changed: Any) -> Request:
    request = Request(method="POST", path="/f/x", query="y=1", headers=(("host", "proxy"), *headers), body=b"{}")
    return msgspec.structs.replace(request, **changed)


def check(
    found: Request, keys: tuple[PublishedKey, ...] = KEYS, now_ms: int = NOW_MS, authority: str = "b.example"
) -> Signed:
    return verify_request(read_claim(found.headers), found, ("elsewhere.example", authority), keys, now_ms)


def fault_of(found: Request, **checked: Any) -> Fault:
    with pytest.raises(SignatureFault) as fault:
        check(found, **checked)
    return fault.value.reason


def test_a_signed_request_verifies() -> None:
    signed = check(request(signed_headers()))
    assert signed[:4] == ("a.example", "main", NOW, NONCE)


METHODS = st.sampled_from(["GET", "POST", "PUT"])
PATHS = st.from_regex(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]{0,20}", fullmatch=True)
QUERIES = st.from_regex(r"[A-Za-z0-9._~!$&'()*+,;=:@%/?-]{0,20}", fullmatch=True)


@given(METHODS, PATHS, QUERIES, st.binary(max_size=100), st.integers(-300, 300))
def test_any_request_verifies_as_it_was_signed(method: str, path: str, query: str, body: bytes, ahead: int) -> None:
    target = f"{path}?{query}" if query else path
    headers, signature = sign_request(
        method, target, "b.example", body, signer=SIGNER, created=NOW + ahead, nonce=NONCE
    )
    found = Request(method=method, path=path, query=query, headers=headers, body=body)
    signed = check(found)
    assert signed.signature == signature
    answer = sign_answer(200, body, signed, signer=OTHER, created=NOW)
    verify_answer("b.example", 200, answer, body, signature, OTHER_KEYS, NOW_MS)


@pytest.mark.parametrize(
    "changed",
    [{"method": "PUT"}, {"path": "/f/y"}, {"path": "/F/x"}, {"path": "/f/x/"}, {"query": ""}, {"query": "y=2"}, {"query": "y=1&"}],
    ids=str,
)  # fmt: skip
def test_another_request_is_not_the_signed_one(changed: dict[str, str]) -> None:
    assert fault_of(request(signed_headers(), **changed)) is Fault.BAD_SIGNATURE


def test_another_authority_is_refused() -> None:
    assert fault_of(request(signed_headers()), authority="c.example") is Fault.BAD_SIGNATURE


def test_another_body_has_another_digest() -> None:
    assert fault_of(request(signed_headers(), body=b"{ }")) is Fault.WRONG_DIGEST


def replaced(name: str, old: str, new: str) -> Request:
    headers = tuple((key, value.replace(old, new) if key == name else value) for key, value in signed_headers())
    assert headers != signed_headers()
    return request(headers)


@pytest.mark.parametrize(
    ("name", "old", "new", "reason"),
    [
        ("content-digest", content_digest(b"{}"), content_digest(b"{ }"), Fault.BAD_SIGNATURE),
        ("signature-input", f"created={NOW}", f"created={NOW - 1}", Fault.BAD_SIGNATURE),
        ("signature-input", NONCE, NONCE[::-1], Fault.BAD_SIGNATURE),
        ("signature-input", NONCE, "short", Fault.MALFORMED),
        ("signature-input", NONCE, "n" * 65, Fault.MALFORMED),
        ("signature-input", f';nonce="{NONCE}"', "", Fault.COMPONENT_MISSING),
        ("signature-input", f";created={NOW}", "", Fault.COMPONENT_MISSING),
        ("signature-input", f";created={NOW}", ";created=1.5", Fault.MALFORMED),
        ("signature-input", f";created={NOW}", ";created", Fault.MALFORMED),
        ("signature-input", f";created={NOW}", f";created={NOW};created={NOW}", Fault.MALFORMED),
        ("signature-input", f";created={NOW}", f";created={NOW};expires={NOW - 1}", Fault.EXPIRED),
        ("signature-input", f";created={NOW}", f";created={NOW};expires=soon", Fault.MALFORMED),
        ("signature-input", f";created={NOW}", f';created={NOW};alg="hmac-sha256"', Fault.MALFORMED),
        ("signature-input", "a.example/main", "a.example/other", Fault.UNKNOWN_KEY),
        ("signature-input", "a.example/main", "a.example", Fault.MALFORMED),
        ("signature-input", "a.example/main", "A.example/main", Fault.MALFORMED),
        ("signature-input", "a.example/main", "127.1/main", Fault.MALFORMED),
        ("signature-input", ';keyid="a.example/main"', "", Fault.COMPONENT_MISSING),
        ("signature-input", "openguild-federation", "other", Fault.MISSING),
        ("signature-input", "og=(", "go=(", Fault.MISSING),
        ("signature-input", "og=(", "og=(\"x\"", Fault.MALFORMED),
        ("signature-input", '"@query" ', '"@query" "@query" ', Fault.MALFORMED),
        ("signature-input", '"@query" ', '"@query" @query ', Fault.MALFORMED),
        ("signature-input", '"@query" ', '"@query" "@unknown" ', Fault.MALFORMED),
        ("signature-input", '"@query" ', '"@query" "@status" ', Fault.MALFORMED),
        ("signature-input", '"@query" ', '"@query" "x-absent" ', Fault.MISSING),
        ("signature-input", '"@query" ', '"@query" "host";sf ', Fault.MALFORMED),
        ("signature-input", '"content-digest"', "content-digest", Fault.MALFORMED),
        ("signature", "og=:", "og=:AAAA", Fault.MALFORMED),
        ("signature", "og=:", "og=", Fault.MALFORMED),
        ("signature", "og=:", "xx=:", Fault.MISSING),
        *[
            ("signature-input", f'"{name}"{after}', "", Fault.COMPONENT_MISSING)
            for name, after in (("@method", " "), ("@authority", " "), ("@path", " "), ("@query", " "), ("content-digest", ""))
        ],
    ],
)  # fmt: skip
def test_altered_headers(name: str, old: str, new: str, reason: Fault) -> None:
    found = replaced(name, old, new)
    assert fault_of(found) is reason


@pytest.mark.parametrize("name", ["signature", "signature-input", "content-digest"])
def test_each_header_is_needed(name: str) -> None:
    headers = tuple(field for field in signed_headers() if field[0] != name)
    assert fault_of(request(headers)) is Fault.MISSING


def test_two_signatures_of_ours_are_ambiguous() -> None:
    headers = signed_headers()
    second = tuple((name, value.replace("og=", "go=")) for name, value in headers if name != "content-digest")
    assert fault_of(request((*headers, *second))) is Fault.MALFORMED


def test_signatures_of_others_are_passed_over() -> None:
    other = (
        ("signature-input", 'proxy=("@method");created=1;keyid="k"'),
        ("signature", "proxy=:AAAA:"),
    )
    assert check(request((*other, *signed_headers()))).server == "a.example"


@pytest.mark.parametrize(
    ("ahead", "reason"), [(-300, None), (-301, Fault.EXPIRED), (300, None), (301, Fault.FROM_FUTURE), (10**12, Fault.FROM_FUTURE)]
)  # fmt: skip
def test_the_window_of_time(ahead: int, reason: Fault | None) -> None:
    found = request(signed_headers(created=NOW + ahead))
    if reason is None:
        check(found)
    else:
        assert fault_of(found) is reason


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (PublishedKey("main", OTHER.public, 0, NOW_MS), Fault.BAD_SIGNATURE),
        (PublishedKey("main", KEY.public, 0, NOW_MS, revoked_at=1), Fault.REVOKED_KEY),
        (PublishedKey("main", KEY.public, 0, NOW_MS - 1), Fault.EXPIRED_KEY),
        (PublishedKey("main", KEY.public, NOW_MS + 600_001, NOW_MS * 2), Fault.UNKNOWN_KEY),
        (PublishedKey("Main", KEY.public, 0, NOW_MS), Fault.UNKNOWN_KEY),
    ],
)
def test_which_keys_verify_a_request(key: PublishedKey, reason: Fault) -> None:
    assert fault_of(request(signed_headers()), keys=(key,)) is reason


@pytest.mark.parametrize(
    "digest",
    ["sha-256=:AAAA:", "sha-256=1", "md5=:AAAA:", f"{content_digest(b'{}')}, sha-512=:AAAA:"],
)
def test_digests_that_are_signed_and_wrong(digest: str) -> None:
    """Whoever signs a wrong digest gets no further for it."""
    headers = resigned({"content-digest": digest})
    assert fault_of(request(headers)) is Fault.WRONG_DIGEST


def test_a_malformed_digest_is_refused() -> None:
    assert fault_of(request(resigned({"content-digest": "sha-256=:"}))) is Fault.MALFORMED


def resigned(fields: dict[str, str]) -> Headers:
    """Headers whose digest is another one, with a good signature over it."""
    covered = (
        f'("@method" "@authority" "@path" "@query" "content-digest");created={NOW};keyid="a.example/main";nonce="{NONCE}"'
        ';tag="openguild-federation"'
    )
    base = (
        '"@method": POST\n"@authority": b.example\n"@path": /f/x\n"@query": ?y=1\n'
        f'"content-digest": {fields["content-digest"]}\n'
        f'"@signature-params": {covered}'
    )
    signature = base64.b64encode(SIGNER.sign_bytes(base.encode())).decode()
    return (*fields.items(), ("signature-input", f"og={covered}"), ("signature", f"og=:{signature}:"))


def test_the_signature_base_is_that_of_the_standard() -> None:
    check(request(resigned({"content-digest": content_digest(b"{}")})))


# --- answers -----------------------------------------------------------------------------------------


def answered(**changed: Any) -> None:
    signed = check(request(signed_headers()))
    headers = changed.pop("headers", None) or sign_answer(200, b"[]", signed, signer=OTHER, created=NOW)
    given = {
        "server": "b.example", "status": 200, "headers": headers, "body": b"[]", "request_signature": signed.signature,
        "keys": OTHER_KEYS, "now_ms": NOW_MS,
    }  # fmt: skip
    verify_answer(**(given | changed))  # type: ignore[arg-type]  # members of several types


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"status": 201}, Fault.BAD_SIGNATURE),
        ({"body": b"[1]"}, Fault.WRONG_DIGEST),
        ({"request_signature": b"s" * 64}, Fault.BAD_SIGNATURE),
        ({"server": "c.example"}, Fault.WRONG_SERVER),
        ({"keys": KEYS}, Fault.UNKNOWN_KEY),
        ({"now_ms": NOW_MS + 301_000}, Fault.EXPIRED),
        ({"headers": (("content-type", "text/html"),)}, Fault.MISSING),
        ({"headers": signed_headers(b"[]", signer=OTHER)}, Fault.COMPONENT_MISSING),
    ],
    ids=str,
)
def test_answers_that_are_no_answer(changed: dict[str, Any], reason: Fault) -> None:
    answered()
    with pytest.raises(SignatureFault) as fault:
        answered(**changed)
    assert fault.value.reason is reason


FIELDS = st.lists(
    st.tuples(
        st.sampled_from(["signature", "signature-input", "content-digest"]),
        st.text(alphabet='og=(")@:;, \\a1?*./', max_size=60),
    ),
    max_size=4,
)


@given(FIELDS)
def test_any_headers_are_a_claim_or_a_fault(fields: list[tuple[str, str]]) -> None:
    for headers in (tuple(fields), (*fields, *signed_headers())):
        try:
            check(request(headers))
        except SignatureFault:
            continue
