"""Keeps connections to other servers open between requests, and bounds the number of concurrent requests."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
from anyio.abc import ByteStream

from openguild_proto.client.http import ClientResponse, ConnectionBroken, HttpClient
from openguild_proto.effects.federation import PeerUnavailable
from openguild_proto.federation.signatures import SIGNATURE
from openguild_proto.http.message import Headers
from openguild_proto.limits import MAX_PEER_ANSWER_BYTES
from openguild_proto.policy.response_times import ResponseTimes
from openguild_proto.policy.server_slots import ServerSlots
from openguild_runtime.federation.dialer import Dialer

IDLE_SECS = 30.0  # below the idle limits of servers and proxies
MAX_IDLE = 256  # for all servers together
MAX_IDLE_PER_SERVER = 8
MAX_AT_ONCE = 64
MAX_AT_ONCE_PER_SERVER = 8
RECEIVE_BYTES = 65_536
TRANSPORT_ERRORS = (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)


@dataclass(slots=True, eq=False)
class _Connection:
    stream: ByteStream
    http: HttpClient
    idle_since: float | None = None  # None until it has been used


class PeerConnections:
    """Sends requests to other servers. `clock` returns monotonic seconds. `response_times` records how fast servers answer."""

    def __init__(self, dialer: Dialer, clock: Callable[[], float], response_times: ResponseTimes) -> None:
        self._dialer = dialer
        self._clock = clock
        self._idle: OrderedDict[_Connection, tuple[str, str]] = OrderedDict()  # oldest first
        self._response_times = response_times
        self._places: ServerSlots[anyio.Event] = ServerSlots(MAX_AT_ONCE_PER_SERVER, MAX_AT_ONCE, response_times)

    async def aclose(self) -> None:
        """Close idle connections."""
        while self._idle:
            await close(self._idle.popitem()[0].stream)

    async def request(
        self,
        server: str,
        base_url: str,
        authority: str,
        *,
        method: str,
        target: str,
        headers: Callable[[], Headers],
        body: bytes = b"",
        max_bytes: int = MAX_PEER_ANSWER_BYTES,
        reuses: bool = True,
        timeout_secs: float,
    ) -> ClientResponse:
        """Send a request and return its answer. Raises PeerUnavailable.

        `headers` is called each time the request is sent. `max_bytes` limits the answer. If a kept connection ends before the
        first byte of the answer, the request is sent once more on a new one: requests between servers may be repeated.
        """
        started, waiting = False, True
        try:
            with anyio.fail_after(timeout_secs):
                async with self._place(server):
                    waiting = False
                    key = (base_url, authority)
                    kept = self._take(key) if reuses else None
                    if kept is not None:
                        started = True
                        answer = await self._exchange(kept, key, server, method, target, headers, body, max_bytes)
                        if answer is not None:
                            return answer
                    stream = await self._dialer.connect(server, base_url)
                    fresh = _Connection(stream, HttpClient(authority))
                    started = True
                    answer = await self._exchange(fresh, key, server, method, target, headers, body, max_bytes)
                    if answer is None:
                        raise PeerUnavailable(server, "broken", "the connection ended", sent=True)
                    return answer
        except TimeoutError:
            if started:
                raise PeerUnavailable(server, "timeout", sent=True) from None
            raise PeerUnavailable(server, "busy" if waiting else "connect") from None

    @asynccontextmanager
    async def _place(self, server: str) -> AsyncIterator[None]:
        if not self._places.take(server, self._clock()):
            await self._wait(server)
        began, answered = self._clock(), False
        try:
            yield
            answered = True
        finally:
            now = self._clock()
            self._response_times.note(server, now - began, now, answered=answered)
            self._leave(server)

    async def _wait(self, server: str) -> None:
        turn = anyio.Event()
        self._places.wait(server, turn)
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():  # got the slot as the caller gave up
                self._leave(server)
            else:
                self._places.give_up(server, turn)
            raise

    def _leave(self, server: str) -> None:
        for turn in self._places.leave(server, self._clock()):
            turn.set()

    async def _exchange(
        self,
        connection: _Connection,
        key: tuple[str, str],
        server: str,
        method: str,
        target: str,
        headers: Callable[[], Headers],
        body: bytes,
        max_bytes: int,
    ) -> ClientResponse | None:
        """Send a request and return its answer, or None if the connection ended before the first byte.

        The connection is kept only after a signed answer: without a signature, it may lead to a former address of the server.
        """
        received = signed = False
        try:
            await connection.stream.send(connection.http.send_request(method, target, headers(), body, max_bytes))
            while True:
                try:
                    part = await connection.stream.receive(RECEIVE_BYTES)
                except anyio.EndOfStream:
                    part = b""
                received = received or part != b""
                answer = connection.http.receive_data(part)
                if answer is not None:
                    signed = answer.header(SIGNATURE) is not None
                    return answer
        except (*TRANSPORT_ERRORS, ConnectionBroken) as failure:
            if not received:
                return None
            raise PeerUnavailable(server, "broken", str(failure), sent=True) from failure
        finally:
            if signed and connection.http.reusable:
                await self._keep(connection, key)
            else:
                await close(connection.stream)

    def _take(self, key: tuple[str, str]) -> _Connection | None:
        """Remove and return the newest idle connection, or None."""
        for connection in reversed(self._idle):
            if self._idle[connection] == key and self._clock() - (connection.idle_since or 0.0) < IDLE_SECS:
                del self._idle[connection]
                return connection
        return None

    async def _keep(self, connection: _Connection, key: tuple[str, str]) -> None:
        connection.idle_since = now = self._clock()
        self._idle[connection] = key
        over = [old for old in self._idle if now - (old.idle_since or 0.0) >= IDLE_SECS]
        same = [old for old, known in self._idle.items() if known == key]
        over += same[:-MAX_IDLE_PER_SERVER]
        over += list(self._idle)[: max(0, len(self._idle) - MAX_IDLE)]
        for old in dict.fromkeys(over):
            del self._idle[old]
            await close(old.stream)


async def close(stream: ByteStream) -> None:
    """Close without a TLS shutdown: the answer is complete, or not needed."""
    await anyio.aclose_forcefully(stream)
