"""A server behind a proxy, controlled by a program in another language: it restarts the server, and cuts and stops the link."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anyio
import anyio.from_thread
from anyio.abc import SocketAttribute, SocketStream, TaskStatus
from anyio.from_thread import BlockingPortal

from tests.support.proxy import Proxy
from tests.support.server import ServerProcess

SMALL_BUFFER, LARGE_BUFFER = 4_096, 1 << 20  # receive buffers for data from the server, in bytes


class NarrowProxy(Proxy):
    """A proxy with small buffers: when one side does not read, the other soon blocks."""

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self._far: set[SocketStream] = set()

    async def _both(self, near: SocketStream, far: SocketStream) -> None:
        self._far.add(far)
        try:
            await super()._both(near, far)
        finally:
            self._far.discard(far)

    def black_hole(self) -> None:
        self._set_buffers(SMALL_BUFFER)
        super().black_hole()

    def heal(self) -> None:
        self._set_buffers(LARGE_BUFFER)
        super().heal()

    def _set_buffers(self, nbytes: int) -> None:
        for far in self._far:
            far.extra(SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, nbytes)


class Controlled:
    """`commands`: name -> function."""

    def __init__(self, server: ServerProcess, proxy: Proxy, portal: BlockingPortal) -> None:
        self.server = server
        self.proxy = proxy
        self._portal = portal
        self.commands: dict[str, Callable[[], object]] = {
            "restart": self.restart,
            "kill": lambda: self.restart(signal.SIGKILL),
            "short-tokens": lambda: self.restart(access_secs=12),
            "cut": self._in_loop(self._cut),
            "stop": self._in_loop(proxy.black_hole),
            "go": self._in_loop(proxy.heal),
        }

    def _in_loop(self, call: Callable[[], object]) -> Callable[[], object]:
        return lambda: self._portal.call(call)

    def _cut(self) -> None:
        self.proxy.cut()
        self.proxy.heal()

    def restart(self, number: signal.Signals = signal.SIGTERM, access_secs: int | None = None) -> None:
        self.server.stop(number)
        if access_secs is not None:
            self.server.settings["SESSION__ACCESS_TTL_SECS"] = access_secs
        self.server.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.proxy.port}"


@contextmanager
def controlled_server(database_url: str, directory: Path) -> Iterator[Controlled]:
    """Run a server on its own database, behind a proxy."""
    server = ServerProcess(directory, DATABASE_URL=database_url, WEBSOCKET__MAX_FRAMES_PER_MINUTE=0)
    with server.start(), anyio.from_thread.start_blocking_portal() as portal:
        proxy = NarrowProxy(server.port)

        async def serve(*, task_status: TaskStatus[None]) -> None:
            async with anyio.create_task_group() as tasks:
                await proxy.start(tasks)
                task_status.started()

        serving, _ = portal.start_task(serve)
        yield Controlled(server, proxy, portal)
        serving.cancel()


@contextmanager
def control_port(controlled: Controlled) -> Iterator[int]:
    """Serve the commands at `POST /<name>`; each request is answered when the command is done."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            controlled.commands[self.path.removeprefix("/")]()
            body = json.dumps({"url": controlled.url, "direct": controlled.server.base_url}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as control:
        thread = threading.Thread(target=control.serve_forever)
        thread.start()
        try:
            yield control.server_port
        finally:
            control.shutdown()
            thread.join()
