"""The sockets of a replica's streams: their preparation, the task that waits for it, their joining and leaving."""

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
    """`carry_out` is called after each input of the replica."""

    def __init__(self, replica: Replica, sources: ClocksAndEntropy, carry_out: Callable[[], None]) -> None:
        self._replica = replica
        self._clock = sources.monotonic
        self._wall = sources.wall
        self._carry_out = carry_out
        self._feeder = ReplicaFeeder(replica, sources.monotonic, carry_out)
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines()
        self._waiting: dict[int, asyncio.Future[ErrorCode | None]] = {}

    async def prepare(self, stream: OpenStream, deadline: float) -> ErrorCode | None:
        """Make the replica follow what the stream needs, by `deadline` on the loop's clock. Return why the stream is refused, or
        None; then call `join` or `abandon`."""
        ticket = self._replica.prepare(stream, now=self._clock())
        future = self._waiting[ticket] = self._loop.create_future()
        self._carry_out()
        if future.done():  # as for every channel that the replica already follows
            refusal: ErrorCode | None = future.result()
            return refusal
        with self._deadlines.at(deadline):
            return await self._wait(ticket, future, stream)
        return ErrorCode.DATABASE_UNAVAILABLE

    async def _wait(
        self, ticket: int, future: asyncio.Future[ErrorCode | None], stream: OpenStream
    ) -> ErrorCode | None:
        try:
            return await asyncio.shield(future)  # otherwise a cancellation hides a result of the same turn
        except BaseException:
            if future.done() and future.result() is None:
                self._replica.abandon(stream, now=self._clock())
            else:
                self._replica.cancel(ticket, now=self._clock())
            self._carry_out()
            raise
        finally:
            self._waiting.pop(ticket, None)

    def prepared(self, ticket: int, refusal: ErrorCode | None) -> None:
        """End a preparation: the waiting task continues."""
        future = self._waiting.pop(ticket, None)
        if future is not None and not future.done():
            future.set_result(refusal)

    def abandon(self, stream: OpenStream) -> None:
        """Give up a prepared stream."""
        self._replica.abandon(stream, now=self._clock())
        self._carry_out()

    def join(self, transport: Transport, stream: OpenStream, changes: int) -> None:
        """Join a stream whose upgrade was accepted. `changes`: the count when access was checked."""
        transport.feeder = self._feeder
        handle = transport.socket.fileno()
        self._replica.join(transport, stream, handle=handle, changes=changes, wall=self._wall(), now=self._clock())
        if transport.connection.is_open and (transport.subscriber is None or not transport.subscriber.replaying):
            transport.settle()  # the response first; with a replay, together with the first page
        self._carry_out()

    def leave(self, transport: Transport) -> None:
        """Remove a socket that ends."""
        self._replica.leave(transport, now=self._clock())
        self._carry_out()

    def transports(self) -> list[Transport]:
        """All stream sockets of this replica."""
        return cast("list[Transport]", self._replica.streams.sockets())
