"""Reads the opening handshake of a gateway socket: the encoding, and perhaps a token (PROTOCOL 15.1.1, 15.2.2)."""

from __future__ import annotations

from typing import NamedTuple

from openguild_proto.gateway.encoding import SUBPROTOCOLS, Encoding
from openguild_proto.http.message import Request
from openguild_proto.ws.handshake import bearer_subprotocol, offered_subprotocols


class Negotiated(NamedTuple):
    """`subprotocol`: to echo in the 101, None for none. `token`: from the subprotocols `bearer.<token>`, which are never echoed."""

    encoding: Encoding
    subprotocol: str | None
    token: str | None


def negotiate(request: Request) -> Negotiated:
    """Choose the first subprotocol that the client names and the gateway speaks; without one it is JSON."""
    token, _ = bearer_subprotocol(request)
    spoken = next((name for name in offered_subprotocols(request) if name in SUBPROTOCOLS), None)
    return Negotiated(Encoding.JSON if spoken is None else SUBPROTOCOLS[spoken], spoken, token)
