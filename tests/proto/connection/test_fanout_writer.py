"""The write side of a connection with a ring: order, cut frames, blocked and lagged readers, any sizes of sends."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from openguild_proto import (
    FanoutWriter,
    Hub,
    LocalProtocolError,
    PeerGone,
    ServerConnection,
    SubscriberState,
    text_frame,
)
from openguild_proto.ws import reasons
from openguild_proto.ws.frames import close_frame

RING = "room"
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Socket:
    """Accepts as many bytes as there are numbers for, then everything."""

    def __init__(self, *accepts: int) -> None:
        self.accepts = list(accepts)
        self.got = b""

    def send(self, data: bytes | memoryview) -> int:
        size = self.accepts.pop(0) if self.accepts else len(data)
        if not size:
            raise BlockingIOError
        self.got += bytes(data[:size])
        return min(size, len(data))


def opened(capacity_events: int = 8) -> tuple[Hub, ServerConnection, FanoutWriter]:
    hub = Hub(capacity_events=capacity_events)
    hub.open(RING, head=0)
    conn = ServerConnection(now=0.0, random_bytes=bytes)
    conn.receive_data(HANDSHAKE, 0.0)
    conn.accept(0.0)
    conn.data_to_send()
    writer = FanoutWriter(conn, hub)
    writer.subscribe(RING, since=0)
    return hub, conn, writer


def publish(hub: Hub, *texts: bytes) -> bytes:
    for text in texts:
        hub.publish(RING, text_frame(text), sequence=hub.head(RING) + 1)
    return b"".join(map(text_frame, texts))


@given(st.lists(st.integers(0, 40), max_size=30))
def test_all_arrives_whatever_the_socket_accepts(accepts: list[int]) -> None:
    hub, conn, writer = opened(64)
    socket, before = Socket(*accepts), conn.next_deadline()
    frames = b"".join([publish(hub, b"%d" % number * 9) for number in range(12)])
    while not writer.write(socket.send, 1.0):
        assert conn.is_write_blocked
        assert writer.subscriber is not None
        assert writer.subscriber.parked
    assert socket.got == frames
    assert conn.next_deadline() == before
    assert writer.subscriber is not None
    assert not writer.subscriber.parked
    assert hub.depth(RING) == 0


def test_a_reply_waits_for_the_rest_of_a_cut_frame() -> None:
    hub, conn, writer = opened()
    socket = Socket(3, 0)
    frame = publish(hub, b"hello")
    assert not writer.write(socket.send, 0.0)
    conn.send_text("reply", 0.0)
    later = publish(hub, b"later")
    assert hub.flush_plan(RING, 10) == [], "it is parked"
    assert not writer.write(socket.send, 0.0)
    assert writer.write(socket.send, 0.0)
    assert socket.got == frame + text_frame(b"reply") + later


def test_a_connection_that_has_ended_reads_no_longer() -> None:
    hub, conn, writer = opened()
    assert conn.receive_eof(0.0) == [PeerGone()]
    publish(hub, b"hello")
    socket = Socket()
    assert writer.write(socket.send, 0.0)
    assert (socket.got, hub.subscriber_count(RING)) == (b"", 0)


def test_a_lagged_reader_is_closed_behind_its_cut_frame() -> None:
    hub, _, writer = opened(capacity_events=4)
    socket = Socket(3)
    frame = publish(hub, b"hello")
    assert not writer.write(socket.send, 0.0)
    publish(hub, *[b"more"] * 6)
    [lagged] = hub.take_lagged(limit=10)
    assert lagged.subscriber is writer.subscriber
    writer.close_lagged(lagged, 0.0)
    assert writer.write(socket.send, 0.0)
    assert socket.got == frame + close_frame(1008, reasons.lagged(lagged.missed, 1))
    assert lagged.subscriber.state is SubscriberState.LAGGED


def test_misuse_is_refused() -> None:
    hub, conn, writer = opened()
    with pytest.raises(LocalProtocolError):
        writer.subscribe(RING, since=0)
    with pytest.raises(LocalProtocolError):
        FanoutWriter(ServerConnection(now=0.0, random_bytes=bytes), hub).subscribe(RING, since=0)
    writer.end()
    writer.end()
    assert hub.subscriber_count(RING) == 0
    assert conn.is_open
