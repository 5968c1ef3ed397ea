"""A client on anyio: log in, post without doubles, follow a channel across restarts.

    async with Client("http://127.0.0.1:8080") as client:
        await client.login("alice", "correct horse battery")
        await client.post(channel_id, "hello")
        async for event in client.subscribe(channel_id):
            print(event.sequence, event.text)

Every decision (what to retry, when, from where to resume) is `openguild_proto.client`'s. Several addresses of one
service may be given: the next one is tried when one fails.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import anyio
import msgspec
from anyio.abc import ByteStream

from openguild_proto.canonical.keys import encode_unpadded
from openguild_proto.client import (
    ApiError,
    Backoff,
    ClientResponse,
    ConnectionBroken,
    Delivered,
    Disconnected,
    Ended,
    HttpClient,
    Notified,
    Session,
    Step,
    StreamClient,
    StreamEvent,
    api_error,
    next_step,
)
from openguild_runtime.sources import Sources

RECEIVE_BYTES = 65_536
ATTEMPT_SECS = 20.0
IDLE_CONNECTIONS = 8

__all__ = ["Address", "ApiError", "ChannelEvent", "Client", "GaveUp", "Posted", "StreamEnded", "Subscription"]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    host: str
    port: int
    tls: bool

    @classmethod
    def of(cls, url: str) -> Address:
        """From `http://host:port` or `https://host`. Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path not in {"", "/"}:
            raise ValueError(f"not a server's address: {url!r}: expected http://host:port")
        tls = parts.scheme == "https"
        return cls(parts.hostname, parts.port or (443 if tls else 80), tls)

    @property
    def authority(self) -> str:
        """The Host header's value."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Connect: TypeAlias = Callable[[Address], Awaitable[ByteStream]]
Uniform: TypeAlias = Callable[[], float]
uniform = random.random  # jitter, not a secret

# The transport failed: nothing is known but that it is gone.
TRANSPORT = (OSError, TimeoutError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)


async def connect_tcp(address: Address) -> ByteStream:
    """TCP, with TLS where the address says so. Raises OSError."""
    if address.tls:
        return await anyio.connect_tcp(address.host, address.port, ssl_context=ssl.create_default_context())
    return await anyio.connect_tcp(address.host, address.port)


class GaveUp(Exception):
    """No attempt within the time allowed was answered. A post that was sent may have been stored: see `nonce`."""


class StreamEnded(Exception):
    """The stream is over for good: `code` is a close code (CONTRACT A7) or an HTTP status."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}".strip())
        self.code = code
        self.reason = reason


class Posted(msgspec.Struct, frozen=True, gc=False):
    """What the server acknowledged: the event is durable."""

    sequence: int
    event_id: str
    created_at: str


class ChannelEvent(msgspec.Struct, frozen=True):
    """One event of a channel as it is streamed (CONTRACT 8)."""

    sequence: int
    channel_id: str
    event: dict[str, Any]

    @property
    def text(self) -> str:
        """The message's text, "" for other kinds of events."""
        return str(self.event.get("content", {}).get("content", ""))


@dataclass(slots=True)
class _Connection:
    stream: ByteStream
    http: HttpClient


