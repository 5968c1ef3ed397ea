"""A server on a real socket whose answers the test writes: the core speaks the protocol, a function answers."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import anyio
from anyio.abc import ByteStream

from openguild_proto import RequestReceived, Response, ServerConnection, WebSocketRequested, text_frame
from openguild_proto.http.message import Request
from openguild_proto.ws.frames import close_frame
from openguild_runtime.client.transport import TRANSPORT_ERRORS, close, receive

Answer = Callable[[Request], Response | None]


class Scripted:
    """`answer(request)` returns the response, or None to accept an upgrade or to leave a request unanswered."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.url = ""
        self.requests: list[Request] = []
        self.connections = 0
        self.ended = 0  # number of ended connections
        self.streams: list[ByteStream] = []  # all connections
        self.sockets: list[ByteStream] = []  # upgraded connections

    def paths(self) -> list[str]:
        return [request.path + (f"?{request.query}" if request.query else "") for request in self.requests]

    async def say(self, sequence: int) -> None:
        """Send the next event of a channel on the newest socket."""
        await self.sockets[-1].send(text_frame(b'{"sequence":%d,"channel_id":"c","event":{}}' % sequence))

    async def end(self, code: int, reason: str = "") -> None:
        """Close the newest socket with a code."""
        await self.sockets[-1].send(close_frame(code, reason))

    async def end_all(self) -> None:
        """End every connection, as an idle timeout does."""
        for stream in self.streams:
            await stream.aclose()

    async def serve(self, stream: ByteStream) -> None:
        self.connections += 1
        self.streams.append(stream)
        conn = ServerConnection(now=time.monotonic(), random_bytes=secrets.token_bytes)
        try:
            with suppress(*TRANSPORT_ERRORS):
                while not conn.is_over and (data := await receive(stream)):
                    await self._feed(conn, stream, data)
        finally:
            self.ended += 1
            await close(stream)

    async def _feed(self, conn: ServerConnection, stream: ByteStream, data: bytes) -> None:
        now = time.monotonic()
        accepted = False
        for event in conn.receive_data(data, now):  # the client does not pipeline
            if not isinstance(event, RequestReceived | WebSocketRequested):
                continue
            self.requests.append(event.request)
            response = self.answer(event.request)
            if response is not None:
                conn.respond(response, now)
            elif isinstance(event, WebSocketRequested):
                conn.accept(now)
                accepted = True
        for part in conn.data_to_send():
            await stream.send(bytes(part))
        if accepted:
            self.sockets.append(stream)


@asynccontextmanager
async def scripted(answer: Answer, kind: type[Scripted] = Scripted) -> AsyncIterator[Scripted]:
    """Serve on a loopback port until the block ends."""
    server = kind(answer)
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        server.url = f"http://127.0.0.1:{port}"
        tasks.start_soon(listener.serve, server.serve)
        yield server
        tasks.cancel_scope.cancel()
