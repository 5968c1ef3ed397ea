"""OpenGuild's fan-out path alone: a server with memory storage, with events published directly into its streams."""

from __future__ import annotations

from pathlib import Path

import anyio
from common import control

from openguild_runtime.config.server_config import load
from openguild_runtime.net.listener import open_listener
from openguild_runtime.observability import logs
from openguild_runtime.process.shutdown import Shutdown, handle_signals
from openguild_runtime.server import app
from openguild_runtime.server.descriptors import raise_limit


async def run(server: app.Server) -> None:
    shutdown = Shutdown(0.0)
    async with handle_signals(shutdown) as hangups:
        await server.run(shutdown, hangups)


async def main(port: int) -> None:
    logs.configure("compact", "off")
    flags = {"storage": "memory", "host": "127.0.0.1", "port": str(port), "websocket.max_connections_per_user": 10**6}
    flags |= {"websocket.max_connections_per_address": 10**6, "websocket.max_connections": 10**6}
    flags |= {"guilds.max_channels_per_guild": 10**6, "guilds.max_writes_per_user_per_window": 10**6}
    flags |= {"session.signing_key": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"}
    flags |= {"drain.delay_secs": 0, "drain.window_secs": 0}
    config = load(flags, {}, Path("/"))
    descriptors = raise_limit()
    async with anyio.create_task_group() as tasks:
        server = app.Server(config, tasks, descriptors)
        tasks.start_soon(run, server)

        hub = server.replica.replica.hub

        def publish(payload: bytes) -> None:
            """Publish to every channel with subscribers."""
            for stream in list(hub._rings):
                if not stream.startswith("user:"):
                    server.replica.replica.release(stream, hub.head(stream) + 1, payload)
            server.replica.perform_actions()

        async def flushed() -> None:
            while server.replica.busy:
                await anyio.sleep(0.005)  # a check in each turn of the loop would be measured too

        await control(port, publish, flushed)
        tasks.cancel_scope.cancel()


def free_port() -> int:
    with open_listener("127.0.0.1", 0) as listener:
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    anyio.run(main, free_port(), backend_options={"use_uvloop": True})