@dataclass(slots=True)
class Client:
    """`urls`: addresses of one service. `patience_secs`: how long a request is tried again before `GaveUp`.

    `connect`, `sources` and `uniform` are for tests and other transports.
    """

    urls: str | tuple[str, ...]
    patience_secs: float = 60.0
    connect: Connect = connect_tcp
    sources: Sources = field(default_factory=Sources)
    uniform: Uniform = uniform
    session: Session | None = None
    on_retry: Callable[[str], None] = lambda reason: None
    _addresses: tuple[Address, ...] = ()
    _preferred: int = 0
    _idle: list[tuple[Address, _Connection]] = field(default_factory=list)
    _refreshing: anyio.Lock = field(default_factory=anyio.Lock)

    def __post_init__(self) -> None:
        urls = (self.urls,) if isinstance(self.urls, str) else self.urls
        self._addresses = tuple(Address.of(url) for url in urls)
        if not self._addresses:
            raise ValueError("at least one address is needed")

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close idle connections. Subscriptions close by themselves."""
        while self._idle:
            _, connection = self._idle.pop()
            await _close(connection.stream)

    # --- accounts ------------------------------------------------------------------------------------

    async def register(self, username: str, password: str) -> str:
        """The new account's user id. Raises ApiError, GaveUp."""
        body = {"username": username, "password": password}
        return str((await self.request("POST", "/users/register", body, authorized=False))["user_id"])

    async def login(self, username: str, password: str, device_id: str = "client") -> None:
        """Raises ApiError, GaveUp."""
        body = {"identifier": username, "secret": password, "device": {"device_id": device_id}}
        answer = await self._attempts("POST", "/sessions/login", body, authorized=False, repeatable=True)
        self.session = Session.of(answer.body, self._wall_ms())

    async def logout(self) -> None:
        """End the session on every replica. Raises ApiError, GaveUp."""
        session, self.session = self.session, None
        if session is not None:
            await self.request("POST", "/sessions/revoke", {"refresh_token": session.refresh_token}, authorized=False)

    # --- requests ------------------------------------------------------------------------------------

    async def request(self, method: str, path: str, body: Any = None, *, authorized: bool = True) -> Any:
        """One request to its JSON answer, None for an empty one. GET is repeated when it fails. Raises ApiError, GaveUp."""
        answer = await self._attempts(method, path, body, authorized=authorized, repeatable=method == "GET")
        return msgspec.json.decode(answer.body) if answer.body else None

    async def post(self, channel_id: str, text: str, *, nonce: str | None = None) -> Posted:
        """Store a message once, however often it has to be sent: every attempt carries the same nonce.

        Raises ApiError (nothing was stored), GaveUp (unknown: post again with the same `nonce`).
        """
        body = {"content": text, "nonce": nonce or encode_unpadded(self.sources.random_bytes(16))}
        path = f"/channels/{channel_id}/messages"
        answer = await self._attempts("POST", path, body, authorized=True, repeatable=True)
        return msgspec.json.decode(answer.body, type=Posted)

    async def _attempts(
        self, method: str, path: str, body: Any, *, authorized: bool, repeatable: bool
    ) -> ClientResponse:
        """Send until it is done, refused, or `patience_secs` have passed."""
        data = b"" if body is None else msgspec.json.encode(body)
        backoff = Backoff(self.uniform)
        deadline = self.sources.monotonic() + self.patience_secs
        refreshed = False
        while True:
            token = await self.fresh_token() if authorized else None
            response, reason = await self._attempt(method, path, data, token, fresh=not repeatable)
            step, advised = next_step(response, repeatable=repeatable) if response else (Step.RETRY, None)
            if response is not None:
                if step is Step.DONE:
                    return response
                if step is Step.REFRESH and authorized and not refreshed:
                    refreshed = True
                    await self.refresh(token)
                    continue
                if step is not Step.RETRY:
                    raise api_error(response)
                reason = f"HTTP {response.status}"
            elif not repeatable:
                raise GaveUp(reason)
            delay = backoff.next_delay(advised)
            if self.sources.monotonic() + delay > deadline:
                raise api_error(response) if response else GaveUp(reason)
            self.on_retry(reason)
            await anyio.sleep(delay)

    async def _attempt(
        self, method: str, path: str, data: bytes, token: str | None, *, fresh: bool
    ) -> tuple[ClientResponse | None, str]:
        """One exchange; None and a reason when the transport failed.

        `fresh`: on a new connection, because a kept one may be ending just now and the request is not to be repeated.
        """
        headers: tuple[tuple[str, str], ...] = ()
        if data:
            headers += (("content-type", "application/json"),)
        if token is not None:
            headers += (("authorization", f"Bearer {token}"),)
        address = self._addresses[self._preferred]
        connection: _Connection | None = None
        try:
            with anyio.fail_after(ATTEMPT_SECS):
                connection = await self._connection(address, fresh=fresh)
                await connection.stream.send(connection.http.send_request(method, path, headers, data))
                while (response := connection.http.receive_data(await _receive(connection.stream))) is None:
                    continue
        except (*TRANSPORT, ConnectionBroken) as failure:
            self.avoid(address)
            if connection is not None:
                await _close(connection.stream)
            return None, f"{type(failure).__name__}: {failure}"
        if connection.http.reusable and len(self._idle) < IDLE_CONNECTIONS:
            self._idle.append((address, connection))
        else:
            await _close(connection.stream)
        if response.status == 503:  # this one is going away or cannot serve now
            self.avoid(address)
        return response, ""

    async def _connection(self, address: Address, *, fresh: bool) -> _Connection:
        for place, (there, connection) in enumerate(self._idle):
            if there == address and not fresh:
                del self._idle[place]
                return connection
        return _Connection(await self.connect(address), HttpClient(address.authority))

    @property
    def address(self) -> Address:
        """The address that is tried next."""
        return self._addresses[self._preferred]

    def avoid(self, address: Address) -> None:
        """`address` failed: try the next one, unless somebody has moved on already."""
        if self._addresses[self._preferred] == address:
            self._preferred = (self._preferred + 1) % len(self._addresses)

    # --- tokens --------------------------------------------------------------------------------------

    async def fresh_token(self) -> str:
        """An access token that is good for a while. Raises ApiError, GaveUp, and RuntimeError before a login."""
        if self.session is None:
            raise RuntimeError("log in first")
        if self.session.is_stale(self._wall_ms()):
            await self.refresh(self.session.access_token)
        return self.session.access_token

    def _wall_ms(self) -> int:
        return int(self.sources.wall() * 1000)

    async def refresh(self, refused: str | None) -> None:
        """Get a new pair, once for all who ask. `refused`: the access token that was not accepted."""
        async with self._refreshing:
            session = self.session
            if session is None or session.access_token != refused:
                return
            body = {"refresh_token": session.refresh_token}  # repeating a refresh has a grace (CONTRACT 5)
            answer = await self._attempts("POST", "/sessions/refresh", body, authorized=False, repeatable=True)
            self.session = Session.of(answer.body, self._wall_ms())

    # --- streams -------------------------------------------------------------------------------------

    def subscribe(self, channel_id: str, since: int | None = None) -> Subscription:
        """Events after `since` (exclusive; None: the newest ones and on), in order, once, across reconnects."""
        return Subscription(self, StreamClient(channel_id, since, self.uniform))

    async def notifications(self) -> AsyncIterator[dict[str, Any]]:
        """What happens in all that the user may read, while connected (CONTRACT 9); nothing is replayed."""
        subscription = Subscription(self, StreamClient(None, None, self.uniform))
        try:
            while True:
                event = await subscription.next_event()
                if isinstance(event, Notified):
                    yield msgspec.json.decode(event.payload)
        finally:
            await subscription.aclose()


