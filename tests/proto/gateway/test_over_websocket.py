"""The gateway inside a real WebSocket: the core's connection on one side, wsproto and GatewayClient on the other."""

from __future__ import annotations

from typing import Any

import pytest
from wsproto import ConnectionType, WSConnection, events

from openguild_proto.client.gateway_link import GatewayLink
from openguild_proto.connection.server import ServerConnection
from openguild_proto.errors import LocalProtocolError
from openguild_proto.events import BytesReceived, PeerClosed, TextReceived, WebSocketRequested
from openguild_proto.gateway import client_events as told
from openguild_proto.gateway.actions import Authenticate, Close, CountReads, ReadPage, Subscribe
from openguild_proto.gateway.client import GatewayClient
from openguild_proto.gateway.client_logs import ResumePosition
from openguild_proto.gateway.client_phases import ClientPhase
from openguild_proto.gateway.close_codes import GatewayClose
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.negotiation import negotiate
from openguild_proto.gateway.server import GatewayServer
from openguild_proto.http.message import Request
from tests.support.gateway import EPOCH, Replica, granted, log_name
from tests.support.wire import connection

LOG = log_name(1)


class Pair:
    """Both ends; `take` is how many bytes the server's socket takes at once."""

    def __init__(self, encoding: Encoding, take: int, *, token: str | None = None) -> None:
        self.replica = Replica(ring_events=4, encoding=encoding)
        self.take = take
        self.conn: ServerConnection = connection()
        self.server: GatewayServer | None = None
        self.client = GatewayClient(encoding, jitter=lambda: 0.5, random_bytes=bytes)
        self.part: Any = "" if encoding is Encoding.JSON else b""
        self.ws = WSConnection(ConnectionType.CLIENT)
        offers = [*([f"bearer.{token}"] if token else []), "other", encoding.value]
        self.client.start("good", 0.0)
        self.events: list[told.ClientEvent] = []
        self.to_server(self.ws.send(events.Request(host="localhost", target="/client/v1/gateway", subprotocols=offers)))

    def to_server(self, data: bytes) -> None:
        for event in self.conn.receive_data(data, 0.0):
            match event:
                case WebSocketRequested(request=request):
                    encoding, subprotocol, token = negotiate(request)
                    self.conn.accept(0.0, subprotocol)
                    self.server = GatewayServer(
                        self.replica.feeds, encoding, handle=0, wake=lambda: None, now=0.0, wall_ms=0, token=token
                    )
                case TextReceived(text=payload) | BytesReceived(data=payload) if self.server is not None:
                    self.server.receive(payload, 0.0)
                case PeerClosed() if self.server is not None:
                    self.server.left()
        self.serve()

    def serve(self) -> None:
        """What a runtime does: actions, then bytes, the connection's own first."""
        server = self.server
        while server is not None:
            action = server.next_action()
            if action is None:
                if self.write(server):
                    continue
                action = server.next_action()  # a page, perhaps
            match action:
                case None:
                    return
                case Authenticate(number=number):
                    server.authenticated(number, granted(), 0.0)
                case CountReads(number=number):
                    server.reads_counted(number, None, 0.0)
                case Subscribe(number=number, logs=logs):
                    for log in logs:
                        server.subscribed(number, self.replica.open_feed(log))
                case ReadPage(feed=feed, after=after, limit=limit):
                    stored = enumerate(self.replica.logs[feed.log][after : after + limit], after + 1)
                    messages = [
                        feed.encoding.event_message(feed.log, feed.epoch, number, event) for number, event in stored
                    ]
                    server.page(feed, after, messages, 0.0)
                case Close(code=code, reason=reason):
                    while last := server.next_write(65_536):
                        server.sent(len(last))
                        self.conn.outbox.append(last)
                    self.conn.close(code, reason, 0.0)

    def write(self, server: GatewayServer) -> bool:
        """Write once, as the socket takes it. Return False when nothing was left."""
        if not self.conn.outbox:
            data = server.next_write(4_096)
            if data:
                part = data[: self.take]
                self.conn.outbox.append(server.sent(len(part)))
                self.to_client(part)
                return True
        part = bytes(self.conn.outbox.peek(self.take))
        self.conn.outbox.consume(len(part))
        self.to_client(part)
        return bool(part)

    def to_client(self, data: bytes) -> None:
        if not data:
            return
        self.ws.receive_data(data)
        for event in self.ws.events():
            match event:
                case events.AcceptConnection(subprotocol=subprotocol):
                    assert subprotocol == self.client.encoding.value
                    self.client.connected(0.0)
                case events.Message(data=payload, message_finished=finished):
                    self.part += payload if isinstance(payload, str) else bytes(payload)
                    if finished:
                        whole, self.part = self.part, self.part[:0]
                        self.client.received(whole, 0.0)
                case events.CloseConnection(code=code, reason=reason):
                    self.client.disconnected(code, reason or "", 0.0)

    def turn(self) -> None:
        """What the client wants to say reaches the server."""
        self.serve()
        for message in self.client.messages_to_send():
            frame = events.TextMessage(message) if isinstance(message, str) else events.BytesMessage(message)
            self.to_server(self.ws.send(frame))
        while (event := self.client.next_event()) is not None:
            self.events.append(event)

    def flush(self) -> None:
        for key in list(self.replica.dirty):
            self.replica.feeds.flush(key, 9, 4_096, lambda _handle, _span: 0)
            self.replica.feeds.end_overrun(key)
        self.replica.dirty.clear()


