"""Signed requests and answers against http-message-signatures, each verified by the other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from http_message_signatures import HTTPMessageSigner, HTTPMessageVerifier, MappingKeyResolver
from http_message_signatures.algorithms import ED25519

from openguild_proto.canonical.keys import EventSigner
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.effects.federation import PublishedKey
from openguild_proto.federation.signatures import (
    content_digest,
    read_claim,
    sign_answer,
    sign_request,
    verify_answer,
    verify_request,
)
from openguild_proto.http.message import Headers, Request

SEED = bytes(range(32))
KEY = SigningKey(SEED)
SIGNER = EventSigner("a.example", "main", KEY)
KEY_ID = "a.example/main"
RESOLVER = MappingKeyResolver(
    public_keys={KEY_ID: Ed25519PublicKey.from_public_bytes(KEY.public)},
    private_keys={KEY_ID: Ed25519PrivateKey.from_private_bytes(SEED)},
)
COVERED = ("@method", "@authority", "@path", "@query", "content-digest")
NONCE = "abcdefghijklmnopqrstuv"


class Message:
    """What the library takes as a request."""

    def __init__(self, method: str, url: str, headers: Headers, body: bytes) -> None:
        self.method, self.url, self.headers, self.body = method, url, dict(headers), body


class Answer:
    """What the library takes as a response."""

    def __init__(self, status_code: int, headers: Headers, request: Message) -> None:
        self.status_code, self.headers, self.request = status_code, dict(headers), request


def now() -> int:
    return int(datetime.now(UTC).timestamp())


def ours(created: int, target: str = "/f/x?y=1", body: bytes = b"{}") -> tuple[Message, bytes]:
    headers, signature = sign_request(
        "POST", target, "b.example:8448", body, signer=SIGNER, created=created, nonce=NONCE
    )
    return Message("POST", f"https://b.example:8448{target}", headers, body), signature


def verifier() -> Any:
    return HTTPMessageVerifier(signature_algorithm=ED25519, key_resolver=RESOLVER)


@pytest.mark.parametrize("target", ["/f/x?y=1", "/", "/f/x%20y?a=%2F&b"])
@pytest.mark.parametrize("body", [b"", b"{}", "äöü".encode()])
def test_the_library_verifies_our_requests(target: str, body: bytes) -> None:
    message, _ = ours(now(), target, body)
    (result,) = verifier().verify(message, max_age=timedelta(seconds=300), body=body)
    assert result.parameters["keyid"] == KEY_ID
    assert result.parameters["nonce"] == NONCE
    assert set(COVERED) <= {name.strip('"') for name in result.covered_components}


@pytest.mark.parametrize("include_alg", [True, False])
def test_we_verify_requests_of_the_library(include_alg: bool) -> None:
    created = datetime.now(UTC)
    message = Message(
        "GET", "https://B.example/f/x?y=1", (("Content-Digest", content_digest(b"")), ("X-More", " a ")), b""
    )
    HTTPMessageSigner(signature_algorithm=ED25519, key_resolver=RESOLVER).sign(
        message, key_id=KEY_ID, created=created, nonce=NONCE, tag="openguild-federation", include_alg=include_alg,
        use_existing_digest=True, covered_component_ids=("x-more", *reversed(COVERED)),
    )  # fmt: skip
    headers = tuple((name.lower(), value.strip()) for name, value in message.headers.items())
    request = Request(method="GET", path="/f/x", query="y=1", headers=headers)
    moment = int(created.timestamp() * 1_000)
    keys = (PublishedKey("main", KEY.public, 0, moment + 1),)
    assert verify_request(read_claim(headers), request, ("b.example",), keys, moment).nonce == NONCE


def test_answers_verify_both_ways() -> None:
    created = now()
    message, signature = ours(created)
    keys = (PublishedKey("main", KEY.public, 0, created * 1_000 + 1),)
    request = Request(
        method="POST", path="/f/x", query="y=1", headers=tuple(message.headers.items()), body=message.body
    )
    signed = verify_request(read_claim(request.headers), request, ("b.example:8448",), keys, created * 1_000)

    answer = Answer(200, sign_answer(200, b"[]", signed, signer=SIGNER, created=created), message)
    (result,) = verifier().verify(answer, max_age=timedelta(seconds=300), body=b"[]")
    assert result.parameters["keyid"] == KEY_ID

    theirs = Answer(200, (("content-digest", content_digest(b"[]")),), message)
    HTTPMessageSigner(signature_algorithm=ED25519, key_resolver=RESOLVER).sign(
        theirs, key_id=KEY_ID, created=datetime.fromtimestamp(created, UTC), tag="openguild-federation",
        use_existing_digest=True, covered_component_ids=("@status", "content-digest", '"signature";req;key="og"'),
    )  # fmt: skip
    headers = tuple((name.lower(), value) for name, value in theirs.headers.items())
    verify_answer("a.example", 200, headers, b"[]", signature, keys, created * 1_000)
