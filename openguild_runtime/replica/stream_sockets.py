"""The stream sockets of a replica: preparing, joining and leaving."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from openguild_proto.errors import ErrorCode
from openguild_proto.http.message import OpenStream
from openguild_proto.replica.replica import Replica
from openguild_runtime.net.transport import Transport
from openguild_runtime.replica.feeding import ReplicaFeeder
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy
from openguild_runtime.system.deadlines import Deadlines


class StreamSockets:
    """The stream sockets of a replica. `perform_actions` is called after each input."""

    def __init__(self, replica: Replica, sources: ClocksAndEntropy, perform_actions: Callable[[], None]) -> None:
        self._replica = replica
        self._clock = sources.monotonic
        self._wall = sources.wall
        self._perform_actions = perform_actions
        self._feeder = ReplicaFeeder(replica, sources.monotonic, perform_actions)
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines()
        self._waiting: dict[int, asyncio.Future[ErrorCode | None]] = {}

    async def prepare(self, stream: OpenStream, deadline: float) -> ErrorCode | None:
        """Have the replica follow the stream's logs, by `deadline` in the loop's time.

        Returns why the stream is refused (DATABASE_UNAVAILABLE after `deadline`), or None; the caller then has to call `join` or
        `abandon`.
        """
        ticket = self._replica.prepare(stream, now=self._clock())
        future = self._waiting[ticket] = self._loop.create_future()
        self._perform_actions()
        if future.done():  # if its logs are followed already
            refusal: ErrorCode | None = future.result()
            return refusal
        with self._deadlines.at(deadline):
            return await self._wait(ticket, future, stream)
        return ErrorCode.DATABASE_UNAVAILABLE

    async def _wait(
        self, ticket: int, future: asyncio.Future[ErrorCode | None], stream: OpenStream
    ) -> ErrorCode | None:
        try:
            return await asyncio.shield(future)  # so that a result of the same turn survives a cancellation
        except BaseException:
            if future.done() and future.result() is None:
                self._replica.abandon(stream, now=self._clock())
            else:
                self._replica.cancel(ticket, now=self._clock())
            self._perform_actions()
            raise
        finally:
            self._waiting.pop(ticket, None)

    def prepared(self, ticket: int, refusal: ErrorCode | None) -> None:
        """Wake the task that waits for a preparation, with its result."""
        future = self._waiting.pop(ticket, None)
        if future is not None and not future.done():
            future.set_result(refusal)

    def abandon(self, stream: OpenStream) -> None:
        """Release a prepared stream that will not be joined."""
        self._replica.abandon(stream, now=self._clock())
        self._perform_actions()

    def join(self, transport: Transport, stream: OpenStream, changes: int) -> None:
        """Join a stream after its upgrade. `changes` is the replica's count of changes when access was checked."""
        transport.feeder = self._feeder
        handle = transport.socket.fileno()
        self._replica.join(transport, stream, handle=handle, changes=changes, wall=self._wall(), now=self._clock())
        if transport.connection.is_open and (transport.subscriber is None or not transport.subscriber.replaying):
            transport.settle()  # send the response first; with a replay it is sent with the first page
        self._perform_actions()

    def leave(self, transport: Transport) -> None:
        """Remove a socket from its stream before it is closed."""
        self._replica.leave(transport, now=self._clock())
        self._perform_actions()

    def transports(self) -> list[Transport]:
        """Return all stream sockets of this replica."""
        return cast("list[Transport]", self._replica.streams.sockets())
