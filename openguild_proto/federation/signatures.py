"""Signed requests and responses: HTTP Message Signatures (RFC 9421) with Ed25519, and digests of bodies (RFC 9530).

A request is verified in two steps, because the keys depend on the server that it names:

    claim = read_claim(request.headers)                       # the server and key, not verified
    signed = verify_request(claim, request, authorities, keys, now_ms)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from openguild_proto.canonical.keys import EventSigner
from openguild_proto.canonical.signing import SIGNATURE_BYTES, verify
from openguild_proto.effects.federation import PublishedKey
from openguild_proto.federation.faults import Fault, SignatureFault
from openguild_proto.federation.keys import request_key
from openguild_proto.federation.server_names import NameFault, parse_key_id, parse_server_name
from openguild_proto.federation.structured_fields import (
    InnerList,
    Item,
    Parameters,
    parse_dictionary,
    write_bare,
)
from openguild_proto.http.message import Headers, Request

TAG = "openguild-federation"
LABEL = "og"
WINDOW_SECS = 300  # PROTOCOL 16.2.4: between the clocks of two servers
MIN_NONCE_CHARS, MAX_NONCE_CHARS = 16, 64

CONTENT_DIGEST = "content-digest"
SIGNATURE_INPUT = "signature-input"
SIGNATURE = "signature"

REQUEST_COMPONENTS = ("@method", "@authority", "@path", "@query", CONTENT_DIGEST)
ANSWER_COMPONENTS = ("@status", CONTENT_DIGEST)

_DIGESTS = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}


class Claim(NamedTuple):
    """The contents of a signature, not verified."""

    server: str
    key_id: str
    created: int  # UTC seconds
    nonce: str  # "" for a response
    label: str
    covered: InnerList
    signature: bytes


class Signed(NamedTuple):
    """A verified request: its server, and the values that the signature of the answer covers."""

    server: str
    key_id: str
    created: int
    nonce: str
    label: str
    signature: bytes


def content_digest(body: bytes) -> str:
    """Return the value of Content-Digest (RFC 9530 2)."""
    return f"sha-256={write_bare(hashlib.sha256(body).digest())}"


# --- signing -----------------------------------------------------------------------------------------


def sign_request(
    method: str, target: str, authority: str, body: bytes, *, signer: EventSigner, created: int, nonce: str
) -> tuple[Headers, bytes]:
    """Return the headers for a request, and its signature, which the response's signature covers."""
    digest = content_digest(body)
    path, _, query = target.partition("?")
    values = {
        "@method": method,
        "@authority": authority,
        "@path": path or "/",
        "@query": f"?{query}",
        CONTENT_DIGEST: digest,
    }
    covered = _cover((Item(name, {}) for name in REQUEST_COMPONENTS), signer, created, nonce)
    return _signed(digest, covered, [values[name] for name in REQUEST_COMPONENTS], signer)


def sign_answer(status: int, body: bytes, request: Signed, *, signer: EventSigner, created: int) -> Headers:
    """Return the headers for the response to `request`."""
    digest = content_digest(body)
    covered = _cover((*(Item(name, {}) for name in ANSWER_COMPONENTS), _answered(request.label)), signer, created, None)
    return _signed(digest, covered, [str(status), digest, write_bare(request.signature)], signer)[0]


def _answered(label: str) -> Item:
    """Return the component for the signature of the request (RFC 9421 2.4)."""
    return Item(SIGNATURE, {"req": True, "key": label})


def _cover(components: Iterable[Item], signer: EventSigner, created: int, nonce: str | None) -> InnerList:
    parameters: Parameters = {"created": created, "keyid": f"{signer.server_name}/{signer.key_id}"}
    if nonce is not None:
        parameters["nonce"] = nonce
    parameters["tag"] = TAG
    return InnerList(tuple(components), parameters)


def _signed(digest: str, covered: InnerList, values: Sequence[str], signer: EventSigner) -> tuple[Headers, bytes]:
    signature = signer.sign_bytes(_base(covered, values))
    headers = (
        (CONTENT_DIGEST, digest),
        (SIGNATURE_INPUT, f"{LABEL}={covered}"),
        (SIGNATURE, f"{LABEL}={write_bare(signature)}"),
    )
    return headers, signature


def _base(covered: InnerList, values: Sequence[str]) -> bytes:
    """Return the signature base (RFC 9421 2.5)."""
    lines = [f"{item}: {value}" for item, value in zip(covered.items, values, strict=True)]
    return "\n".join((*lines, f'"@signature-params": {covered}')).encode("latin-1")


# --- verifying ---------------------------------------------------------------------------------------


