"""aiohttp's WebSocketResponse on uvloop, with a send for each subscriber in turn."""

import asyncio

import uvloop
from aiohttp import web
from common import control

sockets: set[web.WebSocketResponse] = set()
waiting: list[str] = []


async def handler(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    sockets.add(socket)
    try:
        async for _ in socket:
            pass
    finally:
        sockets.discard(socket)
    return socket


def publish(data: bytes) -> None:
    waiting.append(data.decode())


async def flushed() -> None:
    for text in waiting:
        for socket in sockets:
            await socket.send_str(text)
    waiting.clear()


async def main() -> None:
    app = web.Application()
    app.router.add_get("/{tail:.*}", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    await control(runner.addresses[0][1], publish, flushed)


with asyncio.Runner(loop_factory=uvloop.new_event_loop) as running:
    running.run(main())
