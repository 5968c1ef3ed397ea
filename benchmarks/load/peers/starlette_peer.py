"""Starlette's WebSocket under uvicorn on uvloop, with a send for each subscriber in turn."""

import asyncio
import socket

import uvicorn
import uvloop
from common import control
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

sockets: set[WebSocket] = set()
waiting: list[str] = []


async def handler(connection: WebSocket) -> None:
    await connection.accept()
    sockets.add(connection)
    try:
        while True:
            await connection.receive_text()
    except WebSocketDisconnect:
        sockets.discard(connection)


def publish(data: bytes) -> None:
    waiting.append(data.decode())


async def flushed() -> None:
    for text in waiting:
        for connection in sockets:
            await connection.send_text(text)
    waiting.clear()


async def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    app = Starlette(routes=[WebSocketRoute("/{path:path}", handler)])
    config = uvicorn.Config(
        app, log_level="error", ws="websockets", ws_per_message_deflate=False, ws_ping_interval=None
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    await control(listener.getsockname()[1], publish, flushed)
    server.should_exit = True
    await serving


with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
