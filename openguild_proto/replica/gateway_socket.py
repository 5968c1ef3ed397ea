"""A socket of the gateway, as its replica knows it."""

from __future__ import annotations

from typing import Protocol

from openguild_proto.gateway.server import GatewayServer
from openguild_proto.sessions.tokens import Claims


class GatewaySocket(Protocol):
    """A replica's record of a gateway socket."""

    @property
    def server(self) -> GatewayServer:
        """The state machine of the socket."""

    @property
    def claims(self) -> Claims | None:
        """The claims of its token; None until it is authenticated."""

    @property
    def address(self) -> str:
        """The client's address."""

    def wake(self) -> None:
        """Serve the machine soon: take its actions, and check its deadlines."""
