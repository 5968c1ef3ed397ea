"""The simple way: a task and a memory stream for each subscriber, with anyio on uvloop, and wsproto for the frames."""

from __future__ import annotations

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.memory import MemoryObjectSendStream
from common import control, nothing
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request, TextMessage

queues: set[MemoryObjectSendStream[str]] = set()


async def serve(stream: SocketStream) -> None:
    connection = WSConnection(ConnectionType.SERVER)
    send, receive = anyio.create_memory_object_stream[str](1_000)
    async with stream, receive:
        while True:
            connection.receive_data(await stream.receive())
            if any(isinstance(event, Request) for event in connection.events()):
                break
        await stream.send(connection.send(AcceptConnection()))
        queues.add(send)
        try:
            async for text in receive:
                await stream.send(connection.send(TextMessage(text)))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            queues.discard(send)


def publish(data: bytes) -> None:
    text = data.decode()
    for queue in queues:
        queue.send_nowait(text)


async def main() -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", backlog=4096)
    port = listener.extra(SocketAttribute.local_port)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        await control(port, publish, nothing)
        tasks.cancel_scope.cancel()


anyio.run(main, backend_options={"use_uvloop": True})
