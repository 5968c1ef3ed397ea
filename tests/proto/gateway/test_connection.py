"""The connection under a gateway socket: its close codes, and that it waits for slow readers."""

from __future__ import annotations

from openguild_proto.connection.server import ServerConnection
from openguild_proto.events import DeadlineExpired, PeerViolated, WebSocketRequested
from openguild_proto.gateway.close_codes import GatewayClose
from openguild_proto.gateway.connection import CONNECTION_CODES, connection_limits
from openguild_proto.limits import Limits

UPGRADE = (
    b"GET /gateway HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: openguild.v2\r\n\r\n"
)
LIMITS = Limits(max_frames_per_minute=5)
PING = b"\x89\x80\0\0\0\0"


def opened() -> ServerConnection:
    connection = ServerConnection(now=0.0, random_bytes=bytes, limits=LIMITS)
    (event,) = connection.receive_data(UPGRADE, 0.0)
    assert isinstance(event, WebSocketRequested)
    connection.accept(0.0, subprotocol="openguild.v2", codes=CONNECTION_CODES, limits=connection_limits(LIMITS))
    connection.data_to_send()
    return connection


def test_too_many_frames_have_a_code_of_their_own() -> None:
    connection = opened()
    events = connection.receive_data(PING * 20, 1.0)
    while more := connection.next_events(1.0):
        events += more
    assert [event.close_hint for event in events if isinstance(event, PeerViolated)] == [GatewayClose.FRAME_RATE]
    assert int(GatewayClose.FRAME_RATE).to_bytes(2, "big") in b"".join(connection.data_to_send())


def test_a_frame_that_takes_too_long_has_one_too() -> None:
    connection = opened()
    connection.receive_data(b"\x81", 1.0)
    events = connection.handle_deadline(1.0 + LIMITS.frame_timeout_secs)
    assert [event.name for event in events if isinstance(event, DeadlineExpired)] == ["frame"]
    assert int(GatewayClose.SLOW_FRAME).to_bytes(2, "big") in b"".join(connection.data_to_send())


def test_a_reader_that_takes_nothing_for_a_minute_stays() -> None:
    connection = opened()
    connection.write_blocked(1.0)
    assert connection.handle_deadline(61.0) == []
    assert connection.is_open
    assert b"".join(connection.data_to_send()) == b"", "no pings"
