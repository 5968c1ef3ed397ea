"""One service behind one or several addresses: which is tried next, kept connections, one exchange."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import anyio
from anyio.abc import ByteStream

from openguild_proto.client import ClientResponse, ConnectionBroken, HttpClient, proxy_answer_reason
from openguild_runtime.client.transport import (
    ATTEMPT_SECS,
    TRANSPORT_ERRORS,
    Address,
    Connect,
    close,
    describe_failure,
    is_stale_connection,
    receive,
)

IDLE_CONNECTIONS = 8
IDLE_SECS = (
    30.0  # ours: below what servers and proxies allow (60 s and more), so that they seldom end one under a request
)


@dataclass(slots=True, eq=False)
class _Connection:
    address: Address
    stream: ByteStream
    http: HttpClient
    kept: bool = False  # it has served before
    idle_since: float = 0.0


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """What came of one attempt: a response, or the reason why there is none."""

    response: ClientResponse | None
    reason: str = ""
    ended_idle: bool = False
    """A kept connection ended without a byte of an answer. The server is not to blame, so a request that may be repeated
    goes out at once on a fresh one; but nobody knows whether this one arrived."""


class ConnectionPool:
    """Picks the address to try next, keeps idle connections, makes one exchange. Raises ValueError without addresses."""

    def __init__(self, urls: tuple[str, ...], connect: Connect, clock: Callable[[], float]) -> None:
        self.connect = connect
        self._clock = clock
        self._addresses = tuple(Address.of(url) for url in urls)
        self._preferred = 0
        self._idle: list[_Connection] = []  # the newest is the last
        if not self._addresses:
            raise ValueError("at least one address is needed")

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._close_idle(lambda connection: True)

    @property
    def address(self) -> Address:
        """The address that is tried next."""
        return self._addresses[self._preferred]

    def mark_failed(self, address: Address) -> None:
        """`address` failed: try the next one, unless somebody has moved on already."""
        if self.address == address:
            self._preferred = (self._preferred + 1) % len(self._addresses)

    async def attempt(self, method: str, path: str, data: bytes, token: str | None, *, fresh: bool) -> AttemptResult:
        """One request and its response, or why the transport failed.

        `fresh`: on a new connection, because a kept one may be ending just now and the request is not to be repeated.
        """
        headers: tuple[tuple[str, str], ...] = ()
        if data:
            headers += (("content-type", "application/json"),)
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
            if connection is not None:
                await close(connection.stream)
            await self._close_idle(lambda idle: idle.address == address)  # they are as old, and have the same server
            late = isinstance(failure, TimeoutError)
            ended_idle = connection is not None and connection.kept and not answered and not late
            if not ended_idle:
                self.mark_failed(address)
            return AttemptResult(None, describe_failure(failure), ended_idle)
        except BaseException:  # its caller was cancelled: half an exchange is on it, so nobody can use it again
            if connection is not None:
                await close(connection.stream)
            raise
        await self._keep_idle(connection)
        foreign = proxy_answer_reason(response)
        if foreign is not None:  # as good as no answer
            self.mark_failed(address)
            return AttemptResult(None, foreign)
        if response.status == 503:  # this one is going away or cannot serve now
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
        return _Connection(address, await self.connect(address), HttpClient(address.authority))

    def _take_newest_idle(self, address: Address) -> _Connection | None:
        """Taken out of those that are kept."""
        for place in reversed(range(len(self._idle))):
            if self._idle[place].address == address:
                return self._idle.pop(place)
        return None

    async def _keep_idle(self, connection: _Connection) -> None:
        if connection.http.reusable and len(self._idle) < IDLE_CONNECTIONS:
            connection.kept, connection.idle_since = True, self._clock()
            self._idle.append(connection)
        else:
            await close(connection.stream)

    async def _close_idle(self, is_over: Callable[[_Connection], bool]) -> None:
        over = [connection for connection in self._idle if is_over(connection)]
        self._idle = [connection for connection in self._idle if connection not in over]
        for connection in over:
            await close(connection.stream)
