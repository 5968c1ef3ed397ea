"""A connection in a test: bytes in, events and bytes out, any split of the bytes, and a fixed clock."""

from __future__ import annotations

from collections.abc import Iterable

from openguild_proto.connection.server import ServerConnection
from openguild_proto.events import Event, RequestReceived, WebSocketRequested
from openguild_proto.http.headers import HeaderPolicy
from openguild_proto.http.message import Response
from openguild_proto.limits import Limits

HEAD = b"GET /a?b=c HTTP/1.1\r\nHost: localhost\r\n"
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def fixed_bytes(count: int) -> bytes:
    """Return bytes that are the same on every call."""
    return bytes(range(count))


def connection(limits: Limits | None = None, policy: HeaderPolicy | None = None, now: float = 0.0) -> ServerConnection:
    return ServerConnection(
        now=now,
        random_bytes=fixed_bytes,
        limits=limits or Limits(),
        policy=policy or HeaderPolicy(),
        peer_address="192.0.2.7",
    )


def drive(conn: ServerConnection, chunks: Iterable[bytes], now: float = 0.0) -> tuple[list[Event], bytes]:
    """Feed the chunks, answer every request with 200 and accept every upgrade. Return the events and the bytes to send."""
    events: list[Event] = []
    sent = bytearray()
    for chunk in chunks:
        new = conn.receive_data(chunk, now)
        while new:
            for event in new:
                match event:
                    case RequestReceived():
                        conn.respond(Response.text("ok"), now)
                    case WebSocketRequested():
                        conn.accept(now)
            events += new
            new = conn.next_events(now)
        sent += b"".join(conn.data_to_send())
    return events, bytes(sent)


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Return `data` in pieces, split at `places`."""
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def masked(first: int, payload: bytes, mask: bytes = b"\x01\x02\x03\x04") -> bytes:
    """Return a client's frame."""
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65_536:
        head = bytes((first, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 0x80 | 127)) + size.to_bytes(8, "big")
    return head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


def opened(limits: Limits | None = None) -> ServerConnection:
    """Return a connection that has become a WebSocket."""
    conn = connection(limits)
    drive(conn, [HANDSHAKE])
    assert conn.is_websocket
    return conn
