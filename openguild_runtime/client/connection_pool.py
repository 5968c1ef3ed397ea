"""Connections to a service at one or several addresses: selects the address, keeps idle connections, sends requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import anyio
from anyio.abc import ByteStream

from openguild_proto.client import ClientResponse, ConnectionBroken, HttpClient, proxy_answer_reason
from openguild_runtime.client.transport import (
    ATTEMPT_SECS,
    TRANSPORT_ERRORS,
    Address,
    ClientClosed,
    Connect,
    TlsFailed,
    close,
    describe_failure,
    is_stale_connection,
    receive,
)

IDLE_CONNECTIONS = 8
IDLE_SECS = 30.0  # below the limits of servers and proxies (60 s and more), which close idle connections


@dataclass(slots=True, eq=False)
class _Connection:
    address: Address
    stream: ByteStream
    http: HttpClient
    loop: asyncio.AbstractEventLoop
    kept: bool = False  # whether it has been used before
    idle_since: float = 0.0


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """The outcome of one attempt: a response, or the reason why there is none."""

    response: ClientResponse | None
    reason: str = ""
    ended_idle: bool = False
    """Whether a kept connection ended before the first byte of the response. It is unknown whether the server received the
    request. A repeatable one is sent again at once on a new connection."""


class ConnectionPool:
    """Sends requests to the preferred address, and keeps idle connections. Raises ValueError without addresses."""

    def __init__(self, urls: tuple[str, ...], connect: Connect, clock: Callable[[], float]) -> None:
        self.connect = connect
        self._clock = clock
        self._addresses = tuple(Address.of(url) for url in urls)
        self._preferred = 0
        self._idle: list[_Connection] = []  # newest last
        self._is_closed = False
        self._was_answered = False  # by any address: later failures may be temporary, such as an expired certificate
        if not self._addresses:
            raise ValueError("at least one address is needed")

    async def aclose(self) -> None:
        """Close idle connections, and open no more."""
        self._is_closed = True
        await self._close_idle(lambda connection: True)

    def require_open(self) -> None:
        """Raise ClientClosed after `aclose`."""
        if self._is_closed:
            raise ClientClosed

    @property
    def address(self) -> Address:
        """The address to use next."""
        return self._addresses[self._preferred]

    def mark_failed(self, address: Address) -> None:
        """Move to the next address after `address` failed, unless another task has already done so."""
        if self.address == address:
            self._preferred = (self._preferred + 1) % len(self._addresses)

    async def attempt(
        self, method: str, path: str, data: bytes, token: str | None, key: str | None = None, *, fresh: bool
    ) -> AttemptResult:
        """Send one request and return its response, or why the transport failed.

        Raises TlsFailed if there is no other address and no request was answered yet, and ClientClosed after `aclose`.

        `key` is the idempotency key. `fresh` uses a new connection, for a request that cannot be repeated: a kept connection may
        be closing.
        """
        self.require_open()
        headers: tuple[tuple[str, str], ...] = ()
        if data:
            headers += (("content-type", "application/json"),)
        if key is not None:
            headers += (("idempotency-key", key),)
        if token is not None:
            headers += (("authorization", f"Bearer {token}"),)
        address = self.address
        connection: _Connection | None = None
        answered = False
        try:
            with anyio.fail_after(ATTEMPT_SECS):
                connection = await self._connection(address, fresh=fresh)
                await connection.stream.send(connection.http.send_request(method, path, headers, data))
                response: ClientResponse | None = None
                while response is None:
                    part = await receive(connection.stream)
                    answered = answered or part != b""
                    response = connection.http.receive_data(part)
        except (*TRANSPORT_ERRORS, ConnectionBroken) as failure:
            if isinstance(failure, TlsFailed) and len(self._addresses) == 1 and not self._was_answered:
                raise
            if connection is not None:
                await close(connection.stream)
            await self._close_idle(lambda idle: idle.address == address)  # they are probably broken too
            late = isinstance(failure, TimeoutError)
            ended_idle = connection is not None and connection.kept and not answered and not late
            if not ended_idle:
                self.mark_failed(address)
            return AttemptResult(None, describe_failure(failure), ended_idle)
        except BaseException:  # cancelled within an exchange: the connection cannot be used again
            if connection is not None:
                await close(connection.stream)
            raise
        self._was_answered = True
        await self._keep_idle(connection)
        foreign = proxy_answer_reason(response)
        if foreign is not None:  # counts as no response
            self.mark_failed(address)
            return AttemptResult(None, foreign)
        if response.status == 503:  # the server is draining or unavailable
            self.mark_failed(address)
        return AttemptResult(response)

    async def _connection(self, address: Address, *, fresh: bool) -> _Connection:
        if not fresh:
            oldest = self._clock() - IDLE_SECS
            await self._close_idle(lambda idle: idle.idle_since < oldest)
            while (newest := self._take_newest_idle(address)) is not None:
                if not is_stale_connection(newest.stream):
                    return newest
                await close(newest.stream)
        return _Connection(
            address, await self.connect(address), HttpClient(address.authority), asyncio.get_running_loop()
        )

    def _take_newest_idle(self, address: Address) -> _Connection | None:
        """Remove and return the newest idle connection to `address`, or None."""
        for place in reversed(range(len(self._idle))):
            if self._idle[place].address == address:
                return self._idle.pop(place)
        return None

    async def _keep_idle(self, connection: _Connection) -> None:
        if connection.http.reusable and not self._is_closed and len(self._idle) < IDLE_CONNECTIONS:
            connection.kept, connection.idle_since = True, self._clock()
            self._idle.append(connection)
        else:
            await close(connection.stream)

    async def _close_idle(self, is_over: Callable[[_Connection], bool]) -> None:
        loop = asyncio.get_running_loop()
        alive = [connection for connection in self._idle if connection.loop is loop]  # others cannot be used or closed
        over = [connection for connection in alive if is_over(connection)]
        self._idle = [connection for connection in alive if connection not in over]
        for connection in over:
            await close(connection.stream)
