"""A socket of the gateway, as its replica knows it."""

from __future__ import annotations

from typing import Protocol

from openguild_proto.gateway.server import GatewayServer
from openguild_proto.sessions.tokens import Claims


class GatewaySocket(Protocol):
    """A replica's record of a gateway socket."""

    @property
    def server(self) -> GatewayServer:
        """Its machine."""

    @property
    def claims(self) -> Claims | None:
        """Those of its token; None until it is authenticated."""

    @property
    def address(self) -> str:
        """The client's."""

    def wake(self) -> None:
        """Look after the machine soon: take its actions, and see to its deadlines."""
