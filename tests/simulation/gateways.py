"""The gateway sockets of one process, and the flush of their rings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from openguild_proto.gateway.actions import AnyAction
from openguild_proto.http.message import OpenGateway
from openguild_proto.replica.actions import Urgency
from tests.simulation.flush import SOCKETS, TURN_SECS
from tests.simulation.gateway_socket import GatewaySocket
from tests.simulation.pipes import Pipe

if TYPE_CHECKING:
    from tests.simulation.process import Process


class Gateways:
    """The sockets, by handle."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._sockets: dict[int, GatewaySocket] = {}
        self._handles = itertools.count()

    def __iter__(self) -> Iterator[GatewaySocket]:
        return iter(list(self._sockets.values()))

    def __len__(self) -> int:
        return len(self._sockets)

    def open(self, pipe: Pipe, opened: OpenGateway, *, cut: bool) -> None:
        """Accept the upgrade; `cut`: the client has disconnected meanwhile."""
        process, handle = self._process, next(self._handles)
        socket = self._sockets[handle] = GatewaySocket(process, pipe, opened, handle)
        pipe.accepted(socket, opened.headers)
        process.replica.gateway_at(process.clock.now).opened(socket)
        socket.wake()
        if cut:
            process.clock.later(process.delay(), socket.abort)

    def do(self, socket: GatewaySocket, action: AnyAction) -> None:
        """Carry out an action on logs."""
        self._process.replica.gateway_at(self._process.clock.now).do(socket, action)
        self._process.perform_actions()

    def authenticated(self, socket: GatewaySocket) -> None:
        self._process.replica.gateway_at(self._process.clock.now).authenticated(socket)
        self._process.perform_actions()

    def left(self, socket: GatewaySocket) -> None:
        process = self._process
        self._sockets = {handle: other for handle, other in self._sockets.items() if other is not socket}
        if process.alive:
            process.service.sockets.release(None, socket.address)
            process.replica.gateway_at(process.clock.now).left(socket)
            socket.attend()
            process.perform_actions()

    def flush(self, key: str, urgency: Urgency) -> None:
        """Send a ring's events to its followers, some at a time unless the flush is urgent."""
        process = self._process
        feeds = process.replica.gateway.feeds
        while process.alive and feeds.hub.is_open(key):
            _, left, rests = feeds.flush(key, SOCKETS, process.send_bytes, self._send)
            for handle, rest in rests:
                self._sockets[handle].cut(rest)
            if not left:
                feeds.hub.flushed(key)
                feeds.end_overrun(key)
                break
            if urgency is not Urgency.COMPLETELY:
                process.clock.later(TURN_SECS, self.flush, key, urgency)
                break
        if process.alive:
            process.replica.flushed(now=process.clock.now)
            process.perform_actions()

    def _send(self, handle: int, messages: bytes) -> int:
        return self._sockets[handle].flush(messages)