def read_claim(headers: Headers) -> Claim:
    """Read the server and key that a request or response names. Header names are in lower case. Raises SignatureFault."""
    inputs = parse_dictionary(_field(headers, SIGNATURE_INPUT))
    found = [
        (label, member)
        for label, member in inputs.items()
        if isinstance(member, InnerList) and member.parameters.get("tag") == TAG
    ]
    if not found:
        raise SignatureFault(Fault.MISSING)
    if len(found) > 1:
        raise SignatureFault(Fault.MALFORMED)
    label, covered = found[0]
    signature = parse_dictionary(_field(headers, SIGNATURE)).get(label)
    if signature is None:
        raise SignatureFault(Fault.MISSING)
    raw = signature.value if isinstance(signature, Item) else None
    if not isinstance(raw, bytes) or len(raw) != SIGNATURE_BYTES:
        raise SignatureFault(Fault.MALFORMED)
    known = covered.parameters
    created, key, nonce = known.get("created"), known.get("keyid"), known.get("nonce", "")
    if created is None or key is None:
        raise SignatureFault(Fault.COMPONENT_MISSING)
    if type(created) is not int or type(key) is not str or type(nonce) is not str:
        raise SignatureFault(Fault.MALFORMED)
    if known.get("alg", "ed25519") != "ed25519" or any(type(item.value) is not str for item in covered.items):
        raise SignatureFault(Fault.MALFORMED)
    server, _, key_id = key.partition("/")
    try:
        parse_server_name(server)
        parse_key_id(key_id)
    except NameFault:
        raise SignatureFault(Fault.MALFORMED) from None
    return Claim(server, key_id, created, nonce, label, covered, raw)


def check_request_claim(claim: Claim, now_ms: int) -> None:
    """Check what needs no key: the components, the nonce and the time. Raises SignatureFault."""
    _require_covered(claim, [Item(name, {}) for name in REQUEST_COMPONENTS])
    if not claim.nonce:
        raise SignatureFault(Fault.COMPONENT_MISSING)
    if not MIN_NONCE_CHARS <= len(claim.nonce) <= MAX_NONCE_CHARS:
        raise SignatureFault(Fault.MALFORMED)
    _require_timely(claim, now_ms)


def verify_request(
    claim: Claim, request: Request, authorities: Sequence[str], keys: Sequence[PublishedKey], now_ms: int
) -> Signed:
    """Verify a request with the keys of the server that it claims. Raises SignatureFault.

    `authorities`: those of this server. The Host header is not used, because a proxy may change it.
    """
    check_request_claim(claim, now_ms)
    public = request_key(keys, claim.key_id, now_ms)
    known = {"@method": request.method, "@path": request.path, "@query": f"?{request.query}"}
    for authority in authorities:
        values = _values(claim.covered, known | {"@authority": authority}, request.headers)
        if verify(public, _base(claim.covered, values), claim.signature):
            break
    else:
        raise SignatureFault(Fault.BAD_SIGNATURE)
    _require_digest(request.headers, request.body)
    return Signed(claim.server, claim.key_id, claim.created, claim.nonce, claim.label, claim.signature)


def verify_answer(
    server: str,
    status: int,
    headers: Headers,
    body: bytes,
    request_signature: bytes,
    keys: Sequence[PublishedKey],
    now_ms: int,
) -> None:
    """Verify the response of `server` to our request. Raises SignatureFault."""
    claim = read_claim(headers)
    if claim.server != server:
        raise SignatureFault(Fault.WRONG_SERVER)
    answered = _answered(LABEL)
    _require_covered(claim, [*(Item(name, {}) for name in ANSWER_COMPONENTS), answered])
    _require_timely(claim, now_ms)
    public = request_key(keys, claim.key_id, now_ms)
    known = {"@status": str(status), str(answered): write_bare(request_signature)}
    if not verify(public, _base(claim.covered, _values(claim.covered, known, headers)), claim.signature):
        raise SignatureFault(Fault.BAD_SIGNATURE)
    _require_digest(headers, body)


def _field(headers: Headers, name: str) -> str:
    values = [value for key, value in headers if key == name]
    if not values:
        raise SignatureFault(Fault.MISSING)
    return ", ".join(values)


def _require_covered(claim: Claim, required: Sequence[Item]) -> None:
    if any(item not in claim.covered.items for item in required):
        raise SignatureFault(Fault.COMPONENT_MISSING)
    if len({str(item) for item in claim.covered.items}) < len(claim.covered.items):
        raise SignatureFault(Fault.MALFORMED)


def _require_timely(claim: Claim, now_ms: int) -> None:
    expires = claim.covered.parameters.get("expires", claim.created + WINDOW_SECS)
    if type(expires) is not int:
        raise SignatureFault(Fault.MALFORMED)
    now_secs = now_ms / 1_000
    if now_secs > min(expires, claim.created + WINDOW_SECS):
        raise SignatureFault(Fault.EXPIRED)
    if claim.created > now_secs + WINDOW_SECS:
        raise SignatureFault(Fault.FROM_FUTURE)


def _values(covered: InnerList, known: dict[str, str], headers: Headers) -> list[str]:
    """Return the values of the covered components: fields without parameters, and `known` ones. Raises SignatureFault."""
    values: list[str] = []
    for item in covered.items:
        name = item.value
        value = known.get(str(item)) if item.parameters else known.get(str(name))
        if value is None and (item.parameters or type(name) is not str or name.startswith("@")):
            raise SignatureFault(Fault.MALFORMED)
        values.append(value if value is not None else _field(headers, str(name)))
    return values


def _require_digest(headers: Headers, body: bytes) -> None:
    """Check every digest with a known algorithm. Raises SignatureFault if there is none."""
    members = parse_dictionary(_field(headers, CONTENT_DIGEST))
    known = [name for name in _DIGESTS if name in members]
    if not known:
        raise SignatureFault(Fault.WRONG_DIGEST)
    for name in known:
        member = members[name]
        if not isinstance(member, Item) or member.value != _DIGESTS[name](body).digest():
            raise SignatureFault(Fault.WRONG_DIGEST)
