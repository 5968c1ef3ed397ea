"""Keys that make repeated requests of a client take effect once (PROTOCOL 3.8, 7.5)."""

from __future__ import annotations

import msgspec
from blake3 import blake3

from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import Request
from openguild_proto.limits import MAX_NONCE_CHARS
from openguild_proto.operations.route import Parameter
from openguild_proto.policy.repeats import IdempotencyKey
from openguild_proto.schemas.fields import NONCE_PATTERN

KEY_HEADER = "idempotency-key"

IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    {"type": "string", "pattern": NONCE_PATTERN},
    "the nonce, if the body has none; if both are sent, they must be equal",
)
CREATION_KEY = Parameter(
    "Idempotency-Key",
    {"type": "string", "pattern": NONCE_PATTERN},
    "a key chosen by the client: for a day, a repeated request with the same key gets the response of the first one",
)


def asked_nonce(request: Request, in_body: str | None) -> str | None:
    """Return the nonce of the body or the Idempotency-Key header; both must agree (PROTOCOL 7.5.1). Raises Refusal."""
    given = {nonce for nonce in (*request.all_headers(KEY_HEADER), in_body) if nonce is not None}
    if len(given) > 1:
        raise _problem("nonce", "differs from the Idempotency-Key header")
    return _checked("nonce", given.pop()) if given else None


def checked_nonce(nonce: str | None) -> str | None:
    """Return a nonce that did not come in its own request. Raises Refusal."""
    return _checked("nonce", nonce) if nonce is not None else None


def asked_once(request: Request, kind: str, *said: str | int | None) -> IdempotencyKey | None:
    """Return the request's Idempotency-Key with its meaning; None: it has none. Raises Refusal.

    `kind` and `said`: the kind and the values of what is created, which a repeat must share.
    """
    keys = set(request.all_headers(KEY_HEADER))
    if not keys:
        return None
    if len(keys) > 1:
        raise _problem(IDEMPOTENCY_KEY.name, "must not be repeated")
    return IdempotencyKey(
        _checked(IDEMPOTENCY_KEY.name, keys.pop()), blake3(msgspec.json.encode((kind, *said))).digest()
    )


def _checked(field: str, key: str) -> str:
    if not 1 <= len(key) <= MAX_NONCE_CHARS or not all("!" <= character <= "~" for character in key):
        raise _problem(field, f"must be 1 to {MAX_NONCE_CHARS} visible ASCII characters")
    return key


def _problem(field: str, message: str) -> Refusal:
    return Refusal(ErrorCode.VALIDATION, details=(FieldProblem(field, message),))