class Subscription:
    """An async iterator of `ChannelEvent`. It reads in its caller's task: whoever stops asking stops the stream.

    `next_event` also gives `Opened` and `Disconnected`. Raises StreamEnded; ApiError when the session is over.
    """

    def __init__(self, client: Client, stream: StreamClient) -> None:
        self.state = stream
        self._client = client
        self._transport: ByteStream | None = None
        self._address: Address | None = None
        self._ready: list[StreamEvent] = []
        self._wait_secs = 0.0

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> ChannelEvent:
        while True:
            event = await self.next_event()
            if isinstance(event, Delivered):
                return msgspec.json.decode(event.payload, type=ChannelEvent)

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Leave the stream. Idempotent."""
        self.state.close()
        transport, self._transport = self._transport, None
        if transport is not None:
            with anyio.move_on_after(1, shield=True), suppress(*TRANSPORT):
                await transport.send(self.state.data_to_send())
            await _close(transport)

    async def next_event(self) -> StreamEvent:
        """The next event, whatever it is; reconnects by itself after a `Disconnected`."""
        while not self._ready:
            if not self.state.connected:
                await self._connect()
            else:
                await self._read()
        event = self._ready.pop(0)
        if isinstance(event, Disconnected):
            self._wait_secs = event.retry_secs
            if self._address is not None:
                self._client.avoid(self._address)
            await self._let_go()
            if event.needs_token and self._client.session is not None:
                await self._client.refresh(self._client.session.access_token)
        elif isinstance(event, Ended):
            await self._let_go()
            raise StreamEnded(event.code, event.reason)
        return event

    async def _let_go(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            await _close(transport)

    async def _connect(self) -> None:
        wait, self._wait_secs = self._wait_secs, 0.0
        if wait:
            await anyio.sleep(wait)
        token = await self._client.fresh_token()
        self._address = address = self._client.address
        self.state.connect(address.authority, token, self._client.sources.monotonic())
        try:
            with anyio.fail_after(ATTEMPT_SECS):
                self._transport = await self._client.connect(address)
                await self._transport.send(self.state.data_to_send())
        except TRANSPORT as failure:
            self._ready.append(self.state.failed(f"{type(failure).__name__}: {failure}"))

    async def _read(self) -> None:
        transport, clock = self._transport, self._client.sources.monotonic
        if transport is None:
            self._ready.append(self.state.failed("no transport"))
            return
        deadline = self.state.next_deadline()
        data: bytes | None = None
        try:
            with anyio.move_on_after(max(0.0, deadline - clock()) if deadline is not None else None):
                data = await _receive(transport)
            if data is None:
                self._ready += self.state.handle_deadline(clock())
                return
            self._ready += self.state.receive_data(data, clock())
            answer = self.state.data_to_send()
            if answer:
                await transport.send(answer)
        except TRANSPORT as failure:
            if self.state.connected:
                self._ready.append(self.state.failed(f"{type(failure).__name__}: {failure}"))


async def _receive(stream: ByteStream) -> bytes:
    """b"" at the end of the stream."""
    try:
        return await stream.receive(RECEIVE_BYTES)
    except anyio.EndOfStream:
        return b""


async def _close(stream: ByteStream) -> None:
    with anyio.move_on_after(1, shield=True), suppress(*TRANSPORT):
        await stream.aclose()
