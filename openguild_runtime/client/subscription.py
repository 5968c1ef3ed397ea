"""A stream that reconnects automatically. `openguild_proto.client.StreamClient` makes the decisions."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import anyio
import msgspec
from anyio.abc import ByteStream

from openguild_proto.client import (
    ApiError,
    Delivered,
    Disconnected,
    Ended,
    Opened,
    StreamClient,
    StreamEvent,
    is_temporary,
)
from openguild_proto.ws.close_codes import CloseCode
from openguild_runtime.client.connection_pool import ConnectionPool
from openguild_runtime.client.transport import (
    ATTEMPT_SECS,
    TRANSPORT_ERRORS,
    Address,
    OutcomeUnknown,
    close,
    describe_failure,
    receive,
)

T = TypeVar("T")

QUIET_SECS = 1.0  # without events, after which the channel is probably empty
EMPTY_CHECK_SECS = 5.0  # timeout of the request that checks this; the stream is not read meanwhile


class StreamEnded(Exception):
    """The stream has ended and reconnecting would not help. `code` is a close code (PROTOCOL 8.9) or an HTTP status.

    `error` is the error code of an HTTP response (PROTOCOL 3.6), such as "invalid_since".
    """

    def __init__(self, code: int, reason: str, error: str | None = None) -> None:
        super().__init__(f"{code} {reason}".strip())
        self.code = code
        self.reason = reason
        self.error = error

    def __reduce__(self) -> tuple[type[StreamEnded], tuple[object, ...]]:
        """Support pickling."""
        return type(self), (self.code, self.reason, self.error)


class ChannelEvent(msgspec.Struct, frozen=True):
    """One event of a channel, as streams send it (PROTOCOL 8.4.1)."""

    sequence: int
    channel_id: str
    event: dict[str, Any]

    @property
    def text(self) -> str:
        """The text of a message, or "" for other events."""
        return str(self.event.get("content", {}).get("content", ""))


def decode_message(payload: str, kind: type[T]) -> T:
    """Decode a message of a stream. Raises StreamEnded if it is invalid, since a reconnect would deliver the same message."""
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.MsgspecError, RecursionError) as failure:
        raise StreamEnded(CloseCode.INVALID_PAYLOAD, f"the server's message cannot be read: {failure}") from failure


class Subscription:
    """An async iterator of `ChannelEvent`. It reads the stream in the caller's task, so an idle caller stops the stream.

    `next_event` also returns `Opened` and `Disconnected`. Raises StreamEnded, and ApiError when the session has ended.
    `token(refused)` returns an access token other than `refused`.
    """

    def __init__(
        self,
        stream: StreamClient,
        replicas: ConnectionPool,
        clock: Callable[[], float],
        token: Callable[[str | None], Awaitable[str]],
    ) -> None:
        replicas.require_open()
        self.state = stream
        self._pool = replicas
        self._clock = clock
        self._get_token = token
        self._token: str | None = None  # the token of the connection
        self._refused_token: str | None = None  # the last token that the server refused, until it is replaced
        self._transport: ByteStream | None = None
        self._address: Address | None = None
        self._ready: list[StreamEvent] = []
        self._not_before = -math.inf  # no connect before, even if the wait is cancelled
        self._check_empty_at: float | None = None  # when to check whether the channel is empty
        self._checked_empty = False

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> ChannelEvent:
        while True:
            event = await self.next_event()
            if isinstance(event, Delivered):
                return decode_message(event.payload, ChannelEvent)

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the stream. Idempotent."""
        self.state.close()
        transport, self._transport = self._transport, None
        if transport is not None:
            with anyio.move_on_after(1, shield=True), suppress(*TRANSPORT_ERRORS):
                await transport.send(self.state.data_to_send())
            await close(transport)

    async def next_event(self) -> StreamEvent:
        """Return the next event of any kind. Reconnects after a `Disconnected`."""
        while not self._ready:
            if not self.state.connected:
                await self._connect()
            else:
                await self._read()
        event = self._ready.pop(0)
        if isinstance(event, Disconnected):
            self._not_before = self._clock() + event.retry_secs
            if event.needs_token:
                self._refused_token = self._token
            elif self._address is not None:
                self._pool.mark_failed(self._address)
            self._address = self._check_empty_at = None
            await self._close_transport()
        elif isinstance(event, Ended):
            await self._close_transport()
            raise StreamEnded(event.code, event.reason, event.error)
        elif isinstance(event, Opened) and not self._checked_empty:
            self._check_empty_at = self._clock() + QUIET_SECS
        return event

    async def _close_transport(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            await close(transport)

    async def _connect(self) -> None:
        wait = self._not_before - self._clock()
        if wait > 0:
            await anyio.sleep(wait)
        try:
            self._token = token = await self._get_token(self._refused_token)
        except (ApiError, OutcomeUnknown) as failure:
            if isinstance(failure, ApiError) and not is_temporary(failure.status):
                raise  # the session has ended
            self._ready.append(self.state.failed(f"no new token: {failure}", self._clock()))
            return
        self._refused_token = None
        self._address = address = self._pool.address
        self.state.connect(address.authority, token, self._clock())
        try:
            with anyio.fail_after(ATTEMPT_SECS):
                self._transport = await self._pool.connect(address)
                await self._transport.send(self.state.data_to_send())
        except TRANSPORT_ERRORS as failure:
            self._ready.append(self.state.failed(describe_failure(failure), self._clock()))
        except BaseException:  # cancelled within the handshake, which cannot be resumed
            self._ready.append(self.state.failed("cancelled while it connected", self._clock()))
            raise

    async def _read(self) -> None:
        transport, clock = self._transport, self._clock
        if transport is None:
            self._ready.append(self.state.failed("no transport", self._clock()))
            return
        check_empty_at = (
            self._check_empty_at if self.state.channel_id is not None and self.state.position is None else None
        )
        deadline = min((at for at in (self.state.next_deadline(), check_empty_at) if at is not None), default=None)
        data: bytes | None = None
        try:
            with anyio.move_on_after(max(0.0, deadline - clock()) if deadline is not None else None):
                data = await receive(transport)
            if data is None:
                if check_empty_at is not None and clock() >= check_empty_at:
                    await self._check_empty()
                self._ready += self.state.handle_deadline(clock())
                return
            self._ready += self.state.receive_data(data, clock())
            answer = self.state.data_to_send()
            if answer:
                await transport.send(answer)
        except TRANSPORT_ERRORS as failure:
            if self.state.connected:
                self._ready.append(self.state.failed(describe_failure(failure), self._clock()))

    async def _check_empty(self) -> None:
        """Start at position 0 if the log is empty, so that a disconnect before the first event loses nothing.

        Runs at most once, if nothing was replayed. After any other response, the server chooses where the stream begins.
        """
        self._checked_empty, self._check_empty_at = True, None
        path = f"/channels/{self.state.channel_id}/events?limit=1"
        with anyio.move_on_after(EMPTY_CHECK_SECS):
            attempt = await self._pool.attempt("GET", path, b"", self._token, fresh=False)
            if attempt.response is not None and attempt.response.status == 200 and attempt.response.body == b"[]":
                self.state.position = 0
