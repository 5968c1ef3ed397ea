"""Reads the opening handshake of a gateway socket: the encoding, and a token if there is one (PROTOCOL 15.1.1, 15.2.2)."""

from __future__ import annotations

from typing import NamedTuple

from openguild_proto.gateway.encoding import SUBPROTOCOLS, Encoding
from openguild_proto.http.message import Request
from openguild_proto.ws.handshake import bearer_subprotocol, offered_subprotocols


class Negotiated(NamedTuple):
    """The result of a handshake.

    `subprotocol`: to echo in the 101 response, None for none. `token`: from a subprotocol `bearer.<token>`, which is never
    echoed.
    """

    encoding: Encoding
    subprotocol: str | None
    token: str | None


def negotiate(request: Request) -> Negotiated:
    """Choose the first subprotocol that the client offers and the gateway supports. Without one the encoding is JSON."""
    token, _ = bearer_subprotocol(request)
    spoken = next((name for name in offered_subprotocols(request) if name in SUBPROTOCOLS), None)
    return Negotiated(Encoding.JSON if spoken is None else SUBPROTOCOLS[spoken], spoken, token)
