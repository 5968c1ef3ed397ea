"""Checks the opening handshake (RFC 6455 4.2) more strictly than wsproto, and reads browsers' tokens from the subprotocol."""

from __future__ import annotations

import binascii
import re

from wsproto.utilities import generate_accept_token

from openguild_proto.errors import ErrorCode, LocalProtocolError, Refusal
from openguild_proto.http.headers import HeaderPolicy
from openguild_proto.http.message import Request

SUBPROTOCOL = "openguild.v1"
_BEARER_PREFIX = "bearer."
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")


def wants_upgrade(request: Request) -> bool:
    """Return whether the client requests an upgrade to WebSocket. The handshake may still be invalid."""
    return any("websocket" in _tokens(value) for value in request.all_headers("upgrade"))


def check(request: Request, policy: HeaderPolicy) -> Refusal | None:
    """Return the refusal of an invalid handshake or a forbidden origin, None if the handshake is accepted."""
    given: dict[str, list[str]] = {"connection": [], "sec-websocket-version": [], "sec-websocket-key": []}
    for name, value in request.headers:
        if name in given:
            given[name].append(value)
    connection, versions, keys = given.values()
    if request.method != "GET":
        return Refusal(ErrorCode.INVALID_HANDSHAKE, "RFC 6455 4.1: the handshake is a GET request")
    if request.http_version != "1.1":
        return Refusal(ErrorCode.INVALID_HANDSHAKE, "RFC 6455 4.1: the handshake needs HTTP/1.1")
    if request.body or request.header("transfer-encoding") is not None:
        return Refusal(ErrorCode.INVALID_HANDSHAKE, "RFC 6455 4.1: the handshake has no body")
    if not any("upgrade" in _tokens(value) for value in connection):
        return Refusal(ErrorCode.INVALID_HANDSHAKE, "Connection header did not include 'upgrade'")
    if versions != ["13"]:
        return Refusal(ErrorCode.UPGRADE_REQUIRED, headers=(("sec-websocket-version", "13"), ("upgrade", "websocket")))
    if len(keys) != 1 or not _is_key(keys[0]):
        return Refusal(
            ErrorCode.INVALID_HANDSHAKE, "`Sec-WebSocket-Key` header missing, repeated or not 16 bytes in base64"
        )
    return None if policy.admits_stream(request) else Refusal(ErrorCode.ORIGIN_NOT_ALLOWED)


def _is_key(key: str) -> bool:
    if _KEY.fullmatch(key) is None:
        return False
    return len(binascii.a2b_base64(key)) == 16


def _tokens(value: str) -> list[str]:
    return [token.strip().lower() for token in value.split(",")]


def accept_token(request: Request) -> bytes:
    """Return `Sec-WebSocket-Accept` for a checked handshake (RFC 6455 4.2.2)."""
    return generate_accept_token((request.header("sec-websocket-key") or "").encode("ascii"))


def offered_subprotocols(request: Request) -> list[str]:
    """Return the subprotocols that the client offers, in its order of preference (RFC 6455 11.3.4)."""
    return [item.strip() for value in request.all_headers("sec-websocket-protocol") for item in value.split(",")]


def chosen(subprotocol: str | None, request: Request) -> str | None:
    """Return `subprotocol`.

    Raises LocalProtocolError if the client did not offer it: the client would close the connection (RFC 6455 4.1).
    """
    if subprotocol is not None and subprotocol not in offered_subprotocols(request):
        raise LocalProtocolError(f"the client did not offer the subprotocol {subprotocol!r}")
    return subprotocol


def bearer_subprotocol(request: Request) -> tuple[str | None, str | None]:
    """Return (token, subprotocol to echo) from `Sec-WebSocket-Protocol: openguild.v1, bearer.<token>`.

    Only `openguild.v1` is echoed: proxies may log the header, so the token must not be in it.
    """
    offered = offered_subprotocols(request)
    tokens = [item.removeprefix(_BEARER_PREFIX) for item in offered if item.startswith(_BEARER_PREFIX)]
    return (tokens[0] if tokens and tokens[0] else None), (SUBPROTOCOL if SUBPROTOCOL in offered else None)
