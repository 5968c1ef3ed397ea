"""One service behind one or several addresses: which is tried next, kept connections, one exchange."""

from __future__ import annotations

from dataclasses import dataclass

import anyio
from anyio.abc import ByteStream

from openguild_proto.client import ClientResponse, ConnectionBroken, HttpClient
from openguild_runtime.client.transport import ATTEMPT_SECS, TRANSPORT, Address, Connect, close, receive

IDLE_CONNECTIONS = 8


@dataclass(slots=True)
class _Connection:
    stream: ByteStream
    http: HttpClient


class Replicas:
    """Picks the address to try next, keeps idle connections, makes one exchange. Raises ValueError without addresses."""

    def __init__(self, urls: tuple[str, ...], connect: Connect) -> None:
        self.connect = connect
        self._addresses = tuple(Address.of(url) for url in urls)
        self._preferred = 0
        self._idle: list[tuple[Address, _Connection]] = []
        if not self._addresses:
            raise ValueError("at least one address is needed")

    async def aclose(self) -> None:
        """Close idle connections."""
        while self._idle:
            _, connection = self._idle.pop()
            await close(connection.stream)

    @property
    def address(self) -> Address:
        """The address that is tried next."""
        return self._addresses[self._preferred]

    def avoid(self, address: Address) -> None:
        """`address` failed: try the next one, unless somebody has moved on already."""
        if self.address == address:
            self._preferred = (self._preferred + 1) % len(self._addresses)

    async def exchange(
        self, method: str, path: str, data: bytes, token: str | None, *, fresh: bool
    ) -> tuple[ClientResponse | None, str]:
        """One request and its response; None and a reason when the transport failed.

        `fresh`: on a new connection, because a kept one may be ending just now and the request is not to be repeated.
        """
        headers: tuple[tuple[str, str], ...] = ()
        if data:
            headers += (("content-type", "application/json"),)
        if token is not None:
            headers += (("authorization", f"Bearer {token}"),)
        address = self.address
        connection: _Connection | None = None
        try:
            with anyio.fail_after(ATTEMPT_SECS):
                connection = await self._connection(address, fresh=fresh)
                await connection.stream.send(connection.http.send_request(method, path, headers, data))
                while (response := connection.http.receive_data(await receive(connection.stream))) is None:
                    continue
        except (*TRANSPORT, ConnectionBroken) as failure:
            self.avoid(address)
            if connection is not None:
                await close(connection.stream)
            return None, _reason(failure)
        except BaseException:  # its caller was cancelled: half an exchange is on it, so nobody can use it again
            if connection is not None:
                await close(connection.stream)
            raise
        if connection.http.reusable and len(self._idle) < IDLE_CONNECTIONS:
            self._idle.append((address, connection))
        else:
            await close(connection.stream)
        if response.status == 503:  # this one is going away or cannot serve now
            self.avoid(address)
        return response, ""

    async def _connection(self, address: Address, *, fresh: bool) -> _Connection:
        for place, (there, connection) in enumerate(self._idle):
            if there == address and not fresh:
                del self._idle[place]
                return connection
        return _Connection(await self.connect(address), HttpClient(address.authority))


def _reason(failure: BaseException) -> str:
    """What failed, in words. anyio hides behind "all attempts" what each address of a name answered."""
    cause: BaseException | None = failure.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    hidden = isinstance(cause, OSError) and (not isinstance(failure, OSError) or failure.errno is None)
    told = cause if hidden else failure
    return f"{type(told).__name__}: {told}"
