"""A gateway server without a network: feeds, sockets with limited room, and a clock that tests move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from openguild_proto.errors import ErrorCode
from openguild_proto.fanout.hub import Hub
from openguild_proto.gateway.actions import (
    AnyAction,
    Authenticate,
    Close,
    CountReads,
    Grant,
    ReadPage,
    Run,
    Subscribe,
    Unsubscribe,
    Write,
)
from openguild_proto.gateway.close_codes import GatewayClose
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.feeds import Feed, Feeds
from openguild_proto.gateway.frames import Ready, ReadySession, ReadyUser, ServerFrame
from openguild_proto.gateway.server import GatewayServer
from openguild_proto.http.message import Request, Response
from openguild_proto.policy.token_bucket import TokenBucket
from openguild_proto.ws.frames import frame_payload, message_end

EPOCH = 7
USER = "10000000-0000-4000-8000-000000000001"
SESSION = "20000000-0000-4000-8000-000000000002"
DAY = 86_400.0
LARGE = 1 << 30  # bytes


def log_name(number: int) -> str:
    return f"channel:{number:08x}-0000-4000-8000-000000000000"


def wire(log: str, sequence: int, nbytes: int = 0) -> bytes:
    """Return an event whose content identifies it."""
    return msgspec.json.encode({"log": log, "n": sequence, "pad": "x" * nbytes})


def granted(user_id: str = USER, ends_at: float = DAY) -> Grant:
    session = ReadySession(SESSION, "2026-01-01T00:00:00Z")
    return Grant(Ready(ReadyUser(user_id, "alice"), session, [], []), ends_at)


def split(messages: bytes) -> tuple[list[bytes], bytes]:
    """Return the complete messages, and the beginning of the next one."""
    whole: list[bytes] = []
    begin = 0
    while len(messages) - begin >= 10 or (len(messages) - begin >= 2 and messages[begin + 1] < 126):
        end = message_end(messages, begin)
        if end > len(messages):
            break
        whole.append(messages[begin:end])
        begin = end
    return whole, messages[begin:]


def payload_of(message: bytes) -> str | bytes:
    payload = frame_payload(message)
    return payload.decode() if message[0] == 0x81 else payload


class Replica:
    """Stored logs, and the sockets that follow them. Actions are answered at once, unless `held` is a list."""

    def __init__(self, ring_events: int = 8, encoding: Encoding = Encoding.JSON) -> None:
        self.feeds = Feeds(Hub(capacity_events=ring_events))
        self.encoding = encoding
        self.now = 0.0
        self.logs: dict[str, list[bytes]] = {}
        self.epochs: dict[str, int] = {}
        self.holds: dict[str, int] = {}  # feed -> number of holders
        self.sockets: list[Socket] = []
        self.dirty: dict[str, None] = {}
        self.held: list[Callable[[], None]] | None = None  # answers that wait for the test
        self.readable = True  # pages can be read
        self.pages = 0
        self.reads = TokenBucket(1_000, 60.0)  # the read limit of the user, who has all sockets
        self.run: Callable[[Request], Response] = lambda request: Response.json({"path": request.path})

    def open_feed(self, log: str) -> Feed:
        self.logs.setdefault(log, [])
        return self.feeds.open(log, self.epochs.get(log, EPOCH), len(self.logs[log]), self.encoding)

    def publish(self, log: str, count: int = 1, nbytes: int = 0) -> None:
        for _ in range(count):
            stored = self.logs.setdefault(log, [])
            stored.append(wire(log, len(stored) + 1, nbytes))
            for key, _half_full in self.feeds.publish(log, len(stored), stored[-1]):
                self.dirty[key] = None

    def flush(self) -> None:
        for key in list(self.dirty):
            del self.dirty[key]
            while True:
                _, left, rests = self.feeds.flush(key, 4, 4_096, self._send)
                for handle, rest in rests:
                    self.socket(handle).outbox += rest
                if not left:
                    break
            self.feeds.end_overrun(key)
            if self.feeds.hub.is_open(key):
                self.feeds.hub.flushed(key)

    def _send(self, handle: int, span: bytes) -> int:
        socket = self.socket(handle)
        assert not socket.outbox, "nothing may come between the halves of a message"
        socket.delivered_by_flush += 1
        return socket.send(span)

    def socket(self, handle: int) -> Socket:
        return next(socket for socket in self.sockets if socket.handle == handle)

    def answer(self, answer: Callable[[], None]) -> None:
        if self.held is None:
            answer()
        else:
            self.held.append(answer)


class Socket:
    """The server's end of one connection. `wire`: the bytes that the kernel has accepted; `room`: how many more it accepts."""

    def __init__(self, replica: Replica, room: int = LARGE, token: str | None = None) -> None:
        self.replica = replica
        taken = {socket.handle for socket in replica.sockets}
        self.handle = next(number for number in range(len(taken) + 1) if number not in taken)
        self.room = room
        self.outbox = b""
        self.wire = bytearray()
        self.closed: Close | None = None
        self.reads = 0
        self.delivered_by_flush = 0
        self.server = GatewayServer(
            replica.feeds, replica.encoding, handle=self.handle, wake=lambda: None, now=replica.now, wall_ms=0, token=token,
            request_id="r", client_address="192.0.2.1",
        )  # fmt: skip
        replica.sockets.append(self)
        self.pump()

    def send(self, data: bytes) -> int:
        taken = min(len(data), self.room)
        self.room -= taken
        self.wire += data[:taken]
        return taken

    def pump(self) -> None:
        """Carry out all actions, and write what the socket accepts."""
        while True:
            action = self.server.next_action()
            if action is None:
                self.write()
                action = self.server.next_action()  # for example, to read a page
            if action is None:
                return
            self.perform_actions(action)

    def perform_actions(self, action: AnyAction) -> None:
        replica, server = self.replica, self.server
        match action:
            case Authenticate(number=number, token=token):
                replica.answer(lambda: self._authenticate(number, token))
            case CountReads(number=number, reads=reads):
                server.reads_counted(number, replica.reads.hit(USER, replica.now, reads), replica.now)
            case Subscribe(number=number, logs=logs):
                for log in logs:
                    replica.answer(lambda log=log: self._subscribe(number, log))
            case Unsubscribe(feed=feed):
                replica.holds[feed.key] -= 1
                if not replica.holds[feed.key] and not feed.is_followed:
                    replica.feeds.close(feed)
            case ReadPage(feed=feed, after=after, limit=limit):
                self.reads += 1
                replica.answer(lambda: self._read(feed, after, limit))
            case Run(number=number, request=request):
                replica.answer(lambda: server.answered(number, replica.run(request)))
            case Close():
                assert self.closed is None
                while last := server.next_write(LARGE):
                    server.sent(len(last))
                    self.outbox += last
                self.closed = action
            case Write():
                pass

    def _authenticate(self, number: int, token: str) -> None:
        if token == "away":
            self.server.auth_unchecked(number)
        elif token == "busy":
            self.server.auth_unchecked(number, ErrorCode.OVERLOADED)
        elif token.startswith("good") and (token[4:] or "0").isdecimal():
            self.server.authenticated(
                number, granted(ends_at=self.replica.now + float(token[4:] or DAY)), self.replica.now
            )
        elif token.startswith("other"):
            self.server.authenticated(number, granted("3" + USER[1:]), self.replica.now)
        else:
            self.server.auth_refused(number)

    def _subscribe(self, number: int, log: str) -> None:
        if log.startswith("guild:"):
            self.server.sub_refused(number, log, ErrorCode.NOT_FOUND)
            return
        feed = self.replica.open_feed(log)
        self.replica.holds[feed.key] = self.replica.holds.get(feed.key, 0) + 1
        self.server.subscribed(number, feed)
        if self not in self.replica.sockets:  # it has left meanwhile
            self.pump()

    def _read(self, feed: Feed, after: int, limit: int) -> None:
        self.replica.pages += 1
        stored = self.replica.logs[feed.log][after : after + limit] if self.replica.readable else []
        messages = [
            self.replica.encoding.event_message(feed.log, feed.epoch, after + 1 + place, event)
            for place, event in enumerate(stored)
        ]
        pieces = [b"".join(messages[at : at + 3]) for at in range(0, len(messages), 3)]
        self.server.page(feed, after, pieces, self.replica.now)

    def write(self) -> None:
        while self.room > 0:
            if self.outbox:
                self.outbox = self.outbox[self.send(self.outbox) :]
                continue
            data = self.server.next_write(4_096) if self.closed is None else b""
            if not data:
                break
            self.outbox = self.server.sent(self.send(data))

    def make_room(self, nbytes: int) -> None:
        """Read as the client, which makes room."""
        was_full = self.room == 0
        self.room += nbytes
        if was_full and nbytes:
            self.server.took_bytes(self.replica.now)
        self.pump()

    def tell(self, frame: dict[str, Any]) -> None:
        """Send a frame as the client; values are not checked."""
        payload = (
            msgspec.json.encode(frame) if self.replica.encoding is Encoding.JSON else msgspec.msgpack.encode(frame)
        )
        self.server.receive(payload.decode() if self.replica.encoding is Encoding.JSON else payload, self.replica.now)
        self.pump()

    def heard(self) -> list[ServerFrame]:
        """Remove and return the complete frames that have arrived."""
        whole, rest = split(bytes(self.wire))
        self.wire[:] = rest
        frames = [self.replica.encoding.decode_server(payload_of(message)) for message in whole]
        assert None not in frames
        return frames  # type: ignore[return-value]  # none is None

    def leave(self) -> None:
        """Drop the connection."""
        self.server.left()
        while (action := self.server.next_action()) is not None:
            self.perform_actions(action)
        self.replica.sockets.remove(self)


def opened(replica: Replica, room: int = LARGE) -> Socket:
    """Return an authenticated socket, with its first frames already read."""
    socket = Socket(replica)
    socket.tell({"type": "auth", "token": "good"})
    socket.heard()
    socket.room = room
    return socket


def kinds(socket: Socket) -> list[type[Any]]:
    return [type(frame) for frame in socket.heard()]


def closed(socket: Socket) -> GatewayClose:
    assert socket.closed is not None
    return socket.closed.code


def pass_secs(socket: Socket, secs: float) -> None:
    socket.replica.now += secs
    socket.server.handle_deadline(socket.replica.now)
    socket.pump()