@pytest.mark.parametrize("take", [3, 100, 1 << 20])
@pytest.mark.parametrize("encoding", Encoding)
def test_events_and_the_close_arrive_whole(encoding: Encoding, take: int) -> None:
    pair = Pair(encoding, take)
    pair.replica.publish(LOG, 9, nbytes=300)
    pair.client.follow(LOG, ResumePosition(EPOCH, 2))
    for _ in range(4):
        pair.turn()
    assert pair.client.phase is ClientPhase.OPEN
    for _ in range(3):
        pair.replica.publish(LOG, 6, nbytes=300)
        pair.flush()
        pair.turn()
    seen = [event.sequence for event in pair.events if isinstance(event, told.Delivered)]
    assert seen == list(range(3, 28))
    assert told.LogLagging in {type(event) for event in pair.events}
    assert pair.server is not None
    pair.server.close(GatewayClose.SESSION_ENDED)
    pair.turn()
    assert pair.events[-1] == told.Ended(GatewayClose.SESSION_ENDED, "session ended")


def test_a_browsers_token_comes_with_the_subprotocol() -> None:
    pair = Pair(Encoding.JSON, 1 << 20, token="good")
    pair.serve()
    assert pair.server is not None
    assert pair.server.user_id is not None


@pytest.mark.parametrize(
    ("offered", "encoding", "subprotocol"),
    [
        ((), Encoding.JSON, None),
        (("openguild.v1",), Encoding.JSON, None),
        (("x, openguild.v2.msgpack", "openguild.v2"), Encoding.MSGPACK, "openguild.v2.msgpack"),
        (("openguild.v2, openguild.v2.msgpack",), Encoding.JSON, "openguild.v2"),
    ],
)
def test_the_clients_first_choice_is_spoken(
    offered: tuple[str, ...], encoding: Encoding, subprotocol: str | None
) -> None:
    headers = tuple(("sec-websocket-protocol", value) for value in offered)
    assert negotiate(Request("GET", "/", "", headers)) == (encoding, subprotocol, None)


@pytest.mark.parametrize(("status", "final"), [(403, True), (503, False)])
def test_a_refusal_that_ends_with_the_connection_is_one(status: int, final: bool) -> None:
    client = GatewayClient(Encoding.JSON, jitter=lambda: 0.5, random_bytes=bytes)
    link = GatewayLink(client)
    client.start("good", 0.0)
    link.connect("server:80", 0.0)
    link.receive_data(f"HTTP/1.1 {status} X\r\nConnection: close\r\n\r\n{{}}".encode(), 0.0)
    link.receive_data(b"", 0.0)
    assert not link.is_connected
    assert (client.phase is ClientPhase.ENDED) is final


def test_a_close_code_that_is_none_changes_nothing() -> None:
    link = GatewayLink(GatewayClient(Encoding.JSON, jitter=lambda: 0.5, random_bytes=bytes))
    link.connect("server:80", 0.0)
    with pytest.raises(LocalProtocolError):
        link.disconnect(1005)
    assert link.is_connected
    assert link.data_to_send()
