"""`websockets.broadcast` on uvloop."""

import asyncio

import uvloop
from common import control, nothing
from websockets.asyncio.server import ServerConnection, broadcast, serve

connections: set[ServerConnection] = set()


async def handler(connection: ServerConnection) -> None:
    connections.add(connection)
    try:
        await connection.wait_closed()
    finally:
        connections.discard(connection)


async def main() -> None:
    async with serve(handler, "127.0.0.1", 0, compression=None, ping_interval=None, backlog=4096) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        await control(port, lambda data: broadcast(connections, data.decode()), nothing)


with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
