"""Sends each message to all clients: `python docs/examples/fanout_server.py [PORT]`, then open WebSockets to it."""

import asyncio
import secrets
import socket
import sys
from contextlib import suppress
from time import monotonic

from openguild_proto import (
    Event,
    FanoutWriter,
    Hub,
    RequestReceived,
    Response,
    ServerConnection,
    TextReceived,
    Wants,
    WebSocketRequested,
    text_frame,
)

hub = Hub(capacity_events=256)
hub.open("room", head=0)
loop = asyncio.new_event_loop()


class Client:
    def __init__(self, sock: socket.socket, address: tuple[str, int]) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.conn = ServerConnection(now=monotonic(), random_bytes=secrets.token_bytes, peer_address=address[0])
        self.writer = FanoutWriter(self.conn, hub)
        self.timer = loop.call_soon(self.write)
        loop.add_reader(sock, self.read)

    def read(self) -> None:
        try:
            data = self.sock.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.handle(self.conn.receive_data(data, monotonic()) if data else self.conn.receive_eof(monotonic()))

    def handle(self, events: list[Event]) -> None:
        while events:
            for event in events:
                match event:
                    case RequestReceived():
                        self.conn.respond(Response(404, b"open a WebSocket\n", close=True), monotonic())
                    case WebSocketRequested():
                        self.conn.accept(monotonic())
                        self.writer.subscribe("room", since=hub.head("room"), owner=self)
                    case TextReceived(text=text):
                        publish(text)
            events = self.conn.next_events(monotonic())
        self.write()

    def write(self) -> None:
        """Send what the socket accepts. Called when there is more to send, and when a blocked socket is writable."""
        if self.sock.fileno() < 0:
            return  # closed meanwhile
        self.timer.cancel()
        with suppress(OSError):  # the socket is broken
            loop.remove_writer(self.sock)
            if not self.writer.write(self.sock.send, monotonic()):
                loop.add_writer(self.sock, self.write)
            if self.conn.wants is Wants.KEEP:
                if (deadline := self.conn.next_deadline()) is not None:
                    self.timer = loop.call_at(deadline, lambda: self.handle(self.conn.handle_deadline(monotonic())))
                return
        self.writer.end()
        loop.remove_reader(self.sock)
        loop.remove_writer(self.sock)
        self.sock.close()


def publish(text: str) -> None:
    hub.publish("room", text_frame(text.encode()), sequence=hub.head("room") + 1)
    while behind := hub.flush_plan("room", limit=1_000):
        for subscriber in behind:
            subscriber.owner.write()
    hub.flushed("room")
    for lagged in hub.take_lagged(limit=1_000):
        lagged.subscriber.owner.writer.close_lagged(lagged, monotonic())
        lagged.subscriber.owner.write()


with socket.create_server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8083)) as listener:
    print(f"listening on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
    loop.add_reader(listener, lambda: Client(*listener.accept()))
    loop.run_forever()
