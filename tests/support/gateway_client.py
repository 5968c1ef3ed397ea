"""Drives the core's gateway client over real sockets, moving to the next server whenever a connection ends."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from openguild_proto.gateway.client import GatewayClient
from openguild_proto.gateway.client_events import ClientEvent, Connect, Delivered, Disconnect, Ended
from openguild_proto.gateway.encoding import Encoding


class DrivenClient:
    """`sequences`: log -> delivered sequences. `codes`: the close codes of its connections; None for those that ended without one.

    After a drain notice the client itself ends the connection.
    """

    def __init__(self, urls: Sequence[str], encoding: Encoding = Encoding.JSON) -> None:
        self.client = GatewayClient(encoding, jitter=random.random, random_bytes=random.randbytes)
        self.sequences: dict[str, list[int]] = {}
        self.codes: list[int | None] = []
        self.connections = 0  # made so far
        self.events: list[ClientEvent] = []
        self.longest_silence_secs = 0.0  # between two deliveries
        self._delivered_at: float | None = None
        self._urls = itertools.cycle(urls)
        self._socket: ClientConnection | None = None

    async def run(self, token: str) -> None:
        """Run until the client is closed, ends by itself, or this is cancelled."""
        try:
            await self._run(token)
        finally:
            if self._socket is not None:
                self._socket.transport.abort()

    async def _run(self, token: str) -> None:
        loop = asyncio.get_running_loop()
        self.client.start(token, loop.time())
        while await self._perform_actions():
            deadline = self.client.next_deadline()
            timeout = None if deadline is None else max(0.0, deadline - loop.time())
            try:
                async with asyncio.timeout(timeout):
                    if self._socket is None:
                        await asyncio.Event().wait()
                    else:
                        self.client.received(await self._socket.recv(), loop.time())
            except TimeoutError:
                pass
            except ConnectionClosed as closed:
                self._lost(closed.rcvd.code if closed.rcvd is not None else None, loop.time())
            self.client.handle_deadline(loop.time())

    def _lost(self, code: int | None, now: float) -> None:
        self._socket = None
        self.codes.append(code)
        self.client.disconnected(code, "", now)

    async def _perform_actions(self) -> bool:
        """Carry out the client's actions. Return False if it has ended."""
        while (event := self.client.next_event()) is not None:
            match event:
                case Connect():
                    await self._connect(next(self._urls))
                case Disconnect(code=code):
                    socket, self._socket = self._socket, None
                    if socket is not None:
                        await socket.close(code)
                case Delivered(log=log, sequence=sequence):
                    self._delivered()
                    self.sequences.setdefault(log, []).append(sequence)
                case Ended():
                    return False
                case _:
                    self.events.append(event)
        for message in self.client.messages_to_send() if self._socket is not None else ():
            await self._socket.send(message)
        return True

    def _delivered(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._delivered_at is not None:
            self.longest_silence_secs = max(self.longest_silence_secs, now - self._delivered_at)
        self._delivered_at = now

    async def _connect(self, url: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._socket = await connect(
                url, subprotocols=[self.client.encoding.value], compression=None, proxy=None, max_queue=None  # type: ignore[list-item]  # a NewType
            )  # fmt: skip
        except (OSError, InvalidHandshake):
            self.client.disconnected(None, "", loop.time())
        else:
            self.connections += 1
            self.client.connected(loop.time())
