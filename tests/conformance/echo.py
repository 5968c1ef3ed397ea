"""An echo server on the core's connection and asyncio, with limits raised for the fuzzing client.

At `/gateway` it accepts the upgrade as that of a gateway socket: with its limits, raised as well, and its close codes.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from time import monotonic

from openguild_proto import (
    BytesReceived,
    Event,
    RequestReceived,
    ServerConnection,
    TextReceived,
    Wants,
    WebSocketRequested,
)
from openguild_proto.gateway.connection import CONNECTION_CODES, connection_limits
from openguild_proto.http.message import Response
from openguild_proto.limits import Limits

LIMITS = Limits(
    max_message_bytes=32 * 1024 * 1024,  # cases 9.* send up to 16 MiB
    max_frames_per_minute=0,
    max_message_fragments=1_000_000,
    max_outbox_bytes=64 * 1024 * 1024,
)
GATEWAY_LIMITS = replace(
    connection_limits(LIMITS),
    max_message_bytes=LIMITS.max_message_bytes,
    max_message_fragments=LIMITS.max_message_fragments,
    max_outbox_bytes=LIMITS.max_outbox_bytes,
)


class Echo(asyncio.Protocol):
    """One connection, which sends back what it receives."""

    def __init__(self) -> None:
        self._conn = ServerConnection(now=monotonic(), random_bytes=secrets.token_bytes, limits=LIMITS)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._take(self._conn.receive_data(data, monotonic()))

    def eof_received(self) -> None:
        self._take(self._conn.receive_eof(monotonic()))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _take(self, events: list[Event]) -> None:
        while events:
            for event in events:
                self._answer(event)
                self._send()
            events = self._conn.next_events(monotonic())
        self._send()

    def _answer(self, event: Event) -> None:
        match event:
            case WebSocketRequested(request=request) if request.path == "/gateway":
                self._conn.accept(monotonic(), codes=CONNECTION_CODES, limits=GATEWAY_LIMITS)
            case WebSocketRequested():
                self._conn.accept(monotonic())
            case TextReceived(text=text):
                self._conn.send_text(text, monotonic())
            case BytesReceived(data=data):
                self._conn.send_bytes(data, monotonic())
            case RequestReceived():
                self._conn.respond(Response.text("an echo server for WebSockets\n"), monotonic())

    def _send(self) -> None:
        assert self._transport is not None
        now = monotonic()
        for part in self._conn.data_to_send():
            self._transport.write(part)
            self._conn.wrote(len(part), now)
        match self._conn.wants:
            case Wants.SHUT_WRITE | Wants.CLOSE:
                self._transport.close()
                return
            case Wants.ABORT:
                self._transport.abort()
                return
        if self._timer is not None:
            self._timer.cancel()
        deadline = self._conn.next_deadline()
        if deadline is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, deadline - now), self._expire)

    def _expire(self) -> None:
        self._take(self._conn.handle_deadline(monotonic()))


async def serve(port: int = 0) -> asyncio.Server:
    """Return a server that listens on 127.0.0.1; its first socket has the port."""
    return await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port)
