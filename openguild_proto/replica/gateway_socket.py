"""The interface of a gateway socket to its replica."""

from __future__ import annotations

from typing import Protocol

from openguild_proto.gateway.server import GatewayServer
from openguild_proto.sessions.tokens import Claims


class GatewaySocket(Protocol):
    """A replica's record of a gateway socket."""

    @property
    def server(self) -> GatewayServer:
        """Its protocol state machine."""

    @property
    def claims(self) -> Claims | None:
        """The claims of its token; None until it is authenticated."""

    @property
    def address(self) -> str:
        """The client's IP address."""

    def wake(self) -> None:
        """Process the state machine soon: take its actions and set its deadline."""
