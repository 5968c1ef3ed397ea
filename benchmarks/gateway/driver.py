"""A small driver of gateway sockets over real socket pairs, with the compiled flush: a runtime without a loop."""

from __future__ import annotations

import socket

from openguild_proto.fanout.hub import Hub
from openguild_proto.gateway.actions import (
    Authenticate,
    CountReads,
    Grant,
    ReadPage,
    Subscribe,
)
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.feeds import Feed, Feeds
from openguild_proto.gateway.frames import Ready, ReadySession, ReadyUser
from openguild_proto.gateway.server import GatewayServer
from openguild_runtime.net._flush import flush
from openguild_runtime.net.ring_flush import CHUNK_SENDS

SEND_BYTES = 65_536
GRANT = Grant(Ready(ReadyUser("u", "alice"), ReadySession("s", ""), [], []), 1e9)


def log_name(number: int) -> str:
    return f"channel:{number:08x}-0000-4000-8000-000000000000"


def event(sequence: int) -> bytes:
    """Return an event of 300 bytes; storage builds it again when it is read."""
    return b'{"event_type":"message","n":%9d,"content":{"content":"%b"}}' % (sequence, b"x" * 238)


class Gateway:
    """All sockets of a process. Storage has every event up to a log's head."""

    def __init__(self, ring_events: int = 256) -> None:
        self.feeds = Feeds(Hub(capacity_events=ring_events))
        self.ends: dict[int, End] = {}
        self.now = 0.0

    def follow(self, end: End, logs: list[str], after: int | None = None) -> None:
        """Follow logs by a `sub` frame of the client."""
        place = "" if after is None else f',"after":{after}'
        lines = ",".join(f'{{"log":"{log}"{place}}}' for log in logs)
        end.server.receive(f'{{"type":"sub","ref":1,"logs":[{lines}]}}', self.now)
        end.pump()

    def publish(self, log: str) -> None:
        head = self.feeds.open(log, 1, 0, Encoding.JSON).head
        for key, _ in self.feeds.publish(log, head + 1, event(head + 1)):
            self.flush(key)

    def flush(self, key: str) -> None:
        """Send to every follower that lacks events, until none does."""
        feeds = self.feeds
        ring = feeds.hub.frames(key)
        while True:
            served, left, troubles = flush(ring, CHUNK_SENDS, SEND_BYTES, 1.0, feeds.gates)
            for slot, rest, _ in troubles:
                end = self.ends[ring.handle(slot)]
                end.outbox += rest
                feeds.parked(key, slot)
            if served < CHUNK_SENDS and not left:
                break
        feeds.end_overrun(key)
        feeds.hub.flushed(key)


class End:
    """The server's end of a socket pair, and the client's end, which a test may read or not."""

    def __init__(self, gateway: Gateway, *, paired: bool = True) -> None:
        self.gateway = gateway
        self.outbox = b""
        if paired:
            self.sock, self.client = socket.socketpair()
            self.sock.setblocking(False)
            self.client.setblocking(False)
            handle = self.sock.fileno()
        else:
            handle = len(gateway.ends)
        gateway.ends[handle] = self
        self.paired = paired
        self.server = GatewayServer(
            gateway.feeds, Encoding.JSON, handle=handle, wake=lambda: None, now=0.0, wall_ms=0, token="t"
        )
        self.pump()

    def pump(self) -> None:
        """Carry out the machine's actions, and write what the socket accepts."""
        while True:
            action = self.server.next_action()
            if action is None:
                self.write()
                action = self.server.next_action()
            match action:
                case None:
                    return
                case Authenticate(number=number):
                    self.server.authenticated(number, GRANT, self.gateway.now)
                case CountReads(number=number):
                    self.server.reads_counted(number, None, self.gateway.now)
                case Subscribe(number=number, logs=logs):
                    for log in logs:
                        self.server.subscribed(number, self.gateway.feeds.open(log, 1, 0, Encoding.JSON))
                case ReadPage(feed=feed, after=after, limit=limit):
                    self.server.page(feed, after, pieces(feed, after, limit), self.gateway.now)

    def write(self) -> None:
        while True:
            data = self.outbox or self.server.next_write(SEND_BYTES)
            if not data:
                return
            taken = self._send(data)
            if self.outbox:
                self.outbox = self.outbox[taken:]
            else:
                self.outbox = self.server.sent(taken)
            if taken < len(data):
                return

    def _send(self, data: bytes) -> int:
        if not self.paired:
            return len(data)
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0

    def read(self) -> int:
        """Read as the client; return the number of bytes."""
        total = 0
        try:
            while data := self.client.recv(1 << 18):
                total += len(data)
        except BlockingIOError:
            return total
        return total

    def close(self) -> None:
        self.server.left()
        del self.gateway.ends[self.sock.fileno()]
        self.sock.close()
        self.client.close()


def pieces(feed: Feed, after: int, limit: int) -> list[bytes]:
    """Return a page of the log, from storage."""
    messages = [
        feed.encoding.event_message(feed.log, feed.epoch, n, event(n)) for n in range(after + 1, after + 1 + limit)
    ]
    return [b"".join(messages[at : at + 150]) for at in range(0, len(messages), 150)]
