"""A TCP proxy between clients and workers that causes the faults of a plan, which the core makes."""

from __future__ import annotations

import secrets
import socket
import struct
from contextlib import suppress

import anyio
import structlog
from anyio.abc import SocketAttribute, SocketStream

from openguild_proto import RequestReceived, ServerConnection, WebSocketRequested
from openguild_proto.errors import ErrorCode
from openguild_proto.http.refusal import error_response
from openguild_proto.policy.chaos import ChaosPlan, ConnectionPlan, Fault

RECEIVE_BYTES = 16_384
STALLED_BUFFER_BYTES = 4_096  # the kernel's receive buffer, small so that the server soon sees a slow reader
CONNECT_SECS = 2.0
GONE = (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)

log = structlog.get_logger("openguild.chaos")


class ChaosProxy:
    """Forwards connections to `target`, (host, port). Each has its own plan of faults."""

    def __init__(self, plan: ChaosPlan, target: tuple[str, int]) -> None:
        self._plan = plan
        self._target = target
        self._count = 0

    async def serve(self, stream: SocketStream) -> None:
        """Serve one connection until it ends."""
        self._count += 1
        plan = self._plan.next_connection()
        log.info("connection", number=self._count, fault=plan.fault.value, after_bytes=plan.after_bytes)
        async with stream:
            with anyio.move_on_after(plan.life_secs), suppress(*GONE):
                match plan.fault:
                    case Fault.RESET:
                        pass
                    case Fault.BUSY:
                        await _refuse_requests(stream)
                        return
                    case _:
                        await self._forward(stream, plan)
            if plan.fault in {Fault.RESET, Fault.CUT}:
                _reset_at_close(stream)

    async def _forward(self, client: SocketStream, plan: ConnectionPlan) -> None:
        with anyio.fail_after(CONNECT_SECS):
            server = await _connect(self._target, slow=plan.fault is Fault.STALL)
        async with server, anyio.create_task_group() as tasks:

            async def upload() -> None:
                with suppress(*GONE):
                    while True:
                        await server.send(await client.receive(RECEIVE_BYTES))
                tasks.cancel_scope.cancel()

            tasks.start_soon(upload)
            with suppress(*GONE):
                await _download(server, client, plan)
            tasks.cancel_scope.cancel()


async def _connect(target: tuple[str, int], *, slow: bool) -> SocketStream:
    raw = socket.socket(socket.AF_INET6 if ":" in target[0] else socket.AF_INET, socket.SOCK_STREAM)
    raw.setblocking(False)
    if slow:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, STALLED_BUFFER_BYTES)
    with suppress(BlockingIOError):
        raw.connect(target)
    await anyio.wait_writable(raw)
    failure = raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if failure:
        raw.close()
        raise OSError(failure, "the worker does not listen")
    return await SocketStream.from_socket(raw)


async def _download(server: SocketStream, client: SocketStream, plan: ConnectionPlan) -> None:
    left = plan.after_bytes if plan.fault in {Fault.CUT, Fault.STALL} else None
    while True:
        data = await server.receive(RECEIVE_BYTES)
        if plan.delay_secs:
            await anyio.sleep(plan.delay_secs)
        if left is not None and len(data) >= left:
            await client.send(data[:left])
            if plan.fault is Fault.CUT:
                return
            await anyio.sleep(plan.stall_secs)
            data, left = data[left:], None
        elif left is not None:
            left -= len(data)
        if data:
            await client.send(data)


async def _refuse_requests(stream: SocketStream) -> None:
    """Respond to every request as an overloaded server."""
    conn = ServerConnection(now=anyio.current_time(), random_bytes=secrets.token_bytes)
    while not conn.is_over:
        now = anyio.current_time()
        for event in conn.receive_data(await stream.receive(RECEIVE_BYTES), now):
            if isinstance(event, RequestReceived | WebSocketRequested):
                conn.respond(error_response(ErrorCode.OVERLOADED, event.request.request_id), now)
        for part in conn.data_to_send():
            await stream.send(bytes(part))


def _reset_at_close(stream: SocketStream) -> None:
    raw = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - anyio's, not Django's
    with suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
