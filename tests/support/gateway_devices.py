"""Gateway clients on the servers of tests/support/gateway.py, over links that can be cut anywhere."""

from __future__ import annotations

import random
from typing import Any

from openguild_proto.gateway import client_events as told
from openguild_proto.gateway.client import GatewayClient
from tests.support.gateway import LARGE, Replica, Socket, payload_of, split


class Device:
    """A client with its own connections to a replica: the events that it got, and a link that can be cut."""

    def __init__(self, replica: Replica, seed: int = 0, room: int = LARGE) -> None:
        chance = random.Random(seed)
        self.replica = replica
        self.client = GatewayClient(replica.encoding, jitter=chance.random, random_bytes=chance.randbytes)
        self.room = room
        self.socket: Socket | None = None
        self.to_server: list[str | bytes] = []
        self.received = b""
        self.events: list[told.ClientEvent] = []
        self.token = "good"
        self.refuses_connections = False

    def start(self) -> None:
        self.client.start(self.token, self.replica.now)
        self.step()

    def step(self) -> None:
        """Carry out the client's actions."""
        while True:
            self.to_server += self.client.messages_to_send()
            event = self.client.next_event()
            if event is None:
                return
            self.events.append(event)
            match event:
                case told.Connect() if self.refuses_connections:
                    self.client.disconnected(None, "refused", self.replica.now)
                case told.Connect():
                    self.socket = Socket(self.replica, self.room)
                    self.client.connected(self.replica.now)
                case told.Disconnect():
                    self._drop()
                case told.TokenNeeded():
                    self.client.set_token(self.token, self.replica.now)

    def _drop(self) -> None:
        if self.socket is not None:
            self.socket.leave()
        self.socket, self.received = None, b""
        self.to_server.clear()

    def upload(self, count: int) -> None:
        """Deliver this many messages to the server."""
        while count > 0 and self.to_server and self.socket is not None and self.socket.server.wants_messages:
            payload = self.to_server.pop(0)
            self.socket.server.receive(payload, self.replica.now)
            self.socket.pump()
            count -= 1

    def download(self, nbytes: int) -> None:
        """Deliver this many bytes to the client, which makes room for others."""
        socket = self.socket
        if socket is None:
            return
        part = bytes(socket.wire[:nbytes])
        del socket.wire[: len(part)]
        whole, self.received = split(self.received + part)
        for message in whole:
            if self.socket is socket:
                self.client.received(payload_of(message), self.replica.now)
                self.step()
        if self.socket is socket:
            socket.make_room(len(part))
            if socket.closed is not None and not socket.wire and not socket.outbox:
                self.cut(socket.closed.code)

    def cut(self, code: int | None = None) -> None:
        """Cut the connection; data in flight is lost."""
        if self.socket is not None:
            self._drop()
            self.client.disconnected(code, "cut", self.replica.now)
            self.step()

    def delivered(self, log: str) -> list[int]:
        return [event.sequence for event in self.events if isinstance(event, told.Delivered) and event.log == log]

    def told(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def settle(replica: Replica, *devices: Device, until: float = 60.0) -> None:
    """Deliver all data in flight and let `until` seconds pass, from deadline to deadline."""
    end = replica.now + until
    while True:
        _let_arrive(replica, devices)
        deadlines = [device.client.next_deadline() for device in devices]
        deadlines += [socket.server.next_deadline() for socket in replica.sockets]
        at = min((at for at in deadlines if at is not None), default=end + 1)
        if at > end:
            replica.now = end
            return
        replica.now = max(replica.now, at)
        pass_time(replica, *devices)


def _let_arrive(replica: Replica, devices: tuple[Device, ...]) -> None:
    seen = -1
    while _is_moving(replica, devices) or seen != sum(len(device.events) for device in devices):
        seen = sum(len(device.events) for device in devices)
        while replica.held:
            replica.held.pop(0)()
        replica.flush()
        for socket in list(replica.sockets):
            socket.pump()
        for device in devices:
            device.step()
            device.upload(1_000)
            device.download(1 << 20)


def _is_moving(replica: Replica, devices: tuple[Device, ...]) -> bool:
    return bool(replica.held or replica.dirty) or any(
        device.socket is not None and (device.socket.wire or device.socket.outbox or device.to_server)
        for device in devices
    )


def pass_time(replica: Replica, *devices: Device) -> None:
    for socket in list(replica.sockets):
        socket.server.handle_deadline(replica.now)
        socket.pump()
    for device in devices:
        device.client.handle_deadline(replica.now)
        device.step()
