"""The sockets of a replica's gateway: their start, their requests about logs, and their end."""

from __future__ import annotations

from collections.abc import Callable

from openguild_proto.gateway.actions import AnyAction
from openguild_proto.replica.gateway_socket import GatewaySocket
from openguild_proto.replica.replica import Replica
from openguild_runtime.net.transport import Transport


class GatewaySockets:
    """`carry_out` is called after each input of the replica; `clock`: monotonic seconds."""

    def __init__(self, replica: Replica, clock: Callable[[], float], carry_out: Callable[[], None]) -> None:
        self.transports: dict[int, Transport] = {}  # by descriptor
        self._replica = replica
        self._clock = clock
        self._carry_out = carry_out

    def open(self, transport: Transport, socket: GatewaySocket) -> None:
        """Add a socket whose upgrade was accepted."""
        self.transports[transport.socket.fileno()] = transport
        self._replica.gateway.opened(socket)

    def authenticated(self, socket: GatewaySocket) -> None:
        """Note that the socket is authenticated."""
        self._replica.gateway_at(self._clock()).authenticated(socket)
        self._carry_out()

    def do(self, socket: GatewaySocket, action: AnyAction) -> None:
        """Carry out an action of a socket that concerns logs."""
        self._replica.gateway_at(self._clock()).do(socket, action)
        self._carry_out()

    def leave(self, transport: Transport, socket: GatewaySocket) -> None:
        """Remove a socket that ends."""
        del self.transports[transport.socket.fileno()]
        self._replica.gateway_at(self._clock()).left(socket)
        self._carry_out()
