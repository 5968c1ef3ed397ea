"""picows on uvloop, with a send for each transport in turn."""

import asyncio

import uvloop
from common import control, nothing
from picows import WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

transports: set[WSTransport] = set()


class Listener(WSListener):
    def on_ws_connected(self, transport: WSTransport) -> None:
        transports.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        transports.discard(transport)


def accept(request: WSUpgradeRequest) -> Listener:
    return Listener()


def publish(data: bytes) -> None:
    for transport in transports:
        transport.send(WSMsgType.TEXT, data)


async def main() -> None:
    server = await ws_create_server(accept, "127.0.0.1", 0, backlog=4096)
    await control(server.sockets[0].getsockname()[1], publish, nothing)


with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
