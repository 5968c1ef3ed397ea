"""The gateway sockets of a replica: opening, authentication, actions on logs, leaving."""

from __future__ import annotations

from collections.abc import Callable

from openguild_proto.gateway.actions import AnyAction
from openguild_proto.replica.gateway_socket import GatewaySocket
from openguild_proto.replica.replica import Replica
from openguild_runtime.net.transport import Transport


class GatewaySockets:
    """The gateway sockets of a replica. `perform_actions` is called after each input; `clock` returns monotonic seconds."""

    def __init__(self, replica: Replica, clock: Callable[[], float], perform_actions: Callable[[], None]) -> None:
        self.transports: dict[int, Transport] = {}  # by descriptor
        self._replica = replica
        self._clock = clock
        self._perform_actions = perform_actions

    def open(self, transport: Transport, socket: GatewaySocket) -> None:
        """Register a socket after its upgrade."""
        self.transports[transport.socket.fileno()] = transport
        self._replica.gateway.opened(socket)

    def authenticated(self, socket: GatewaySocket) -> None:
        """Note that the socket has a valid token."""
        self._replica.gateway_at(self._clock()).authenticated(socket)
        self._perform_actions()

    def do(self, socket: GatewaySocket, action: AnyAction) -> None:
        """Perform an action of the socket that concerns logs."""
        self._replica.gateway_at(self._clock()).do(socket, action)
        self._perform_actions()

    def leave(self, transport: Transport, socket: GatewaySocket) -> None:
        """Unregister a socket before it is closed."""
        del self.transports[transport.socket.fileno()]
        self._replica.gateway_at(self._clock()).left(socket)
        self._perform_actions()
